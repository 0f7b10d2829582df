"""Rated drafts as files: what `drafts` writes and `verifier` learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from relay_models.drafting import Drafted
from relay_models.training.rating import Example, Question

PARTS = ("train", "calibrate", "judge")
_TOKENS_A_FILE = 36_000  # 14 MB


def write_rated(examples: Sequence[Example], folder: Path) -> None:
    """Writes FOLDER/rated-KK.safetensors: all of the drafts, and of the questions their part and confidence.

    Hidden states are kept as int8, each token's by its largest one: a drop of noise beside the dropout they meet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting: list[Example] = []
    number = 0
    for place, example in enumerate(examples, start=1):
        waiting.append(example)
        if place == len(examples) or sum(len(each.drafted.tokens) for each in waiting) >= _TOKENS_A_FILE:
            save_file(_arrays(waiting), folder / f"rated-{number:02}.safetensors")
            waiting, number = [], number + 1


def read_rated(folders: Sequence[Path]) -> list[Example]:
    """The drafts of some folders; their questions have neither context nor text."""
    return [e for folder in folders for path in sorted(folder.glob("rated-*.safetensors")) for e in _examples(path)]


def _arrays(examples: Sequence[Example]) -> dict[str, NDArray[np.generic]]:
    drafts = [example.drafted for example in examples]
    hidden = np.concatenate([draft.hidden for draft in drafts])
    scale = np.maximum(np.abs(hidden).max(1), 1e-9) / 127
    return {
        "hidden": np.rint(hidden / scale[:, None]).astype(np.int8),
        "scale": scale.astype(np.float32),
        "scalars": np.concatenate([draft.scalars for draft in drafts]).astype(np.float32),
        "tokens": np.concatenate([draft.tokens for draft in drafts]).astype(np.int32),
        "word_ends": np.concatenate([draft.word_ends for draft in drafts]).astype(np.int32),
        "regrets": np.concatenate([example.regrets for example in examples]).astype(np.float32),
        "token_counts": np.array([len(draft.tokens) for draft in drafts], np.int32),
        "word_counts": np.array([len(draft.word_ends) for draft in drafts], np.int32),
        "complete": np.array([draft.complete for draft in drafts], np.uint8),
        "confidence": np.array([example.question.confidence for example in examples], np.float32),
        "part": np.array([PARTS.index(example.question.part) for example in examples], np.uint8),
    }


def _examples(path: Path) -> Iterator[Example]:
    arrays = load_file(path)
    hidden = arrays["hidden"] * arrays["scale"][:, None]
    token_ends, word_ends = np.cumsum(arrays["token_counts"]), np.cumsum(arrays["word_counts"])
    for row, (token_end, word_end) in enumerate(zip(token_ends, word_ends, strict=True)):
        tokens = slice(token_end - arrays["token_counts"][row], token_end)
        words = slice(word_end - arrays["word_counts"][row], word_end)
        entropy, log_probability, margin = arrays["scalars"][tokens].T
        yield Example(
            Drafted(
                tuple(arrays["tokens"][tokens].tolist()),
                tuple(arrays["word_ends"][words].tolist()),
                bool(arrays["complete"][row]),
                hidden[tokens],
                log_probability,
                entropy,
                margin,
            ),
            Question([], [], float(arrays["confidence"][row]), PARTS[arrays["part"][row]], ""),
            tuple(arrays["regrets"][words].tolist()),
        )
