"""Noise suppression on small graphs in the published layout: time kept to the sample, streaming equal to offline."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio import Int16Array
from relay.engine.denoise import MODEL_DELAY_FRAMES, DenoiseRunner, vorbis_window
from relay.engine.ears import EarsInput
from relay.engine.engine import Engine
from relay.errors import WeightsError
from tests.engine.tiny_dpdfnet import ERB, HOP, METADATA, SPEC, STATE, onnx, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("denoise")


@pytest.fixture(scope="module")
def passing(folder: Path) -> DenoiseRunner:
    runner = DenoiseRunner(write_model(folder / "passing.onnx", gated=False))
    runner.load()
    return runner


@pytest.fixture(scope="module")
def gated(folder: Path) -> DenoiseRunner:
    runner = DenoiseRunner(write_model(folder / "gated.onnx", gated=True))
    runner.load()
    return runner


def noise(samples: int, seed: int = 0) -> Int16Array:
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples).astype(np.int16)


def through(runner: DenoiseRunner, slot: int, pcm: Int16Array, *, final: bool) -> Int16Array:
    (result,) = runner.step([slot], [EarsInput(pcm, final=final)])
    assert not isinstance(result, BaseException), result
    return result


def offline(runner: DenoiseRunner, pcm: Int16Array) -> Int16Array:
    """The whole utterance at once: transform, model over all frames, inverse transform, cut the delay off."""
    frames = -(-len(pcm) // HOP) + MODEL_DELAY_FRAMES + 1
    x = np.zeros((frames + 1) * HOP)
    x[HOP : HOP + len(pcm)] = pcm / 32768.0
    window = vorbis_window(2 * HOP).astype(np.float64)
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(x, 2 * HOP)[::HOP] * window)
    state = runner._initial
    y = np.zeros_like(x)
    for t, spectrum in enumerate(spectra):
        spec = np.stack([spectrum.real, spectrum.imag], -1).astype(np.float32)[None, None]
        clean, state = runner._session.run(None, {"spec": spec, "state_in": state})
        y[t * HOP : (t + 2) * HOP] += np.fft.irfft(clean[0, 0, :, 0] + 1j * clean[0, 0, :, 1]) * window
    begin = HOP * (MODEL_DELAY_FRAMES + 1)
    return np.rint(y[begin : begin + len(pcm)] * 32768).astype(np.int16)


def test_the_window_is_power_complementary() -> None:
    window = vorbis_window(2 * HOP).astype(np.float64)
    assert window[:HOP] ** 2 + window[HOP:] ** 2 == pytest.approx(np.ones(HOP), abs=1e-6)


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161, 1_234, 8_000])
def test_a_model_that_changes_nothing_gives_the_same_samples_in_their_places(
    passing: DenoiseRunner, samples: int
) -> None:
    pcm = noise(samples)
    passing.open(0)
    out = through(passing, 0, pcm, final=True)
    passing.close(0)
    assert len(out) == samples
    assert np.abs(out.astype(int) - pcm).max(initial=0) <= 1


def test_output_lags_by_the_delay_and_less_than_a_hop(passing: DenoiseRunner) -> None:
    assert passing.delay_samples == 800  # 50 ms
    passing.open(0)
    given = 0
    for taken in range(70, 4_000, 70):
        given += len(through(passing, 0, noise(70, taken), final=False))
        assert given == max(0, taken // HOP * HOP - 800)
    passing.close(0)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 700), max_size=12),
    others=st.lists(st.integers(0, 400), max_size=12),
    at_once=st.booleans(),
)
def test_any_split_equals_offline_whatever_other_slots_do(
    gated: DenoiseRunner, lengths: list[int], others: list[int], at_once: bool
) -> None:
    pcm = noise(sum(lengths), seed=len(lengths))
    gated.open(0)
    gated.open(1)
    out, at = [], 0
    for turn in range(2):  # the second utterance begins as the first did
        out, at = [], 0
        for i, length in enumerate(lengths):
            if i < len(others):
                through(gated, 1, noise(others[i], i), final=i % 3 == turn)
            last = at_once and i == len(lengths) - 1
            out.append(through(gated, 0, pcm[at : at + length], final=last))
            at += length
        if not at_once or not lengths:
            out.append(through(gated, 0, pcm[:0], final=True))
        joined = np.concatenate(out)
        assert len(joined) == len(pcm)
        assert np.abs(joined.astype(int) - offline(gated, pcm)).max(initial=0) <= 1
    gated.close(0)
    gated.close(1)


def test_the_state_begins_as_the_metadata_say(gated: DenoiseRunner) -> None:
    assert gated._initial[:3] == pytest.approx(np.linspace(-60, -90, ERB)[:3])
    assert gated._initial[ERB : ERB + SPEC] == pytest.approx(np.linspace(0.001, 0.0001, SPEC))
    assert not gated._initial[ERB + SPEC :].any()
    gated.open(0)
    quiet = noise(16_000) // 100
    out = through(gated, 0, quiet, final=True)
    gated.close(0)
    assert np.abs(out[:800]).max() < 0.1 * np.abs(quiet).max()  # the gate opens slowly from there
    assert np.abs(out[8_000:]).max() > 0.4 * np.abs(quiet).max()


def test_a_slot_that_fails_begins_anew_and_its_neighbour_is_unharmed(passing: DenoiseRunner) -> None:
    passing.open(0)
    passing.open(1)
    broken = EarsInput(np.zeros((2, 320), dtype=np.int16))
    first, second = passing.step([0, 1], [broken, EarsInput(noise(1_600), final=True)])
    assert isinstance(first, ValueError)
    assert len(second) == 1_600
    assert len(through(passing, 0, noise(500), final=True)) == 500
    passing.close(0)
    passing.close(1)


def test_behind_the_engine_contract(folder: Path) -> None:
    async def main() -> Int16Array:
        async with Engine(DenoiseRunner(folder / "passing.onnx"), name="denoise") as engine, engine.slot() as slot:
            first = await engine.step(slot, EarsInput(noise(2_000)))
            return np.concatenate([first, await engine.step(slot, EarsInput(noise(0), final=True))])

    write_model(folder / "passing.onnx", gated=False)
    assert np.abs(asyncio.run(main()).astype(int) - noise(2_000)).max() <= 1


# ------------------------------------------------------------------------------------------------------ what is refused


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        DenoiseRunner(path).load()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_model(tmp_path: Path) -> None:
    assert "there is no" in refused(tmp_path / "missing.onnx")
    assert "there is no" in refused(tmp_path)
    (tmp_path / "text.onnx").write_text("no model")
    assert "cannot be opened" in refused(tmp_path / "text.onnx")
    whole = write_model(tmp_path / "cut.onnx", gated=False)
    whole.write_bytes(whole.read_bytes()[:500])
    assert "cannot be opened" in refused(whole)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "gtcrn"}, "model_type is gtcrn"),
        ({"sample_rate": "48000"}, "sample_rate is 48000"),
        ({"window_type": "hann"}, "window_type is hann"),
        ({"hop_length": "80"}, "windows of 320 samples every 80"),
        ({"hop_length": "ten"}, "invalid literal"),
        ({"state_size": str(STATE + 1)}, "state_in has shape"),
        ({"state_size": "100"}, "spec_norm_init has 96 values"),
        ({"erb_norm_init": "1,2,3"}, "erb_norm_init has 3 values"),
        ({"n_fft": "240", "window_length": "240", "hop_length": "120"}, "spec has shape"),
        ({"model_type": None}, "lack model_type"),
        ({"spec_norm_init": None}, "lack spec_norm_init"),
    ],
    ids=str,
)
def test_models_of_another_layout(tmp_path: Path, change: dict[str, str | None], says: str) -> None:
    metadata = {name: value for name, value in (METADATA | change).items() if value is not None}
    assert says in refused(write_model(tmp_path / "other.onnx", gated=False, metadata=metadata))


def test_a_graph_with_other_names(tmp_path: Path) -> None:
    path = write_model(tmp_path / "other.onnx", gated=False)
    model = onnx.load(path)
    model.graph.node[-1].output[0] = model.graph.output[1].name = "h_out"
    onnx.save(model, path)
    assert "its inputs and outputs are spec, state_in, spec_e, h_out" in refused(path)
