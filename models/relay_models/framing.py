"""How samples, mel frames and encoder frames follow each other. No torch: every runner uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
"""Samples of a mel frame."""
WINDOW_SAMPLES = 400
LEAD_SAMPLES = 2 * HOP_SAMPLES - WINDOW_SAMPLES // 2
"""Zeros that a stream begins with, so that its hops end where a recording's windows end; see `LogMel.step`."""
STAGES = 3
SUBSAMPLING = 2**STAGES
"""Mel frames of an encoder frame."""
FRAME_MS = 80
"""Length of an encoder frame."""
LEAD_IN_SAMPLES = LEAD_SAMPLES + (SUBSAMPLING - 2) * HOP_SAMPLES
"""Zeros before a stream's first sample that make its first chunk begin with mel frame -7."""
ENDLESS = 2**62
"""Mel frames of a stream whose end is not known."""

Count = TypeVar("Count", int, "Tensor")


def frame_counts(lengths: Count) -> Count:
    """Encoder frames of so many mel frames. Frame j takes mel frames 8 j - 14 to 8 j; missing ones count as zeros."""
    counts = lengths
    for _ in range(STAGES):
        counts = counts // 2 + 1
    return counts * (lengths > 0)


def chunk_samples(right: int) -> int:
    """Samples of a chunk of `right` + 1 encoder frames."""
    return (right + 1) * SUBSAMPLING * HOP_SAMPLES


def lookahead_ms(right: int) -> int:
    """A look-ahead of so many encoder frames, in time."""
    return right * FRAME_MS
