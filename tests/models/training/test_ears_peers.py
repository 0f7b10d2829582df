"""Processes that train one model must hold the same weights after every step, and stop together."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from relay_models.training.ears_peers import Peers


def work(rank: int, folder: Path) -> None:
    peers = Peers(rank, 2, folder / "meeting", "cpu")
    torch.manual_seed(rank)
    model = nn.Linear(3, 2)
    idle = nn.Parameter(torch.zeros(1))
    peers.equalise(model)
    x = torch.full((1, 3), float(rank + 1))
    model(x).sum().backward()
    peers.average([*model.parameters(), idle])
    said = [peers.agree(0.5 if rank == 0 else 9.0), peers.agree(None if rank == 0 else 9.0)]
    gradient = model.weight.grad
    assert gradient is not None
    facts = {"weight": model.weight.tolist(), "gradient": gradient.tolist(), "said": said}
    (folder / f"{rank}.json").write_text(json.dumps(facts))
    assert idle.grad is None
    peers.part()


def test_two_processes_share_weights_gradients_and_decisions(tmp_path: Path) -> None:
    spawn(work, (tmp_path,), nprocs=2)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one["weight"] == other["weight"]
    assert one["gradient"] == other["gradient"] == [[1.5, 1.5, 1.5]] * 2
    assert one["said"] == other["said"] == [0.5, None]


def test_one_process_alone_changes_nothing() -> None:
    peers, model = Peers(), nn.Linear(1, 1)
    model(torch.ones(1, 1)).sum().backward()
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    peers.equalise(model)
    peers.average(model.parameters())
    assert [p.grad for p in model.parameters()] == before
    assert (peers.first, peers.agree(2.0), peers.agree(None)) == (True, 2.0, None)
    peers.part()
