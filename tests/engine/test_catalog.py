from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from relay.engine import catalog
from relay.engine.catalog import EarsOptions
from relay.engine.ears_onnx import OnnxEarsRunner
from relay.engine.ears_torch import TorchEarsRunner
from relay.engine.espeak_voice import EspeakRunner
from relay.engine.learned_voice import VOICE_SLOTS
from relay.engine.pocketsphinx_ears import PocketsphinxRunner
from relay.engine.store import ModelStore
from relay.engine.voice_onnx import OnnxVoiceRunner
from relay.engine.voice_torch import TorchVoiceRunner
from relay.errors import EngineUnavailable, UsageError, WeightsError
from relay_models import loading
from relay_models.voice_plan import ENCODE

ON_CPU = EarsOptions(device="cpu")


def folder(path: Path, model_type: str, *, graphs: bool = False) -> Path:
    """What names resolve by: config.json and the names of files."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": model_type, "encoder": {"rights": [6, 0]}}))
    (path / "model.safetensors").write_bytes(b"")
    if graphs:
        (path / "lookahead-480.onnx").write_bytes(b"")
    return path


@pytest.mark.parametrize("name", ["pocketsphinx", "baseline"])
def test_recognisers_by_name(name: str) -> None:
    assert isinstance(catalog.ears(name), PocketsphinxRunner)


@pytest.mark.parametrize("shipped", [True, False])
def test_auto_is_the_own_engine_where_its_weights_ship(monkeypatch: pytest.MonkeyPatch, shipped: bool) -> None:
    monkeypatch.setattr(catalog, "_is_shipped", lambda name: shipped)
    assert isinstance(catalog.ears("auto", ON_CPU), OnnxEarsRunner if shipped else PocketsphinxRunner)
    assert isinstance(catalog.voice("auto", device="cpu"), OnnxVoiceRunner if shipped else EspeakRunner)


def test_the_own_recogniser_needs_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_is_shipped", lambda name: False)
    with pytest.raises(EngineUnavailable, match="ships its weights"):
        catalog.ears("relay")
    monkeypatch.setattr(catalog, "_is_shipped", lambda name: True)
    assert isinstance(catalog.ears("relay", ON_CPU), OnnxEarsRunner)


@pytest.mark.parametrize("name", ["espeak", "baseline"])
def test_voices_by_name(name: str) -> None:
    assert isinstance(catalog.voice(name), EspeakRunner)


def test_a_folder_with_a_voice_goes_to_the_runner_that_can_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = folder(tmp_path / "trained", "relay_voice")
    exported = folder(tmp_path / "exported", "relay_voice")
    (exported / ENCODE).write_bytes(b"")
    assert isinstance(catalog.voice(str(exported), device="cpu"), OnnxVoiceRunner)
    assert isinstance(catalog.voice(str(trained), device="cpu"), TorchVoiceRunner)
    monkeypatch.setattr(catalog, "_is_shipped", lambda name: True)
    assert isinstance(catalog.voice("relay", device="cpu"), OnnxVoiceRunner)
    monkeypatch.setattr("relay.engine.device.resolve", lambda device: "cuda")
    for name in ("relay", str(exported), str(trained)):
        made = catalog.voice(name, device="cuda")
        assert isinstance(made, TorchVoiceRunner)
        assert made.max_slots == VOICE_SLOTS
    assert isinstance(catalog.voice("baseline", device="cuda"), EspeakRunner)


def test_every_session_that_can_be_heard_can_speak_and_prepare_a_reply_meanwhile() -> None:
    ears, voice = catalog.ears("relay", ON_CPU), catalog.voice("relay", device="cpu")
    assert voice.max_slots >= 2 * ears.max_slots


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"no ears engine 'espeak': choose one of auto, .*pocketsphinx, baseline"):
        catalog.ears("espeak")


def test_an_engine_without_a_choice_of_look_ahead_refuses_one() -> None:
    with pytest.raises(UsageError, match="leave --lookahead-ms out"):
        catalog.ears("pocketsphinx", EarsOptions(lookahead_ms=80))
    assert catalog.lookaheads_ms("pocketsphinx") == ()


@pytest.mark.parametrize(("name", "extra"), [("espeak", "baseline"), ("relay", "cpu"), ("auto", "cpu")])
def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=rf"pip install 'relay-dialogue\[{extra}\]'"):
        catalog.voice(name)
    assert all(entry.missing for entry in catalog.listing())


@pytest.mark.parametrize("shipped", [True, False])
def test_listing_names_what_this_version_ships(monkeypatch: pytest.MonkeyPatch, shipped: bool) -> None:
    def locate(name: str) -> Path:
        if not shipped:
            raise loading.WeightsError(f"no {name}")
        return Path(name)

    monkeypatch.setattr(loading, "locate", locate)
    listed = [(entry.kind, entry.name) for entry in catalog.listing()]
    ours = [("ears", "relay"), ("voice", "relay")] if shipped else []
    assert sorted(listed) == sorted([*ours, ("ears", "pocketsphinx"), ("voice", "espeak")])


def test_a_folder_goes_to_the_runner_that_can_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = folder(tmp_path / "exported", "relay_ears", graphs=True)
    trained = folder(tmp_path / "trained", "relay_ears")
    published = folder(tmp_path / "published", "nemotron_asr_streaming")
    assert isinstance(catalog.ears(str(exported), ON_CPU), OnnxEarsRunner)
    assert isinstance(catalog.ears(str(trained), ON_CPU), TorchEarsRunner)
    assert isinstance(catalog.ears(str(published), ON_CPU), TorchEarsRunner)
    assert catalog.lookaheads_ms(str(exported)) == (480,)
    assert catalog.lookaheads_ms(str(trained)) == (480, 0)

    def without_torch(name: str) -> object:
        return None if name == "torch" else object()

    monkeypatch.setattr(importlib.util, "find_spec", without_torch)
    assert isinstance(catalog.ears(str(exported), ON_CPU), OnnxEarsRunner)
    with pytest.raises(EngineUnavailable, match=r"pip install 'relay-dialogue\[gpu\]'"):
        catalog.ears(str(published), ON_CPU)


def test_a_gpu_takes_exported_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.engine.device.resolve", lambda device: "cuda")
    exported = folder(tmp_path / "exported", "relay_ears", graphs=True)
    assert isinstance(catalog.ears(str(exported), EarsOptions(device="cuda")), TorchEarsRunner)


@pytest.mark.parametrize("model_type", ["whisper", None])
def test_a_folder_of_another_layout(tmp_path: Path, model_type: str) -> None:
    with pytest.raises(WeightsError, match=r"relay_ears.*nemotron_asr_streaming"):
        catalog.ears(str(folder(tmp_path / "model", model_type)))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json .*give a folder with a recogniser"):
        catalog.ears(str(tmp_path))


@pytest.mark.parametrize("name", ["nemotron", "somebody/some-ears"])
def test_a_hub_name_that_was_not_pulled(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineUnavailable, match=f"relay models pull {name}"):
        catalog.ears(name, models_dir=tmp_path)


def test_stored_models_by_name(tmp_path: Path) -> None:
    models = tmp_path / "models"
    ModelStore(models).add(folder(tmp_path / "some-ears", "relay_ears", graphs=True))
    for name in ("some-ears", "somebody/some-ears"):
        assert isinstance(catalog.ears(name, ON_CPU, models_dir=models), OnnxEarsRunner)
    with pytest.raises(UsageError, match="some-ears"):
        catalog.ears("other-ears", models_dir=models)
    (models / "some-ears" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match="damaged; import or pull it again"):
        catalog.ears("some-ears", models_dir=models)
