"""Recordings of people with text, beside those in the data folder: packed for training, each folder a set of its own.

`python -m relay_models.training.ears_natural ROOT OUT FOLDER ...`: every FOLDER holds `manifest.jsonl`, lines of
`{"wav", "text"}` with paths relative to it. OUT gets `train_natural-NAME-K.json` and `.ogg`, parts that are
small enough to travel one by one; `--unpack SHARDS` makes shards of them for a run that is under way. ROOT is of
`ears_data`; what is said in its held-out sets is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relay_models.training.ears_data import RATE_HZ, Clips, Guard, read_audio, sayable, words
from relay_models.training.ears_synthesis import write_shard

SHORTEST_S, LONGEST_S = 0.6, 16.7
_FRAME = RATE_HZ // 50
_MARGIN_FRAMES = (6, 8)
"""Kept before and after speech; `finish` of the synthesis keeps as much."""


def trimmed(pcm: NDArray[np.int16]) -> NDArray[np.int16] | None:
    """A recording without the quiet before and after speech, peak at half scale; None when nobody is heard.

    Quiet is what stays within 6 dB of the recording's noise floor or 35 dB below its loudest part.
    """
    frames = pcm[: len(pcm) // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float32)
    if len(frames) < 5:
        return None
    level_db = 10 * np.log10(np.square(frames).mean(1) + 1.0)
    floor_db, top_db = np.percentile(level_db, 5), level_db.max()
    loud = np.flatnonzero(level_db > max(min(floor_db + 6, top_db - 20), top_db - 35))
    if not len(loud) or top_db < 25:
        return None
    first, last = loud[0] - _MARGIN_FRAMES[0], loud[-1] + 1 + _MARGIN_FRAMES[1]
    part = pcm[max(0, first) * _FRAME : last * _FRAME].astype(np.float32)
    return np.rint(part * (16_000 / np.abs(part).max())).astype(np.int16)


def usable(folder: Path, guard: Guard) -> Iterator[tuple[NDArray[np.int16], str, str]]:
    """Samples, text and speaker of the recordings of a folder that can be trained on."""
    with (folder / "manifest.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            said = sayable(row["text"], shortest=1, longest=60)
            label = words(said) if said else ""
            if not label or guard.refuses(label):
                continue
            pcm = trimmed(read_audio(folder / row["wav"]))
            if pcm is None or not SHORTEST_S <= len(pcm) / RATE_HZ <= LONGEST_S:
                continue
            if not 3 <= len(label) / (len(pcm) / RATE_HZ) <= 26:
                continue  # characters a second that nobody speaks: the text is of something else
            yield pcm, label, str(row.get("speaker", ""))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--part-hours", type=float, default=1.8)
    parser.add_argument("--unpack", type=Path, metavar="SHARDS", help="write OUT's sets there, and pack nothing")
    args = parser.parse_args()
    if args.unpack:
        for index in sorted(args.out.glob("train_*.json")):
            write_shard(Clips.load(index.with_suffix("")), args.unpack, index.stem.removeprefix("train_"))
        return
    held_out = [Clips.load(args.root / "clips" / name).texts for name in ("kathleen", "strangers")]
    guard = Guard(text for texts in held_out for text in texts)
    for folder in args.folders:
        parts = list(usable(folder, guard))
        random.Random(0).shuffle(parts)
        hours = sum(len(pcm) for pcm, _, _ in parts) / RATE_HZ / 3600
        speakers = len({speaker for _, _, speaker in parts})
        count = max(1, math.ceil(hours / args.part_hours))
        for number in range(count):
            stem = args.out / f"train_natural-{folder.name}-{number}"
            Clips.join(parts[number::count]).save(stem, compression=1.0)
        print(f"{folder.name}: {len(parts)} clips, {hours:.2f} h, {speakers} speakers, {count} parts", flush=True)


if __name__ == "__main__":
    main()
