"""How well the ears hear: word errors by set, look-ahead and head, decoded greedily from whole recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from relay_models.decoding import GreedyCTC, GreedyTransducer
from relay_models.ears import Ears
from relay_models.state import StreamState, valid_positions
from relay_models.training.ears_data import RATE_HZ, Clips

LEAD_S, TAIL_S = 0.2, 0.6
"""Silence put around each clip, as a caller's pauses would be."""


def word_errors(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, insertions and deletions at least (Levenshtein) between two rows of words."""
    row = np.arange(len(heard) + 1)
    for index, word in enumerate(reference, start=1):
        kept = row[:-1] + np.array([word != other for other in heard], dtype=int)
        best = np.minimum(kept, row[1:] + 1)
        row = np.concatenate(([index], best))
        # An insertion costs one more than the best cell to the left.
        row = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))
    return int(row[-1])


def tokens_of(decoder: GreedyCTC | GreedyTransducer, frames: Tensor, counts: Tensor) -> list[list[int]]:
    """What a decoder hears in whole recordings: frames [rows, time, size], counts [rows] -> tokens of each row."""
    state = StreamState(decoder.fresh_tensors(len(frames)))
    said, _ = decoder.step(frames, valid_positions(counts, frames.shape[1]), state)
    return [row[:count] for row, count in zip(said.tokens.tolist(), said.counts.tolist(), strict=True)]


def _padded(clips: Sequence[NDArray[np.int16]], device: torch.device) -> tuple[Tensor, Tensor]:
    lead, tail = int(LEAD_S * RATE_HZ), int(TAIL_S * RATE_HZ)
    lengths = torch.tensor([lead + len(clip) + tail for clip in clips])
    audio = torch.zeros(len(clips), int(lengths.max()))
    for row, clip in zip(audio, clips, strict=True):
        row[lead : lead + len(clip)] = torch.from_numpy(clip.astype(np.float32) / 32768)
    return audio.to(device), lengths.to(device)


@torch.no_grad()
def evaluate(
    model: Ears,
    tokenizer: Tokenizer,
    sets: Mapping[str, Clips],
    *,
    rights: Sequence[int],
    transducer: bool,
    rows: int = 64,
    show: int = 0,
) -> dict[str, dict[str, float]]:
    """Word error rates in per cent: {set: {"ctc@13": .., "rnnt@13": ..}}.

    Args:
        model: The recogniser; put into evaluation mode and back.
        tokenizer: Of its tokens.
        sets: Clips with texts.
        rights: Look-aheads in frames.
        transducer: Whether to decode with the transducer too.
        rows: Clips at a time.
        show: Pairs of text and hypothesis to print for each set, at the last look-ahead.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    assert model.ctc is not None
    decoders: dict[str, GreedyCTC | GreedyTransducer] = {"ctc": GreedyCTC(model.ctc)}
    if transducer:
        decoders["rnnt"] = GreedyTransducer(model.predictor, model.joint)
    rates: dict[str, dict[str, float]] = {}
    for name, clips in sets.items():
        pairs = sorted(clips, key=lambda pair: -len(pair[0]))
        total = sum(len(text.split()) for _, text in pairs)
        errors: dict[str, int] = {}
        for first in range(0, len(pairs), rows):
            part = pairs[first : first + rows]
            audio, lengths = _padded([clip for clip, _ in part], device)
            features, counts = model.features(audio, lengths)
            for right in rights:
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                    frames, frame_counts, _ = model(features, counts, right)
                for head, decoder in decoders.items():
                    texts = tokenizer.decode_batch(tokens_of(decoder, frames.float(), frame_counts))
                    key = f"{head}@{right}"
                    wrong = (word_errors(t.split(), h.split()) for (_, t), h in zip(part, texts, strict=True))
                    errors[key] = errors.get(key, 0) + sum(wrong)
                    if show and first == 0 and right == rights[-1] and head == list(decoders)[-1]:
                        for (_, text), hypothesis in list(zip(part, texts, strict=True))[:show]:
                            print(f"  {name}: {text} | {hypothesis}", flush=True)
        rates[name] = {key: 100 * count / max(1, total) for key, count in errors.items()}
    model.train(was_training)
    return rates


def table(rates: Mapping[str, Mapping[str, float]]) -> str:
    """Rates as lines of text."""
    return "\n".join(
        f"  {name:12}" + "  ".join(f"{key} {rate:5.1f}" for key, rate in row.items()) for name, row in rates.items()
    )
