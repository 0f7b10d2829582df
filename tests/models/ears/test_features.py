from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_models.features import FeatureConfig, LogMel, mel_filters
from relay_models.framing import HOP_SAMPLES, LEAD_SAMPLES
from relay_models.state import StreamState

torch.set_num_threads(1)


def noise(rows: int, samples: int, seed: int = 0) -> torch.Tensor:
    """Noise whose loudness wanders from silence to full scale."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.sin(torch.arange(samples) / 900.0).clamp(min=0)
    return torch.randn(rows, samples, generator=generator).clamp(-3, 3) / 3 * loudness


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 7), st.booleans(), st.booleans()), max_size=8), st.integers(0, 900))
def test_streams_give_the_features_of_the_whole(pieces: list[tuple[int, bool, bool]], tail: int) -> None:
    """Any split into hops, rows waiting while others go on, any remainder at the end."""
    model = LogMel(FeatureConfig(mel_bins=20))
    hops = [sum(count for count, *moves in pieces if moves[row]) for row in (0, 1)]
    lengths = torch.tensor([count * HOP_SAMPLES + tail for count in hops])
    pcm = noise(2, int(lengths.max()) + 1)
    want, counts = model(pcm, lengths)
    padded = torch.nn.functional.pad(pcm, (LEAD_SAMPLES, 2000))

    state = StreamState(model.fresh_tensors(2))
    taken, got = [0, 0], [[], []]  # type: tuple[list[int], list[list[torch.Tensor]]]
    for count, *moves in [*pieces, (tail // HOP_SAMPLES + 2, True, True)]:
        width = count * HOP_SAMPLES
        block = torch.stack([padded[row, taken[row] : taken[row] + width] for row in (0, 1)])
        before_end = (lengths + LEAD_SAMPLES - torch.tensor(taken)).clamp(0, width)
        features, _ = model.step(block, state, torch.tensor(moves), before_end)
        for row in (0, 1):
            if moves[row]:
                taken[row] += width
                got[row].append(features[row])
    for row in (0, 1):
        frames = torch.cat(got[row])[1 : int(counts[row]) + 1]
        torch.testing.assert_close(frames, want[row, : len(frames)], atol=1e-5, rtol=0)
        assert len(frames) == counts[row]


def test_frames_are_those_of_the_definition() -> None:
    config = FeatureConfig(mel_bins=12, preemphasis=0.5, offset=3.0, scale=0.25)
    model, pcm, frame = LogMel(config), noise(1, 2000, seed=3), 5
    features, _ = model(pcm, torch.tensor([2000]))
    emphasised = pcm[0].double().clone()
    emphasised[1:] -= 0.5 * pcm[0, :-1].double()
    window = emphasised[frame * 160 - 200 : frame * 160 + 200]
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(400, dtype=torch.float64) / 399)
    power = torch.fft.rfft(window * hann, 512).abs() ** 2
    want = (torch.log(power @ mel_filters(12).double() + 2**-24) + 3) / 4
    torch.testing.assert_close(features[0, frame].double(), want, atol=1e-5, rtol=0)


def test_what_lies_behind_a_recording_does_not_matter() -> None:
    model, lengths = LogMel(FeatureConfig()), torch.tensor([1000, 3199])
    pcm = noise(2, 4000)
    loud = pcm.clone()
    for row, length in enumerate(lengths.tolist()):
        loud[row, length:] = 1
    features, counts = model(pcm, lengths)
    assert counts.tolist() == [6, 19]
    assert torch.equal(features, model(loud, lengths)[0])
    assert not features[0, 6:].any()


@pytest.mark.parametrize("samples", [0, 1, 159])
def test_less_than_a_hop_is_no_frame(samples: int) -> None:
    features, counts = LogMel(FeatureConfig())(torch.ones(1, samples), torch.tensor([samples]))
    assert features.shape == (1, 0, 80)
    assert counts.tolist() == [0]


def test_autocast_does_not_touch_the_front_end() -> None:
    model, pcm, lengths = LogMel(FeatureConfig()), noise(1, 3200), torch.tensor([3200])
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = model(pcm, lengths)
    assert features.dtype == torch.float32
    assert torch.equal(features, model(pcm, lengths)[0])


def test_a_model_turned_into_bfloat16_keeps_its_front_end() -> None:
    config, pcm, lengths = FeatureConfig(), noise(1, 3200), torch.tensor([3200])
    want, _ = LogMel(config)(pcm, lengths)
    assert torch.equal(LogMel(config).to(torch.bfloat16)(pcm, lengths)[0], want)
    rounded = LogMel(FeatureConfig(constants="bfloat16"))(pcm, lengths)[0]
    assert 0 < (rounded - want).abs().mean() < 0.01


def test_digital_silence_is_finite() -> None:
    features, _ = LogMel(FeatureConfig())(torch.zeros(1, 1600), torch.tensor([1600]))
    assert torch.all(features == torch.log(torch.tensor(2.0**-24)))
