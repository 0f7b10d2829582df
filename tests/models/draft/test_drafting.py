"""Drafts by fork: greedy, whole words, bounded, and without a trace on the stream they were taken from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models.draft import DraftModel, Special
from relay_models.draft_stream import Drafter, DraftStream
from relay_models.drafting import Drafted, word_ends
from relay_models.framing import LEAD_IN_SAMPLES
from relay_models.state import StreamState
from tests.models.draft.tiny_draft import SPEECH, TOKENIZER, draft_config, draft_model
from tests.models.ears.tiny import bursts, ears

MODEL = draft_model(3, window=40)
BOS, EOS, SIL = (MODEL.config.token(each) for each in (Special.BOS, Special.EOS, Special.SIL))


def heard(frames: list[int], seed: int = 0, model: DraftModel = MODEL) -> tuple[StreamState, Tensor]:
    """Streams that have heard so many frames of noise in silence; the noise."""
    speech = torch.randn(len(frames), 2 * max(frames), SPEECH, generator=torch.Generator().manual_seed(seed))
    state = model.fresh_state(len(frames))
    previous = torch.full((len(frames),), model.config.token(Special.SIL))
    for frame in range(max(frames)):
        model.listen(speech[:, 2 * frame : 2 * frame + 2], previous, state, torch.tensor(frames) > frame)
    return state, speech


def slowly(model: DraftModel, speech: Tensor, frames: int, count: int) -> list[tuple[int, float, float, float, Tensor]]:
    """Greedy decoding by `forward`: token, log-probability, entropy, margin and hidden state of each step."""
    config = model.config
    banned = [TOKENIZER.end, TOKENIZER.system, TOKENIZER.user, TOKENIZER.assistant]
    banned += [token for token in range(config.text_tokens, config.decoder.vocab_size) if token != EOS]
    said = [config.token(Special.BOS)]
    steps = []
    for _ in range(count):
        previous = torch.tensor([[config.token(Special.SIL)] * frames + said])
        whole = torch.cat((speech[None, : 2 * frames], torch.zeros(1, 2 * len(said), SPEECH)), dim=1)
        off = torch.tensor([[False] * frames + [True] * len(said)])
        with torch.no_grad():
            hidden = model(whole, previous, off)[0, -1]
            scores = model.logits(hidden).log_softmax(-1)
        allowed = scores.clone()
        allowed[banned] = -torch.inf
        token = int(allowed.argmax())
        first, second = scores.exp().topk(2).values.tolist()
        entropy = float(-(scores.exp() * scores).sum())
        steps.append((token, float(scores[token]), entropy, first - second, hidden))
        said.append(token)
        if token == config.token(Special.EOS):
            break
    return steps


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(0, 20), st.integers(1, 9))
def test_a_draft_is_what_the_model_would_say_next(frames: list[int], seed: int, max_tokens: int) -> None:
    model = draft_model(seed, window=40)
    state, speech = heard(frames, seed, model)
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    drafts = Drafter(model, TOKENIZER).draft(state, range(len(frames)), max_tokens=max_tokens, max_words=3)
    for name, tensor in state.tensors.items():
        assert torch.equal(tensor, before[name]), "the stream that listens is left as it was"
    for row, drafted in enumerate(drafts):
        steps = slowly(model, speech[row], frames[row], max_tokens + 1)
        count = len(drafted.tokens)
        assert list(drafted.tokens) == [step[0] for step in steps[:count]]
        for measured, index in ((drafted.log_probability, 1), (drafted.entropy, 2), (drafted.margin, 3)):
            np.testing.assert_allclose(measured, [s[index] for s in steps[:count]], atol=1e-3, rtol=1e-3)
        if count:
            np.testing.assert_allclose(drafted.hidden, torch.stack([s[4] for s in steps[:count]]), atol=1e-3, rtol=1e-3)
        assert drafted.scalars.shape == (count, 3)
        check_words(drafted, [step[0] for step in steps], max_tokens, 3)


def check_words(drafted: Drafted, said: list[int], max_tokens: int, max_words: int) -> None:
    ended = bool(said) and said[-1] == EOS
    ends = word_ends(said[:-1] if ended else said, TOKENIZER)
    whole = [at for at in (ends if ended else ends[:-1]) if at <= max_tokens][:max_words]
    assert list(drafted.word_ends) == whole
    assert drafted.complete == (ended and whole == ends)


class Scripted(DraftModel):
    """Says the tokens of `script` one after the other, whatever it hears."""

    def __init__(self, script: list[int]) -> None:
        super().__init__(draft_config(window=40))
        self.script = script
        self.place = 0

    def logits(self, hidden: Tensor) -> Tensor:
        token = self.script[min(self.place, len(self.script) - 1)]
        self.place += 1
        return torch.nn.functional.one_hot(torch.full((len(hidden),), token), MODEL.config.decoder.vocab_size) * 9.0


def drafted_text(script: list[int], **bounds: int) -> tuple[str, bool]:
    model = Scripted(script).eval()
    (drafted,) = Drafter(model, TOKENIZER).draft(model.fresh_state(1), [0], **bounds)
    return TOKENIZER.decode(drafted.tokens), drafted.complete


@pytest.mark.parametrize(
    ("text", "ends", "bounds", "expected"),
    [
        ("hello there", True, {}, ("hello there", True)),
        ("hello there", True, {"max_words": 1}, ("hello", False)),
        ("how are you there no one knows what time", True, {}, ("how are you there no one knows", False)),
        ("how are you there no one knows", True, {}, ("how are you there no one knows", True)),
        ("", True, {}, ("", True)),
        ("xyzxyzxyz xyzxyzxyz", True, {}, ("xyzxyzxyz", False)),  # 19 tokens: the second word is cut
        ("xyzxyzxyzxyzxyzxyzxyz", False, {}, ("", False)),  # nothing but a part of a word
    ],
)
def test_only_whole_words_are_drafted(
    text: str, ends: bool, bounds: dict[str, int], expected: tuple[str, bool]
) -> None:
    assert drafted_text([*TOKENIZER.encode(text), *([EOS] if ends else [])], **bounds) == expected


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens of text"):
        Drafter(
            DraftModel(draft_config().from_dict(draft_config().to_dict() | {"decoder": {"vocab_size": 9}})), TOKENIZER
        )


def test_samples_give_what_whole_recordings_give() -> None:
    recogniser = ears()
    model = draft_model(speech_size=recogniser.config.encoder.size, window=40)
    stream = DraftStream(recogniser, model)
    samples = 9 * stream.chunk_samples
    pcm = bursts(2, samples)
    with torch.no_grad():
        features, mels = recogniser.features(pcm, torch.full((2,), samples))
        encoded = recogniser(features, mels, 1)
        frames = encoded.frames[:, :16]
        whole = model(frames, torch.full((2, 8), SIL))
    led = torch.nn.functional.pad(pcm, (LEAD_IN_SAMPLES, 0))
    state = stream.fresh_state(2)
    for row in range(2):  # one after the other: neighbours stand still
        active = torch.arange(2) == row
        for frame in range(8):
            part = led[:, frame * stream.chunk_samples : (frame + 1) * stream.chunk_samples]
            listened, _ = stream.step(part, torch.full((2,), SIL), state, active)
            torch.testing.assert_close(listened.hidden[row], whole[row, frame], atol=1e-3, rtol=1e-3)
            expected = model.logits(whole[row, frame]).softmax(-1)[SIL : SIL + len(Special)]
            torch.testing.assert_close(listened.specials[row], expected, atol=1e-3, rtol=1e-3)


def test_ears_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        DraftStream(ears(), draft_model(speech_size=14))
    with pytest.raises(ValueError, match="look-ahead"):
        DraftStream(ears(rights=(0, 6)), draft_model(speech_size=12))
