from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from relay_models.beam import BeamDecoder
from relay_models.host_transducer import HostTransducer
from relay_models.training.ears_data import Clips, train_pieces
from relay_models.training.ears_tune import Result, Setting, choose, decode, grid, hear, line, tune
from tests.models.ears.tiny import bursts, ears

MODEL = ears(vocabulary=9, layers=0)
HOST = HostTransducer.from_tensors(
    MODEL.config.transducer, {name: tensor.numpy() for name, tensor in MODEL.state_dict().items()}
)


@pytest.fixture
def tokenizer() -> Tokenizer:
    """As many pieces as the model has, and all of them words."""
    tokenizer = train_pieces(["a b c d e f g h"], 40)
    names = [tokenizer.decode([number]) for number in range(8)]
    assert len(set(names)) == 8
    return tokenizer


def clips(*lengths: int) -> Clips:
    audio = [(bursts(1, length, seed)[0].numpy() * 32767).astype(np.int16) for seed, length in enumerate(lengths)]
    return Clips.join([(pcm, "a b", "someone") for pcm in audio])


def test_each_clip_is_heard_and_decoded_as_if_alone(tokenizer: Tokenizer) -> None:
    heard = hear(MODEL, clips(30_000, 9_000, 20_000), 1)
    assert [0.08 * len(clip.frames) for clip in heard] == pytest.approx([2.7, 1.4, 2.1], abs=0.15)
    decoder = BeamDecoder(HOST, beam=3)
    whole = decode(decoder, heard, tokenizer)
    parts = [decode(decoder, [clip], tokenizer) for clip in heard]
    assert whole.words == 6
    assert whole.tokens == sum(part.tokens for part in parts) > 10
    assert whole.errors == sum(part.errors for part in parts)
    assert whole.waited_frames > 0
    greedy = decode(BeamDecoder(HOST), heard, tokenizer)
    assert (greedy.frames, greedy.waited_frames) == (whole.frames, 0)


def test_the_lowest_mean_rate_wins() -> None:
    few, many = Result(errors=1, words=10), Result(errors=30, words=100)
    one, two = Setting(1), Setting(2)
    assert choose({one: {"x": few, "y": many}, two: {"x": few, "y": few}}) == two
    assert choose({one: {"x": few}, two: {"x": few}}) == one
    assert line(two, {"x": few, "y": many}).startswith(
        "beam 2    lm_weight 0.0  ilm_weight 0.0  reward 0.0   x 10.00  y 30.00"
    )


def test_the_grid_has_each_combination_once() -> None:
    found = grid([2, 4], [0.0, 0.3], [0.0, 0.1], [0.5])
    assert found == [
        Setting(2), Setting(4), Setting(2, 0.3, 0.0, 0.5), Setting(2, 0.3, 0.1, 0.5), Setting(4, 0.3, 0.0, 0.5),
        Setting(4, 0.3, 0.1, 0.5),
    ]  # fmt: skip
    assert grid([1], [], [0.0], [1.0]) == [Setting(1)]


def test_tuning_looks_at_every_other_clip(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    heard = hear(MODEL, clips(30_000, 9_000, 20_000), 1)
    settings = [Setting(1), Setting(3)]
    chosen = tune(HOST, None, {"x": heard}, settings, tokenizer)
    want = {s: decode(BeamDecoder(HOST, beam=s.beam), heard[::2], tokenizer) for s in settings}
    assert want[chosen].rate == min(result.rate for result in want.values())
    shown = [text.rpartition("  ")[0].rpartition("  ")[0] for text in capsys.readouterr().out.splitlines()]
    assert shown == [line(s, {"x": want[s]}).rpartition("  ")[0].rpartition("  ")[0] for s in settings]
    assert all("x " in text and "ms" not in text for text in shown)
