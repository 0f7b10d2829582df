from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from relay.brains.openai_chat import ChatSettings, OpenAIChatBrain, OpenAIChatDialogue, chat_messages
from relay.errors import BrainUnavailable, ConfigError
from relay.events import Message

ASK = [Message("system", "Be brief."), Message("user", "Can you help me?")]
KEY = "sk-very-secret"
Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request as a server sees it, and the bare socket to answer it with."""

    def __init__(self, head: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.body: dict[str, Any] = json.loads(body) if body else {}
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: bytes | str) -> None:
        for part in parts:
            self._writer.write(part if isinstance(part, bytes) else part.encode())
            await self._writer.drain()

    async def stream(self, *parts: bytes | str, kind: str = "text/event-stream") -> None:
        """Begins an answer whose end is the end of the connection."""
        await self.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n", *parts)

    async def answer(self, status: int, body: str | bytes, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else body.encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
        await self.send(head, data)

    async def closed_by_client(self) -> None:
        assert await self._reader.read() == b""


@contextlib.asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """A server on a free port of this machine; every request goes to `handler`, every connection is closed after it."""
    failures: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-length")), 0
            )
            await handler(Exchange(head, await reader.readexactly(length), reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
    assert not failures


def delta(text: str | None, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


DONE = "data: [DONE]\n\n"
SHORT = ChatSettings(connect_timeout_s=2.0, first_token_timeout_s=0.3, between_tokens_timeout_s=0.2)


@contextlib.asynccontextmanager
async def dialogue(url: str, **kwargs: Any) -> AsyncIterator[OpenAIChatDialogue]:
    kwargs = {"model": "tiny", "api_key": KEY} | kwargs
    async with OpenAIChatBrain(url, **kwargs) as brain, brain.dialogue() as dialogue:
        yield dialogue


def ask(handler: Handler, *, prefix: str = "", **kwargs: Any) -> list[str]:
    """The pieces of one reply of a server that does what `handler` does."""

    async def main() -> list[str]:
        async with asyncio.timeout(30), server(handler) as url, dialogue(url, **kwargs) as side:
            return [piece async for piece in side.reply(ASK, prefix=prefix)]

    return asyncio.run(main())


def fail(handler: Handler, **kwargs: Any) -> str:
    """The message of the error that a server's misbehaviour ends in."""
    with pytest.raises(BrainUnavailable) as caught:
        ask(handler, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert KEY not in message
    assert message.startswith("the language model server at 127.0.0.1:")
    return message


# --- a server that behaves, more or less


def test_streams_a_reply() -> None:
    seen: list[Exchange] = []

    async def handler(x: Exchange) -> None:
        seen.append(x)
        await x.stream(delta(None), delta("Of"), delta(" course"), delta("."), delta(None, "stop"), DONE)

    assert ask(handler) == ["Of", " course", "."]
    (x,) = seen
    assert x.head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"authorization: bearer {KEY}" in x.head.lower()
    assert x.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Can you help me?"}],
        "stream": True,
        "max_tokens": 512,
    }


@pytest.mark.parametrize(
    "stream",
    [
        delta("a b").replace("\n", "\r\n") + DONE.replace("\n", "\r\n"),
        ": ping\n\n" + delta("a b") + DONE,
        delta("a b").rstrip("\n") + "\n" + DONE,  # no line between events
        delta("a b", "length"),  # no [DONE]
        delta("a b") + 'data: {"choices":[],"usage":{"total_tokens":9}}\n\n' + DONE,
        'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n' + delta("a b") + DONE,
        delta("<think>so") + delta("</thi") + delta("nk>\n\na b") + DONE,
        delta("a b") + "data: [DONE]",
    ],
    ids=["crlf", "comments", "no blank lines", "no done", "usage", "reasoning", "thinking", "cut after done"],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_dialects(stream: str, size: int) -> None:
    data = stream.encode()

    async def handler(x: Exchange) -> None:
        await x.stream(*(data[at : at + size] for at in range(0, len(data), size)))

    assert "".join(ask(handler)) == "a b"


def test_a_server_that_does_not_stream() -> None:
    async def handler(x: Exchange) -> None:
        await x.answer(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "a b"}}]}))

    assert ask(handler) == ["a b"]


def test_asks_for_the_model_once() -> None:
    paths: list[str] = []

    async def handler(x: Exchange) -> None:
        paths.append(x.head.split()[1])
        if paths[-1] == "/v1/models":
            await x.answer(200, '{"object":"list","data":[{"id":"first"},{"id":"second"}]}')
        else:
            assert x.body["model"] == "first"
            await x.stream(delta("yes", "stop"))

    async def main() -> None:
        async with asyncio.timeout(30), server(handler) as url, dialogue(url, model=None) as side:
            for _ in range(2):
                assert [piece async for piece in side.reply(ASK)] == ["yes"]

    asyncio.run(main())
    assert paths == ["/v1/models", "/v1/chat/completions", "/v1/chat/completions"]


def test_closing_the_reply_closes_the_connection() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def handler(x: Exchange) -> None:
            await x.stream(delta("one"), delta(" two"))
            await x.closed_by_client()
            closed.set()

        async with asyncio.timeout(30), server(handler) as url, dialogue(url) as side:
            async with contextlib.aclosing(side.reply(ASK)) as reply:
                assert await anext(reply) == "one"
            await closed.wait()

    asyncio.run(main())


def test_cancelling_the_wait_for_the_first_word_closes_the_connection() -> None:
    async def main() -> None:
        asked, closed = asyncio.Event(), asyncio.Event()

        async def handler(x: Exchange) -> None:
            asked.set()
            await x.closed_by_client()
            closed.set()

        async def listen(side: OpenAIChatDialogue) -> None:
            async with contextlib.aclosing(side.reply(ASK)) as reply:
                await anext(reply)

        async with asyncio.timeout(30), server(handler) as url, dialogue(url) as side:
            task = asyncio.create_task(listen(side))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await closed.wait()

    asyncio.run(main())


def test_a_dropped_idle_connection_is_tried_again() -> None:
    count = 0

    async def handler(x: Exchange) -> None:
        nonlocal count
        count += 1
        if count > 1:
            await x.stream(delta("yes", "stop"))

    assert ask(handler) == ["yes"]


# --- continuing what was said


def test_continuation_by_instruction() -> None:
    async def handler(x: Exchange) -> None:
        (_, last) = x.body["messages"]
        assert last["role"] == "user"
        assert "Sure, I" in last["content"]
        await x.stream(delta("sure"), delta(", i ca"), delta("n help."), delta(None, "stop"))

    assert "".join(ask(handler, prefix="Sure, I")) == " can help."


def test_continuation_by_prefill() -> None:
    async def handler(x: Exchange) -> None:
        assert x.body["messages"][-1] == {"role": "assistant", "content": "Sure, I"}
        assert x.body["continue_final_message"] is True
        assert x.body["add_generation_prompt"] is False
        await x.stream(delta(" can help."), delta(None, "stop"))

    assert "".join(ask(handler, prefix="Sure, I", settings=ChatSettings(continuation="prefill"))) == " can help."


def test_conversations_fit_any_template() -> None:
    messages = [
        Message("assistant", "Hello."),
        Message("system", "One."),
        Message("user", "Weather?"),
        Message("tool", "rain"),
        Message("system", "Two."),
        Message("assistant", "It"),
    ]
    assert chat_messages(messages, "", "instruct") == [
        {"role": "system", "content": "One.\n\nTwo."},
        {"role": "user", "content": "(Begin the conversation.)"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Weather?\n(Result of a tool: rain)"},
        {"role": "assistant", "content": "It"},
        {"role": "user", "content": "(Go on.)"},
    ]
    assert chat_messages(messages, "rains", "prefill")[-1] == {"role": "assistant", "content": "It\nrains"}
    assert chat_messages(messages, "rains", "instruct")[-1]["role"] == "user"
    assert chat_messages([], "", "instruct") == [{"role": "user", "content": "(Begin the conversation.)"}]


# --- a server that misbehaves


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}), "--llm-key-env"),
        (404, '{"error":"model not found"}', "(404: model not found); check --llm-url"),
        (422, '{"detail":"Unexpected fields"}', "(422: Unexpected fields)"),
        (429, "", "try again later"),
        (500, "<html>oops</html>", "refused the request (500); look at its log"),
        (503, '{"error":{"message":"Loading\\nmodel"}}', "(503: Loading model); wait until"),
        (301, "", "(301)"),
    ],
)
def test_refusals(status: int, body: str, says: str) -> None:
    assert says in fail(lambda x: x.answer(status, body))


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"", "ended the reply unfinished"),
        (delta("half a"), "ended the reply unfinished"),
        (b"data: {nonsense\n\n", "not a chat completion"),
        (b'data: {"choices":[{"delta":{"content":7}}]}\n\n', "not a chat completion"),
        (b"data: [1]\n\n", "not a chat completion"),
        (b'data: {"error":{"message":"out of memory"}}\n\n', "failed: out of memory"),
        (b'data: {"object":"error","message":"too long"}\n\n', "failed: too long"),
        (delta("a ") + 'data: {"error":"CUDA\\nerror"}\n\n', "failed: CUDA error"),
        (os.urandom(300), "ended the reply unfinished"),
        (b"x" * 2_000_000, "does not stream chat completions"),
    ],
    ids=["nothing", "half", "nonsense", "types", "list", "error", "vllm error", "late error", "binary", "endless line"],
)
def test_broken_streams(stream: bytes | str, says: str) -> None:
    assert says in fail(lambda x: x.stream(stream))


def test_a_web_page() -> None:
    assert "often ends in /v1" in fail(lambda x: x.stream("<html>Welcome</html>", kind="text/html; charset=utf-8"))


def test_an_answer_that_breaks_off() -> None:
    async def handler(x: Exchange) -> None:
        await x.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        data = delta("half a")
        await x.send(f"{len(data):x}\r\n{data}\r\n")

    assert "broke the reply off" in fail(handler)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9\r\n", b""], ids=["another protocol", "nothing"])
def test_something_else_answers(answer: bytes) -> None:
    assert "broke the connection off" in fail(lambda x: x.send(answer))


def test_silence_before_the_first_word() -> None:
    async def handler(x: Exchange) -> None:
        await x.stream(": ping\n\n", delta(None), delta("<think>hm"))
        await x.closed_by_client()

    assert "said nothing for 0.3 s" in fail(handler, settings=SHORT)


def test_silence_in_mid_reply() -> None:
    async def handler(x: Exchange) -> None:
        await x.stream(delta("well"))
        await x.closed_by_client()

    assert "stopped for 0.2 s in mid-reply" in fail(handler, settings=SHORT)


def test_a_slow_listener_is_no_slow_server() -> None:
    """The time that a piece waits to be fetched does not count against the server."""
    settings = ChatSettings(between_tokens_timeout_s=0.2)

    async def main() -> None:
        async def handler(x: Exchange) -> None:
            await x.stream(delta("one"), delta(" two"), delta(None, "stop"))

        async with asyncio.timeout(30), server(handler) as url, dialogue(url, settings=settings) as side:
            reply = side.reply(ASK)
            assert await anext(reply) == "one"
            await asyncio.sleep(0.3)  # longer than the server may pause
            assert await anext(reply) == " two"
            await reply.aclose()

    asyncio.run(main())


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:{KEY}@127.0.0.1:{free.getsockname()[1]}"

        async def main() -> None:
            async with dialogue(url) as side:
                await anext(side.reply(ASK))

        with pytest.raises(BrainUnavailable, match=r"cannot be reached .*; start it, or check --llm-url") as caught:
            asyncio.run(main())
    assert KEY not in str(caught.value)


def test_no_models() -> None:
    assert "name one with --llm-model" in fail(lambda x: x.answer(200, '{"data":[]}'), model=None)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://h:99999/v1"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="--llm-url"):
        OpenAIChatBrain(url)


def test_a_key_that_cannot_be_sent() -> None:
    async def main() -> None:
        async with OpenAIChatBrain("http://127.0.0.1:1", api_key="ключ"):
            pass

    with pytest.raises(ConfigError, match="API key"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h:1", "/v1"),
        ("http://h:1/", "/v1"),
        ("http://h:1/v1/", "/v1"),
        ("http://h:1/v1/chat/completions", "/v1"),
        ("https://h/api/openai", "/api/openai"),
    ],
)
def test_urls(url: str, path: str) -> None:
    assert OpenAIChatBrain(url)._url.path == path


# --- a real server of another project


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
            pieces = [piece async for piece in side.reply(ASK, max_tokens=12)]
            assert len(pieces) > 1
            assert 1 <= len("".join(pieces).split()) <= 12

            # An interrupted reply, and another one at once over the same brain.
            async with contextlib.aclosing(side.reply(ASK, max_tokens=2000)) as reply:
                assert (await anext(reply)).strip()
            again = [piece async for piece in side.reply(ASK, prefix="baban baden", max_tokens=5)]
            assert "".join(again).startswith(" ")

            replies = [[p async for p in side.reply(ASK, max_tokens=8)] async for _ in _three()]
            assert all(replies)

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
