"""Labels for the recordings that have no text: what PocketSphinx hears in them, where it is rather sure.

`python -m relay_models.training.ears_pseudo DATA OUT` adds OUT/clips/train_speakers: the clips of speech/librispeech_*
that nobody is judged by, cut at pauses into pieces. Training on a recogniser's own words (after Kahn et al. 2020, arXiv
1909.09116): one word in five is wrong, but the voices are those of two hundred people.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relay_models.training.ears_data import RATE_HZ, Clips, Guard, read_audio, rows_of, words

FRAME_SAMPLES = RATE_HZ // 100
PAUSE_FRAMES = 16
"""A pause at which a recording is cut."""
SHORTEST_S, LONGEST_S = 1.2, 9.0
SUREST_SHARE = 0.85
"""Share of the pieces that is kept, the surest first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a recording between two pauses.

    Attributes:
        first, last: Frames of 10 ms, the last one included, pauses left out.
        text: What was heard.
        sureness: Mean log-posterior of a word.
    """

    first: int
    last: int
    text: str
    sureness: float


@dataclass(slots=True)
class Segment:
    """A word or a pause, as the recogniser places it: frames of 10 ms, the last one included."""

    word: str
    first: int
    last: int
    log_posterior: float

    @property
    def spoken(self) -> bool:
        """It is a word; pauses and noises are not."""
        return not self.word.startswith(("<", "[", "+"))


def cut(segments: list[Segment]) -> Iterator[Piece]:
    """Joins words to pieces that end at pauses and last from `SHORTEST_S` to about `LONGEST_S`."""
    held: list[Segment] = []
    for segment in [*segments, Segment("<sil>", 0, PAUSE_FRAMES, 0.0)]:
        if segment.spoken:
            held.append(segment)
            continue
        if not held or segment.last - segment.first + 1 < PAUSE_FRAMES:
            continue
        frames = held[-1].last - held[0].first + 1
        if frames < SHORTEST_S * 100:
            continue  # too short: goes on over the pause
        if frames <= LONGEST_S * 100:
            text = words(" ".join(item.word.partition("(")[0] for item in held))
            sureness = sum(item.log_posterior for item in held) / len(held)
            yield Piece(held[0].first, held[-1].last, text, sureness)
        held = []


def hear(decoder: object, pcm: NDArray[np.int16]) -> list[Segment]:
    """One recording through PocketSphinx."""
    decoder.start_utt()  # type: ignore[attr-defined]
    decoder.process_raw(pcm.tobytes(), full_utt=True)  # type: ignore[attr-defined]
    decoder.end_utt()  # type: ignore[attr-defined]
    logmath = decoder.logmath  # type: ignore[attr-defined]
    return [
        Segment(item.word, item.start_frame, item.end_frame, logmath.log_to_ln(item.prob))
        for item in decoder.seg() or []  # type: ignore[attr-defined]
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE_HZ, loglevel="FATAL", bestpath=True)
    folder = args.data / "speech/librispeech_tc100_251spk"
    aligned = {row["file"]: row["text"] for row in rows_of(folder / "transcripts.tsv")}
    guard = Guard(aligned.values())
    found: list[tuple[float, NDArray[np.int16], str, str]] = []
    margin = RATE_HZ // 10
    for row in rows_of(folder / "metadata.tsv"):
        if row["file"] in aligned:
            continue
        pcm = read_audio(folder / row["file"])
        for piece in cut(hear(decoder, pcm)):
            if guard.refuses(piece.text):
                continue
            first, last = piece.first * FRAME_SAMPLES - margin, (piece.last + 1) * FRAME_SAMPLES + margin
            found.append((piece.sureness, pcm[max(0, first) : last], piece.text, row["speaker_id"]))
    found.sort(key=lambda item: -item[0])
    kept = found[: math.ceil(SUREST_SHARE * len(found))]
    clips = Clips.join([(pcm, text, name) for _, pcm, text, name in kept])
    clips.save(args.out / "clips" / "train_speakers", compression=0.8)
    print(f"{len(kept)} of {len(found)} pieces, {clips.hours:.2f} h, of {len(set(clips.names))} speakers")


if __name__ == "__main__":
    main()
