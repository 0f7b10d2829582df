"""What `Encoder.forward` defines: who sees what, how many frames there are, what padding may not do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from relay_models.conformer import distance_embeddings
from relay_models.encoder import Encoder, EncoderConfig, Reach
from relay_models.framing import frame_counts
from relay_models.loading import WeightsError
from tests.models.ears.tiny import MELS, PATTERNS, encoder_config, loud


def encoder(**changes: Any) -> Encoder:
    model = Encoder(encoder_config(**changes)).eval()
    loud(model)
    return model


def features(rows: int, mels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, mels, MELS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("right", [0, 1, 6, 13])
def test_a_frame_sees_its_chunk_and_whole_chunks_to_the_left(right: int) -> None:
    chunk, left, numbers = right + 1, 70, torch.arange(200)
    (reach,) = set(EncoderConfig(left=left).reaches(right))
    visible = reach.visible(numbers[:, None], numbers)
    for i in range(200):
        start, end = i // chunk * chunk, i // chunk * chunk + right
        assert visible[i].nonzero()[:, 0].tolist() == list(range(max(0, start - left), min(end, 199) + 1))


def test_a_window_sees_so_many_frames_on_each_side() -> None:
    numbers = torch.arange(9)
    assert Reach(2, 1, None).visible(torch.tensor(4), numbers).nonzero()[:, 0].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("right", [0, 1, 3])
def test_the_look_ahead_of_all_layers_together_is_that_of_one_chunk(right: int) -> None:
    model, mels = encoder(), 8 * 12 + 1
    x, lengths = features(1, mels), torch.tensor([mels])
    with torch.no_grad():
        frames = model(x, lengths, right).frames[0]
        for i in range(len(frames)):
            changed = x.clone()
            end = min(i // (right + 1) * (right + 1) + right, len(frames) - 1)
            changed[:, 8 * end + 1 :] += 1
            torch.testing.assert_close(model(changed, lengths, right).frames[0, i], frames[i], atol=1e-6, rtol=0)
            changed[:, 8 * end] += 1
            assert not torch.allclose(model(changed, lengths, right).frames[0, end], frames[end], atol=1e-3)


def test_the_look_ahead_of_windows_adds_up_over_the_layers() -> None:
    model, lengths = encoder(**PATTERNS["windows"]), torch.tensor([161])
    x = features(1, 161)
    with torch.no_grad():
        frames = model(x, lengths).frames[0]
        for i in range(15):
            changed = x.clone()
            changed[:, 8 * (i + 3) + 1 :] += 1
            torch.testing.assert_close(model(changed, lengths).frames[0, i], frames[i], atol=1e-6, rtol=0)
        changed[:, 8 * (14 + 3)] += 1
        assert not torch.allclose(model(changed, lengths).frames[0, 14], frames[14], atol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_neighbours_and_padding_change_nothing(pattern: str) -> None:
    model, lengths = encoder(**PATTERNS[pattern]), torch.tensor([90, 41, 1, 0])
    x = features(4, 100)
    with torch.no_grad():
        together = model(x, lengths, 1)
        assert together.lengths.tolist() == frame_counts(lengths).tolist() == [13, 6, 1, 0]
        for row, length in enumerate(lengths.tolist()[:3]):
            alone = model(x[row : row + 1, :length], lengths[row : row + 1], 1)
            count = int(alone.lengths)
            assert alone.frames.shape[1] == count
            torch.testing.assert_close(together.frames[row, :count], alone.frames[0], atol=1e-5, rtol=0)


def test_distances_are_sinusoids_farthest_first() -> None:
    table = distance_embeddings(-2, 3, 4, torch.device("cpu"))
    assert table.shape == (6, 4)
    torch.testing.assert_close(table[0], torch.tensor([3.0, 3.0, 0.03, 0.03]).sin() * torch.tensor([1.0, 0, 1, 0])
                               + torch.tensor([3.0, 3.0, 0.03, 0.03]).cos() * torch.tensor([0, 1.0, 0, 1]))  # fmt: skip
    torch.testing.assert_close(table[3], torch.tensor([0.0, 1, 0, 1]))


def test_attention_scores_are_those_of_the_definition() -> None:
    """Query i and key j score (q + u) . k + (q + v) . W r(i - j), Transformer-XL's equation, one pair at a time."""
    model = encoder(layers=1)
    attention = model.layers()[0].attention
    x = features(1, 7)[..., :1].expand(1, 7, 12) + torch.arange(12.0)
    seen = torch.ones(1, 1, 7, 7, dtype=torch.bool).tril(2)
    with torch.no_grad():
        got = attention(x, seen, distance_embeddings(-6, 6, 12, x.device))[0]
        query, key, value = (attention.split(p(x))[0] for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        mixed = torch.zeros(7, 2, 6)
        for head in range(2):
            for i in range(7):
                keys = range(min(i + 3, 7))
                scores = []
                for j in keys:
                    distance = attention.distance_keys(distance_embeddings(i - j, i - j, 12, x.device))[head, 0]
                    scores.append(
                        (query[head, i] + attention.content_bias[head]) @ key[head, j]
                        + (query[head, i] + attention.distance_bias[head]) @ distance
                    )
                weights = (torch.stack(scores) / 6**0.5).softmax(0)
                mixed[i, head] = weights @ value[head, : len(keys)]
        want = attention.o_proj(mixed.flatten(1))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_the_middle_layer_is_given_when_asked_for() -> None:
    model, x, lengths = encoder(), features(1, 33), torch.tensor([33])
    assert model(x, lengths).middle is None
    one = Encoder(encoder_config(layers=1)).eval()
    one.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith(("blocks.1", "blocks.2"))})
    torch.testing.assert_close(model(x, lengths, middle=1).middle, one(x, lengths).frames)


@pytest.mark.parametrize(
    "changes",
    [{"size": 11}, {"heads": 5}, {"windows": ((1, 1),)}, {"rights": ()}, {"rights": (-1,)}, {"depth": 3}],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="settings of an encoder"):
        EncoderConfig.from_dict({"layers": 3, **changes})


def test_gradients_reach_every_weight() -> None:
    for pattern in PATTERNS.values():
        model = encoder(**pattern).train()
        model(features(2, 60), torch.tensor([60, 31]), 1).frames.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
