"""Several GPUs of one machine that train one model: equal weights, batches of their own, one mean gradient."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, distributed, nn


class Peers:
    """This process among those that train together. Alone, all of it does nothing.

    Args:
        rank: Number of this process; the first one decides.
        count: How many there are.
        meeting: File by which they find each other; must not exist before.
        device: Of this process, CUDA unless there is one process only.
    """

    def __init__(self, rank: int = 0, count: int = 1, meeting: Path | None = None, device: str = "cuda") -> None:
        self.rank, self.count = rank, count
        if count > 1:
            backend = "nccl" if device.startswith("cuda") else "gloo"
            url = f"file://{meeting}"
            distributed.init_process_group(backend, init_method=url, rank=rank, world_size=count)
            # What concerns the host only goes past the device, whose queue would have to be waited for.
            self._hosts = distributed.new_group(backend="gloo")

    @property
    def first(self) -> bool:
        """This process reports, judges and saves."""
        return self.rank == 0

    def equalise(self, model: nn.Module) -> None:
        """Gives every process the weights of the first."""
        if self.count > 1:
            for parameter in model.parameters():
                distributed.broadcast(parameter.detach(), 0)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces each gradient by its mean over the processes; all must hold gradients of the same parameters."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts: list[Tensor] = list(flat.div_(self.count).split([gradient.numel() for gradient in gradients]))
        torch._foreach_copy_(
            gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        )

    def agree(self, value: float | None) -> float | None:
        """What the first process says; None from it is None for all."""
        if self.count == 1:
            return value
        said = torch.tensor([float("nan") if value is None else value], dtype=torch.float64)
        distributed.broadcast(said, 0, group=self._hosts)
        agreed = said.item()
        return None if agreed != agreed else agreed

    def part(self) -> None:
        """Leaves the group."""
        if self.count > 1:
            distributed.destroy_process_group()
