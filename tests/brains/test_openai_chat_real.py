"""The brain behind a chat completions URL, against a real server of another project with a tiny model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from relay.brains.openai_chat import ChatSettings, OpenAIChatBrain
from relay.errors import BrainUnavailable
from relay.events import Message, ReplyEnd, Tool, ToolCall, ToolOffer
from tests.brains.chat_server import ASK, dialogue, words_of


def write_tiny_model(folder: Path) -> None:
    """A one-layer Llama of random weights with a tokenizer of whole words, in the layout of the hub."""
    syllables = ["ba", "de", "ki", "lo", "mu", "na", "po", "ri", "su", "ta"]
    vocabulary = ["<unk>", "<s>", "</s>", "system", "user", "assistant", ":", ".", "(", ")"]
    vocabulary += [a + b + "n" for a in syllables for b in syllables]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = (
        "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' . ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
    )
    hidden, inner, size = 32, 64, len(vocabulary)
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "chat_template": template,
        },
        # It speaks at random, but in words alone: an early end or a lone colon would make the test a matter of luck.
        "generation_config.json": {
            "bos_token_id": 1,
            "eos_token_id": 2,
            "do_sample": True,
            "suppress_tokens": list(range(10)),
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": size,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "dtype": "float32",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    random = np.random.default_rng(0)
    shapes = {f"self_attn.{x}_proj": (hidden, hidden) for x in "qkvo"}
    shapes |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    weights = {f"layers.0.{name}": random.normal(0, 0.5, shape) for name, shape in shapes.items()}
    weights |= {f"layers.0.{name}_layernorm": np.ones(hidden) for name in ("input", "post_attention")}
    weights |= {"norm": np.ones(hidden), "embed_tokens": random.normal(0, 0.5, (size, hidden))}
    tensors = {f"model.{name}.weight": x.astype(np.float32) for name, x in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`transformers serve` with a tiny model: its URL and the model's name."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    cache = tmp_path_factory.mktemp("cache")
    (cache / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (cache / "log").open("w+b")
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    process = subprocess.Popen(
        [*serve, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "TRANSFORMERS_VERBOSITY": "error"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )

    async def until_ready() -> None:
        async with asyncio.timeout(100), httpx.AsyncClient(trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200:
                        return
                assert process.poll() is None, Path(log.name).read_text()
                await asyncio.sleep(0.2)

    try:
        asyncio.run(until_ready())
        yield f"http://127.0.0.1:{port}", str(folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


REAL = ChatSettings(first_token_timeout_s=60.0, between_tokens_timeout_s=30.0)


def test_with_a_real_server(real_server: tuple[str, str]) -> None:
    url, model = real_server

    async def main() -> None:
        async with asyncio.timeout(90), dialogue(url, model=model, api_key=None, settings=REAL) as side:
            *pieces, end = [piece async for piece in side.reply(ASK, max_tokens=12)]
            assert len(pieces) > 1
            assert 1 <= len("".join(words_of(pieces)).split()) <= 12
            assert isinstance(end, ReplyEnd)
            assert (end.reason, end.output_tokens) == ("length", 12)
            assert end.input_tokens > 5

            # An interrupted reply, and another one at once over the same brain.
            async with contextlib.aclosing(side.reply(ASK, max_tokens=2000)) as reply:
                assert str(await anext(reply)).strip()
            again = [piece async for piece in side.reply(ASK, prefix="baban baden", max_tokens=5)]
            assert "".join(words_of(again[:-1])).startswith(" ")

            replies = [[p async for p in side.reply(ASK, max_tokens=8)] async for _ in _three()]
            assert all(len(reply) > 1 for reply in replies)

            # A model that has never seen a tool answers in words; the server takes the offer and the history of a call.
            call = Message("assistant", "", calls=(ToolCall("c", "look_up", "{}"),))
            history = [*ASK, call, Message("tool", "sunny", call_id="c")]
            offer = ToolOffer((Tool("look_up", "Looks up.", {"type": "object", "properties": {}}),), parallel=False)
            words = words_of([piece async for piece in side.reply(history, max_tokens=8, tools=offer)][:-1])
            assert words

    asyncio.run(main())


def test_what_a_real_server_refuses(real_server: tuple[str, str]) -> None:
    url, model = real_server

    async def refusal(**kwargs: Any) -> str:
        async with asyncio.timeout(60), dialogue(url, settings=kwargs.pop("settings", REAL), **kwargs) as side:
            with pytest.raises(BrainUnavailable) as caught:
                await anext(side.reply(ASK, prefix="baban"))
            return str(caught.value)

    async def main() -> None:
        assert "pinned to" in await refusal(model="another")
        prefill = ChatSettings(continuation="prefill", first_token_timeout_s=60.0)
        assert "(422: Unexpected fields" in await refusal(model=model, settings=prefill)
        async with OpenAIChatBrain(f"{url}/nowhere", model=model) as brain, brain.dialogue() as side:
            with pytest.raises(BrainUnavailable, match=r"\(404: Not Found\); check --llm-url"):
                await anext(side.reply(ASK))

    asyncio.run(main())


async def _three() -> AsyncIterator[int]:
    for i in range(3):
        yield i
