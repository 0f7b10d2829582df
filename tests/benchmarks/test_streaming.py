"""The streaming benchmark on small encoders: every figure there, and the arithmetic behind them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relay.cli import run
from relay_benchmarks import streaming, streaming_encoder
from relay_benchmarks.streaming_options import StreamingOptions
from relay_benchmarks.trend import slope, trend

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own
SMALL = ["--layers", "2", "--size", "32", "--heads", "2", "--inner", "48", "--channels", "8", "--mel-bins", "16"]


def test_the_encoder_beside_transformers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    flags = ["--streams", "1", "3", "--steps", "5", "--peer-batches", "1", "2", "--json", "-"]
    assert run(["bench", "streaming", *SMALL, *flags, "--plot", str(tmp_path / "a.png")], dict(os.environ)) == 0
    report = json.loads(capsys.readouterr().out)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert [result["streams"] for result in report["results"]] == [1, 3]
    assert [result["streams"] for result in report["peer"]["results"]] == [1, 2]
    for result in report["results"]:
        assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]
        assert 0 < result["floor_ms"] < result["p50_ms"]
    (checked,) = report["checks"]
    assert 0 < checked["relative_error"] < 1e-5
    assert report["summary"]["one_stream_step_ratio"] > 0


@pytest.mark.parametrize("part", ["growth", "stages"])
def test_the_other_parts(capsys: pytest.CaptureFixture[str], tmp_path: Path, part: str) -> None:
    flags = ["--part", part, "--hours", "0.05", "--streams", "3", "--steps", "5"]
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")]
    assert run(["bench", "streaming", *SMALL, *flags, *files], dict(os.environ)) == 0
    found = json.loads((tmp_path / "a.json").read_text())[part]
    assert (tmp_path / "a.png").stat().st_size > 5_000
    if part == "growth":
        assert [point["minute"] for point in found["points"]] == [0, 1, 2]
        assert found["chunks"] == 3 * 375
    else:
        assert found["ratio"] == pytest.approx(found["sequential_ms"] / found["pipelined_ms"], abs=1e-2)


def test_frames_that_are_wrong_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from relay_models.slot_ops import TorchOps

    attend = TorchOps.attend
    monkeypatch.setattr(TorchOps, "attend", lambda *arguments: 1.01 * attend(*arguments))
    options = StreamingOptions(layers=1, size=32, heads=2, inner=48, channels=8, mel_bins=16, streams=(1,), peer=False)
    with pytest.raises(ValueError, match="right frames"):
        streaming.run(options, lambda text: None, lambda report: None)


def test_work_is_what_the_published_shape_needs() -> None:
    options = StreamingOptions(layers=1)
    encoder = streaming_encoder.random_encoder(options)
    work = streaming_encoder.work(encoder, options)
    block = 2 * 2 * 1024 * 4096 + 4 * 1024**2 + 3 * 1024**2  # two feed-forwards, attention, convolution
    attention = 3 * 72 * 1024 + 73 * 1024 - 72 * 1024 + 9 * 1024
    subsampling = work["flop_per_stream"] / 4 - block - attention
    # Positions of each stage for one frame of the encoder, times what each position costs.
    stages = 4 * 65 * 256 * 9 + 2 * 33 * 256 * (9 + 256) + 17 * 256 * (9 + 256) + 17 * 256 * 1024
    assert subsampling == stages
    assert work["weights"] == sum(parameter.numel() for parameter in encoder.parameters())


def test_a_summary_counts_both_sides_alike() -> None:
    def results(*rows: tuple[int, float]) -> list[dict[str, Any]]:
        return [{"streams": n, "p50_ms": ms, "p99_ms": ms} for n, ms in rows]

    report = {
        "chunk_ms": 160,
        "results": results((1, 2.0), (100, 70.0), (200, 90.0)),
        "peer": {"results": results((1, 20.0), (30, 30.0))},
    }
    found = streaming.summary(report)
    assert found["streams_with_p99_in_half_a_chunk"] == 100
    assert found["peer_streams_with_p99_in_half_a_chunk"] == 60  # two batches of 30 ms
    assert found["peer_streams_in_real_time"] == 160
    assert found["one_stream_step_ratio"] == 0.1
    assert streaming.summary({**report, "results": []})["streams_in_real_time"] == 0


def test_a_slope_and_its_interval() -> None:
    """The interval holds the true slope in about 95 of 100 draws, and a disturbed minute does not matter."""
    xs = np.arange(60.0)
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(500):
        rise, low, high = slope(xs, 3 + 0.5 * xs + generator.normal(0, 2, 60))
        assert low <= rise <= high
        held += low <= 0.5 <= high
    assert 460 <= held <= 492
    disturbed = 3 + 0.5 * xs
    disturbed[50:56] = 100
    assert slope(xs, disturbed)[0] == pytest.approx(0.5, abs=0.02)
    assert slope([0, 1, 2], [1, 2, 4])[2] == math.inf
    assert trend([0, 1], [1, 2], "ms")["confidence_95"] is None
    assert trend(xs, 5 + 0.1 * xs, "ms") == {
        "ms_per_hour": 6.0,
        "confidence_95": [6.0, 6.0],
        "of_the_mean": pytest.approx(6 / 7.95, abs=1e-4),
        "distinguishable_from_0": True,
    }


def test_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    assert run(["bench", "streaming", "--device", "cuda"], dict(os.environ)) == 2
    assert "--device cpu" in capsys.readouterr().err
