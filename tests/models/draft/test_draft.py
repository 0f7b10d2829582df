"""The draft model on streams: any split, forks, neighbours and detours = the whole stream."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models.decoder import Decoder
from relay_models.draft import (
    DraftConfig,
    DraftModel,
    Special,
    from_brain,
    load_draft,
    pack_draft,
    save_draft,
)
from relay_models.loading import WeightsError
from relay_models.state import StreamState
from tests.models.draft.tiny_draft import SPEECH, TOKENIZER, WINDOW, draft_config, draft_model

ROWS = 3
MODEL = draft_model()
SIL = MODEL.config.token(Special.SIL)


@dataclass
class Row:
    """What a stream was given: encoder frames, tokens said, and which entries had no speech."""

    speech: list[Tensor] = field(default_factory=list)
    said: list[int] = field(default_factory=list)
    off: list[bool] = field(default_factory=list)

    def copy(self) -> Row:
        return Row(list(self.speech), list(self.said), list(self.off))

    def whole(self) -> Tensor:
        """The hidden states that `forward` gives."""
        with torch.no_grad():
            previous = torch.tensor([[SIL, *self.said]])[:, : len(self.off)]
            return MODEL(torch.cat(self.speech)[None], previous, torch.tensor([self.off]))[0]


def listen(rows: list[Row], state: StreamState, said: dict[int, int], generator: torch.Generator) -> Tensor:
    """One frame for the rows of `said`; the token was said at the frame before."""
    speech = torch.randn(ROWS, 2, SPEECH, generator=generator)
    previous = torch.full((ROWS,), 5)
    active = torch.zeros(ROWS, dtype=torch.bool)
    for number, token in said.items():
        row = rows[number]
        if row.off:
            row.said.append(token)
        row.speech.append(speech[number])
        row.off.append(False)
        previous[number] = row.said[-1] if row.said else SIL
        active[number] = True
    hidden, _ = MODEL.listen(speech, previous, state, active)
    return hidden


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("listen"),
            st.dictionaries(st.integers(0, ROWS - 1), st.integers(0, MODEL.config.decoder.vocab_size - 1), min_size=1),
        ),
        st.tuples(st.just("fork"), st.permutations(range(ROWS))),
        st.tuples(st.just("reset"), st.integers(0, ROWS - 1)),
        st.tuples(st.just("detour"), st.integers(0, ROWS - 1)),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 3))
def test_streams_equal_the_whole_whatever_happens_beside_them(history: list[tuple[str, object]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    state = MODEL.fresh_state(ROWS)
    rows = [Row() for _ in range(ROWS)]
    for verb, what in history:
        match verb, what:
            case "listen", dict(said):
                hidden = listen(rows, state, said, generator)
                for number in said:
                    torch.testing.assert_close(hidden[number], rows[number].whole()[-1], atol=1e-4, rtol=1e-4)
            case "fork", [source, target, *_]:
                state.fork(source, target)
                rows[target] = rows[source].copy()
            case "reset", number:
                state.reset(torch.arange(ROWS) == number)
                rows[number] = Row()  # type: ignore[call-overload]
            case "detour", int(number):
                before, kept = state.snapshot(number), rows[number].copy()
                listen(rows, state, {number: 3}, generator)
                state.restore(number, before)
                rows[number] = kept


def test_a_stream_longer_than_many_windows_is_still_exact() -> None:
    generator = torch.Generator().manual_seed(1)
    state, rows = MODEL.fresh_state(ROWS), [Row() for _ in range(ROWS)]
    for frame in range(5 * WINDOW):
        hidden = listen(rows, state, {0: frame, 2: 7} if frame % 3 else {0: frame}, generator)
    for number in (0, 2):
        torch.testing.assert_close(hidden[number], rows[number].whole()[-1], atol=1e-4, rtol=1e-4)


def test_what_lies_beyond_the_layers_reach_is_forgotten() -> None:
    reach = MODEL.config.decoder.num_hidden_layers * (WINDOW - 1) + 1
    long, short = (torch.randn(1, 2 * (reach + 4), SPEECH, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    short[:, -2 * reach :] = long[:, -2 * reach :]
    previous = torch.full((1, reach + 4), SIL)
    # The adapter looks back one encoder frame more: compare where it sees the same.
    short[:, -2 * reach - 1] = long[:, -2 * reach - 1]
    with torch.no_grad():
        torch.testing.assert_close(MODEL(long, previous)[:, -1], MODEL(short, previous)[:, -1], atol=1e-5, rtol=1e-5)
        assert (MODEL(long, previous)[:, -3] - MODEL(short, previous)[:, -3]).abs().max() > 1e-4


def test_speech_and_tokens_both_count_and_speech_can_be_switched_off() -> None:
    speech = torch.randn(1, 12, SPEECH, generator=torch.Generator().manual_seed(0))
    previous = torch.full((1, 6), SIL)
    off = torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        plain = MODEL(speech, previous)
        assert (plain - MODEL(speech + 1.0 * torch.arange(SPEECH), previous)).abs().max() > 1e-3
        assert (plain - MODEL(speech, previous.clone().fill_(4))).abs().max() > 1e-3
        torch.testing.assert_close(MODEL(speech, previous, off), MODEL(torch.zeros_like(speech) + 3, previous, off))


def brain(layers: int = 4, **changes: int) -> Decoder:
    sizes = draft_config().decoder
    torch.manual_seed(0)
    return Decoder(
        dataclasses.replace(sizes, vocab_size=TOKENIZER.size, num_hidden_layers=layers, **changes)  # type: ignore[arg-type]
    ).eval()


def test_it_begins_as_the_brain_it_is_made_from() -> None:
    config = draft_config(window=64)
    model = from_brain(brain(layers=config.decoder.num_hidden_layers), config).eval()
    tokens = torch.randint(0, TOKENIZER.size, (1, 11), generator=torch.Generator().manual_seed(0))
    speech = torch.randn(1, 22, SPEECH)
    with torch.no_grad():
        hidden = model(speech, tokens)
        torch.testing.assert_close(hidden, brain(layers=2).hidden(tokens), atol=1e-5, rtol=1e-5)
    deep = brain(layers=5)
    half = from_brain(deep, config)
    for ours, its in ((0, 0), (1, 4)):
        expected = deep.model.layers[its].state_dict()
        for name, tensor in half.layers()[ours].state_dict().items():
            torch.testing.assert_close(tensor, expected[name])


@pytest.mark.parametrize("other", [brain(intermediate_size=48), brain(layers=1)])
def test_a_brain_of_other_sizes_is_refused(other: Decoder) -> None:
    with pytest.raises(WeightsError, match=r"intermediate_size|cannot begin"):
        from_brain(other, draft_config())


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    save_draft(MODEL, tmp_path / "plain")
    again = load_draft(tmp_path / "plain")
    assert again.config == MODEL.config
    for name, tensor in MODEL.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    with pytest.raises(WeightsError, match="do not fit"):
        text = (tmp_path / "plain" / "config.json").read_text()
        (tmp_path / "plain" / "config.json").write_text(text.replace('"speech_size": 12', '"speech_size": 14'))
        load_draft(tmp_path / "plain")


def test_matrices_that_no_block_divides_are_packed_as_they_are(tmp_path: Path) -> None:
    pack_draft(MODEL, tmp_path)
    again = load_draft(tmp_path)
    for name, tensor in MODEL.state_dict().items():
        assert (again.state_dict()[name] - tensor).abs().max() <= tensor.abs().max() / 127
        if "adapter.inner" in name:  # 36 columns
            assert torch.equal(again.state_dict()[name], tensor)


def test_the_default_sizes_fit_into_what_may_ship(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DraftModel(DraftConfig()).eval()
    pack_draft(model, tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= 14_000_000
    again = load_draft(tmp_path)
    previous = torch.full((1, 3), model.config.token(Special.SIL))
    speech = torch.randn(1, 6, model.config.speech_size)
    with torch.no_grad():
        exact, packed = model.logits(model(speech, previous)), again.logits(again(speech, previous))
    assert (exact - packed).abs().mean() < 0.05 * exact.abs().mean()
