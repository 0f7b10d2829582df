import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relay_models.decoder import Decoder, DecoderConfig, load_decoder
from relay_models.loading import WeightsError

CONTEXT = 24
CONFIG = DecoderConfig(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
)


def random_decoder(config: DecoderConfig = CONFIG, seed: int = 0) -> Decoder:
    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(config).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return decoder


DECODER = random_decoder()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tied", "theta"), [(6, 2, True, 10_000.0), (4, 4, False, 1_000_000.0), (3, 1, True, 500.0)]
)
def test_real_qwen2_gives_the_same_logits(heads: int, kv_heads: int, tied: bool, theta: float) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(heads)
    config = transformers.Qwen2Config(
        vocab_size=97,
        hidden_size=heads * 8,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        rope_theta=theta,
    )
    reference = transformers.Qwen2ForCausalLM(config).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    decoder = load_decoder(config.to_dict(), dict(reference.state_dict()))
    tokens = torch.randint(0, 97, (2, 23))
    with torch.no_grad():
        torch.testing.assert_close(decoder(tokens), reference(tokens).logits, atol=1e-4, rtol=1e-4)


class Streams:
    """Drives `step` for several rows and keeps what each row has been given, for `forward` to judge."""

    def __init__(self, rows: int) -> None:
        self.state = DECODER.fresh_state(rows, context=CONTEXT)
        self.given: list[list[int]] = [[] for _ in range(rows)]

    def step(self, new: dict[int, list[int]]) -> Tensor:
        rows = len(self.given)
        width = max(1, *(len(tokens) for tokens in new.values()))
        tokens = torch.zeros(rows, width, dtype=torch.int64)
        counts = torch.zeros(rows, dtype=torch.int64)
        for row, tokens_of_row in new.items():
            tokens[row, : len(tokens_of_row)] = torch.tensor(tokens_of_row)
            counts[row] = len(tokens_of_row)
            self.given[row] += tokens_of_row
        logits, self.state = DECODER.step(tokens, self.state, counts)
        return logits

    def check(self, row: int, logits: Tensor) -> None:
        with torch.no_grad():
            whole = DECODER(torch.tensor([self.given[row]]))[0, -1]
        torch.testing.assert_close(logits[row], whole, atol=1e-4, rtol=1e-4)


tokens_of_a_step = st.lists(st.integers(0, CONFIG.vocab_size - 1), min_size=1, max_size=5)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.dictionaries(st.integers(0, 2), tokens_of_a_step, min_size=1)),
        st.tuples(st.just("fork"), st.permutations([0, 1, 2])),
        st.tuples(st.just("roll back"), st.tuples(st.integers(0, 2), st.floats(0, 1))),
        st.tuples(st.just("reset"), st.integers(0, 2)),
        st.tuples(st.just("detour"), st.tuples(st.integers(0, 2), tokens_of_a_step)),
    ),
    max_size=8,
)


@settings(max_examples=25)
@given(actions)
def test_step_equals_forward_whatever_happens_in_the_other_rows(history: list[tuple[str, object]]) -> None:
    streams = Streams(rows=3)
    for verb, what in history:
        match verb, what:
            case "step", dict(new):
                new = {row: more[: CONTEXT - len(streams.given[row])] for row, more in new.items()}
                logits = streams.step(new)
                for row, tokens_of_row in new.items():
                    if tokens_of_row:
                        streams.check(row, logits)
            case "fork", [source, target, *_]:
                streams.state.fork(source, target)
                streams.given[target] = list(streams.given[source])
            case "roll back", (row, share):
                keep = int(len(streams.given[row]) * share)
                streams.state["lengths"][row] = keep
                del streams.given[row][keep:]
            case "reset", row:
                streams.state.reset(torch.arange(3) == row)
                streams.given[row] = []
            case "detour", (row, more):
                before = list(streams.given[row])
                snapshot = streams.state.snapshot(row)
                streams.step({row: more[: CONTEXT - len(before)]})
                streams.state.restore(row, snapshot)
                streams.given[row] = before
    final = streams.step({row: [7] for row in range(3) if len(streams.given[row]) < CONTEXT})
    for row in range(3):
        if streams.given[row] and streams.given[row][-1] == 7:
            streams.check(row, final)


def test_documents_of_one_row_do_not_see_each_other() -> None:
    tokens = torch.randint(0, CONFIG.vocab_size, (1, 12))
    documents = torch.tensor([[1] * 5 + [2] * 7])
    with torch.no_grad():
        packed = DECODER.lm_head(DECODER.hidden(tokens, documents=documents))
        torch.testing.assert_close(packed[:, :5], DECODER(tokens[:, :5]), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(packed[:, 5:], DECODER(tokens[:, 5:]), atol=1e-4, rtol=1e-4)


def test_weights_of_another_model_are_refused() -> None:
    weights = dict(DECODER.state_dict())
    config = dataclasses.asdict(CONFIG)
    with pytest.raises(WeightsError, match="do not fit"):
        load_decoder(config | {"num_hidden_layers": 3}, weights)
    with pytest.raises(WeightsError, match="do not fit"):
        load_decoder(config | {"intermediate_size": 41}, weights)
    with pytest.raises(WeightsError, match="'llama'"):
        load_decoder(config | {"model_type": "llama"}, weights)
