from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from relay_models.vocoder import VocoderConfig
from relay_models.voice import Voice, VoiceConfig
from relay_models.voice_plan import ENCODE, POSITIONS, SPEAK, STEP_FRAMES, VoicePlan, fresh_memory, padded
from relay_models.voice_stream import VoiceStream
from tests.models.voice.tiny import config, some_words, voice

pytestmark = pytest.mark.timeout(600)  # two exports, which a busy machine takes minutes for

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Voice]:
    from relay_models.voice_export import export_voice

    model = voice(
        speakers=1, text_layers=1, layers=1, vocoder=VocoderConfig(size=12, inner=10, kernel=3, layers=1)
    ).float()
    folder: Path = tmp_path_factory.mktemp("voice")
    export_voice(model, folder)
    return folder, model


def test_the_graphs_speak_what_torch_speaks_on_the_same_bytes(exported: tuple[Path, Voice]) -> None:
    folder, model = exported
    encode, speak = (
        onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"]) for name in (ENCODE, SPEAK)
    )
    stream, words = VoiceStream(model), some_words(5, 4)
    state, plan, twin = stream.fresh_state(1), stream.fresh_plan(), VoicePlan(model.config.size)
    memory, counters = fresh_memory(folder, 2)
    for word in words:
        plan.push(word)
        twin.push(word)
    plan.finish()
    twin.finish()
    scale, steps = 0.0, 0
    while not plan.done:
        (expected,) = stream.step([plan], state)
        while (frames := twin.take()) is None:
            window = twin.window()
            assert window is not None
            ids, places = padded([window])
            vectors, lengths = encode.run(None, {"ids": ids, "places": places})
            own = slice(window.begin, window.end)
            twin.encoded(vectors[0, own], lengths[0, own])
        # The other row is another stream, whose state grows beside this one's.
        given = {
            "vectors": np.stack((frames.vectors, frames.vectors[::-1])),
            "positions": np.stack((frames.positions, frames.positions)),
            "valid": np.stack((frames.valid, frames.valid)),
        }
        samples, memory, counters = speak.run(None, {**given, "memory": memory, "counters": counters})
        scale = max(scale, float(np.abs(expected).max()))
        # A pitch that is rounded otherwise in its last bit moves the pulses by a 2^24th of a cycle and more.
        made = samples[0, frames.skip : frames.skip + frames.keep]
        np.testing.assert_allclose(made, expected, atol=1e-3 * scale, rtol=0)
        steps += 1
    assert twin.done
    assert twin.times == plan.times
    assert steps > 3


def test_the_graphs_hold_no_weights(exported: tuple[Path, Voice]) -> None:
    folder, _ = exported
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", ENCODE, SPEAK}
    for name in (ENCODE, SPEAK):
        model = onnx.load(folder / name, load_external_data=False)
        inside = [i for i in model.graph.initializer if i.data_location != onnx.TensorProto.EXTERNAL]
        assert sum(len(i.SerializeToString()) for i in inside if tuple(i.dims) != (80, 361)) < 12_000


def test_int8_changes_little() -> None:
    from relay_models.voice_export import store_packed

    torch.manual_seed(0)
    model = Voice(config(speakers=1, text_size=64, size=64)).eval()
    packed = Voice(model.config).eval()
    packed.load_state_dict(model.state_dict())
    store_packed(packed)
    words = some_words(4, 7)
    one, two = model(words), packed(words)
    assert len(one.samples) == len(two.samples)
    error = (one.features - two.features).square().mean() / one.features.square().mean()
    assert 0 < error < 1e-3


def test_several_speakers_are_narrowed_to_one() -> None:
    from relay_models.voice_export import narrowed

    model = voice()
    words = some_words(3)
    one = narrowed(model, 1)
    assert one.config.speakers == 1
    assert torch.equal(one.double()(words).samples, model(words, speaker=1).samples)
    assert not torch.equal(one(words).samples, model(words, speaker=0).samples)


def test_the_shipped_shape_fits() -> None:
    count = sum(p.numel() for p in Voice(VoiceConfig()).parameters())
    assert count < 11_000_000  # one byte each, scales and graphs on top: 12 MB
    assert STEP_FRAMES * 10 <= 80
    assert POSITIONS == 3
