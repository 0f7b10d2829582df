"""Static steps for the torch runners: captured on a GPU where that can be done, and with pinned buffers around them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from relay_models.slot_pipeline import Pipeline

log = logging.getLogger(__name__)


def own_stream(device: str) -> None:
    """On a GPU, what this thread does from now on goes to a stream of its own, beside what other engines compute.

    Raises:
        RuntimeError, AssertionError: Torch cannot use the device.
    """
    if device == "cpu":
        return
    import torch

    torch.cuda.synchronize()  # what was begun on the stream before
    torch.cuda.set_stream(torch.cuda.Stream())


def powers(rows: int) -> list[int]:
    """Sizes of batches up to so many rows: powers of two, and that number."""
    return [*(2**power for power in range((rows - 1).bit_length())), rows]


def static_steps(
    step: Callable[..., tuple[Tensor, ...]],
    blank: Callable[[int], Mapping[str, Tensor]],
    sizes: Sequence[int],
    *,
    name: str,
    depth: int = 1,
) -> Pipeline:
    """Steps of batches of a few sizes; see `relay_models.slot_graph.Buckets`.

    Args:
        step, blank: What is stepped, on the device of the blank inputs.
        sizes: Rows of the batches; smaller ones are filled up.
        name: What messages call it.
        depth: How many steps may be under way at a time.
    """
    from relay_models.slot_graph import Buckets
    from relay_models.slot_pipeline import Pipeline

    if next(iter(blank(1).values())).is_cuda:
        try:
            return Pipeline(Buckets(step, blank, sizes, graph=True), depth=depth)
        except RuntimeError as error:  # a driver that captures nothing
            cause = " ".join(str(error).split())[:300]
            log.warning("the %s goes without CUDA graphs and will be slower: %s", name, cause)
    return Pipeline(Buckets(step, blank, sizes, graph=False), depth=depth)
