"""The recogniser that ships, in both runners, on the bundled question."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import relay
from relay.audio import Int16Array
from relay.engine import catalog
from relay.engine.catalog import EarsOptions
from relay.engine.ears import EarsInput, EarsOutput

SAID = "can you help me find a restaurant"


@pytest.fixture(scope="module")
def question() -> Int16Array:
    pcm, rate_hz = soundfile.read(Path(relay.__file__).parent / "assets" / "question.wav", dtype="float32")
    return np.rint(soxr.resample(pcm, rate_hz, 16_000) * 32767).astype(np.int16)


def hear(options: EarsOptions, pcm: Int16Array, samples: int) -> EarsOutput:
    """The final answer to audio that comes `samples` at a time."""
    runner = catalog.ears("relay", options)
    runner.load()
    try:
        runner.open(0)
        for first in range(0, len(pcm), samples):
            (output,) = runner.step([0], [EarsInput(pcm[first : first + samples], False)])
            assert isinstance(output, EarsOutput), output
        (output,) = runner.step([0], [EarsInput(pcm[:0], True)])
        assert isinstance(output, EarsOutput), output
        return output
    finally:
        runner.unload()


@pytest.mark.parametrize("lookahead_ms", [0, 80, 480, 1040])
def test_the_question_is_understood(question: Int16Array, lookahead_ms: int) -> None:
    heard = hear(EarsOptions(lookahead_ms, device="cpu"), question, 1280)
    pairs = list(zip(SAID.split(), heard.stable.split(), strict=True))
    assert sum(said != word for said, word in pairs) <= 2
    assert [word.text for word in heard.words] == heard.stable.split()
    assert hear(EarsOptions(lookahead_ms, device="cpu"), question, 999).words == heard.words


def test_torch_hears_the_same(question: Int16Array, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from relay.engine.ears_torch import TorchEarsRunner

    heard = hear(EarsOptions(480, device="cpu"), question, 1280)

    def on_torch(folder: Path | None, options: EarsOptions) -> TorchEarsRunner:
        return TorchEarsRunner(folder, device="cpu", lookahead_ms=options.lookahead_ms)

    monkeypatch.setattr(catalog, "_learned", on_torch)
    assert hear(EarsOptions(480, device="cpu"), question, 1280).stable == heard.stable
