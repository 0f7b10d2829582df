"""The slow path through any OpenAI-compatible language model server: vLLM, SGLang, llama.cpp, Ollama, a cloud.

One streaming POST to `/chat/completions` a reply. Closing the stream closes the connection, which is how such servers
are told to stop. Every way to fail ends in BrainUnavailable with one line that says what to do, and never with the key.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from relay.brains.chat_completions import (
    CallOrder,
    Chunk,
    Continuation,
    chat_messages,
    parse,
    reply_end,
    tool_fields,
)
from relay.brains.filters import OverlapFilter, ThinkFilter
from relay.brains.sse import EventTooLong, SseParser
from relay.errors import BrainUnavailable, ConfigError
from relay.events import Message, Piece, ToolOffer

_RETRY_AFTER_S = 0.25
_DRAIN_S = 0.05
_BODY_BYTES = 256 * 1024
_REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """How a server is spoken to.

    Attributes:
        continuation: How words that were spoken already are continued. `instruct` works everywhere: the model is told
            what it has said, and what it repeats of it is removed. `prefill` is exact, where the server can go on with
            an unfinished assistant message (vLLM, SGLang: `continue_final_message`).
        max_tokens: Upper bound of a reply's length unless the caller gives one.
        connect_timeout_s: Until the connection stands.
        first_token_timeout_s: From the request to the first text that can be spoken.
        between_tokens_timeout_s: From each token to the next, once speech has begun.
    """

    continuation: Continuation = "instruct"
    max_tokens: int = 512
    connect_timeout_s: float = 3.0
    first_token_timeout_s: float = 10.0
    between_tokens_timeout_s: float = 5.0


class OpenAIChatBrain:
    """A language model behind an OpenAI-compatible URL.

    Args:
        url: Base URL, e.g. `http://127.0.0.1:8000/v1`; without a path, `/v1` is meant.
        model: Name of the model; None asks the server for its list and takes the first.
        api_key: Sent as a bearer token, and never shown.
        settings: See `ChatSettings`.

    Raises:
        ConfigError: The URL is none.
    """

    name = "openai_chat"
    knows_ends = False

    def __init__(
        self, url: str, *, model: str | None = None, api_key: str | None = None, settings: ChatSettings | None = None
    ) -> None:
        self._url = _base_url(url)
        self._model = model
        self._api_key = api_key
        self.settings = settings or ChatSettings()
        self._client: httpx.AsyncClient | None = None
        self._counts_tokens = True

    async def __aenter__(self) -> OpenAIChatBrain:
        """Prepares the connections; the server need not be up yet."""
        try:
            headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
            self._client = httpx.AsyncClient(
                headers=headers,
                timeout=httpx.Timeout(None, connect=self.settings.connect_timeout_s),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                trust_env=not _is_local(self._url.host),  # a proxy cannot reach this machine's own network
            )
        except UnicodeEncodeError as error:
            raise ConfigError("the language model's API key holds characters that cannot be sent; check it") from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()

    @contextlib.asynccontextmanager
    async def dialogue(self) -> AsyncIterator[OpenAIChatDialogue]:
        """A new session's side of it; keeps nothing between replies."""
        if self._client is None:
            raise RuntimeError("enter the brain before you ask it for a dialogue")
        yield OpenAIChatDialogue(self)

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """Sends a request and gives the response once its head is there, with the body still to come.

        A server that does not answer at all is asked once more: it may just be starting, or it may have dropped the
        idle connection that was used. Raises BrainUnavailable.
        """
        assert self._client is not None
        request = self._client.build_request(method, self._url.copy_with(path=self._url.path + path), json=body)
        try:
            try:
                return await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                await asyncio.sleep(_RETRY_AFTER_S)
                return await self._client.send(request, stream=True)
        except httpx.ConnectTimeout as error:
            raise self.unavailable(
                f"did not take the connection within {self.settings.connect_timeout_s:g} s; check --llm-url"
            ) from error
        except httpx.ConnectError as error:
            raise self.unavailable(f"cannot be reached ({error}); start it, or check --llm-url") from error
        except httpx.HTTPError as error:
            raise self.unavailable(f"broke the connection off ({error}); look at its log") from error

    async def complete(self, body: dict[str, Any]) -> httpx.Response:
        """Asks for a completion and, where the server knows how, for its count of tokens. Raises BrainUnavailable."""
        if self._counts_tokens:
            counted = body | {"stream_options": {"include_usage": True}}
            response = await self.request("POST", "/chat/completions", counted)
            if response.status_code not in (400, 422):
                return response
            async with contextlib.aclosing(response):
                try:
                    await self.read(response)
                except BrainUnavailable as error:
                    if "stream_options" not in str(error):
                        raise
            self._counts_tokens = False
        return await self.request("POST", "/chat/completions", body)

    async def model(self) -> str:
        """The model's name; asks the server for it if none was given. Raises BrainUnavailable."""
        if self._model is None:
            async with contextlib.aclosing(await self.request("GET", "/models")) as response:
                body = await self.read(response)
                try:
                    self._model = msgspec.json.decode(body, type=_Models).data[0].id
                except (msgspec.MsgspecError, IndexError) as error:
                    raise self.unavailable("does not list its models; name one with --llm-model") from error
        return self._model

    async def read(self, response: httpx.Response) -> bytes:
        """The body of a response, as much of it as is sensible. Raises BrainUnavailable if the server refused."""
        body = b""
        with contextlib.suppress(httpx.HTTPError):  # what came says more than how it ended
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _BODY_BYTES:
                    break
        if response.status_code != 200:
            what, advice = _ADVICE.get(response.status_code, ("refused the request", "look at its log"))
            reason = _reason(body)
            raise self.unavailable(f"{what} ({response.status_code}{': ' if reason else ''}{reason}); {advice}")
        return body

    def unavailable(self, what: str) -> BrainUnavailable:
        """An error of one line about this server, without the key, wherever the line comes from."""
        if self._api_key:
            what = what.replace(self._api_key, "***")
        port = f":{self._url.port}" if self._url.port else ""
        return BrainUnavailable(" ".join(f"the language model server at {self._url.host}{port} {what}".split()))


class OpenAIChatDialogue:
    """One session's replies; made by `OpenAIChatBrain.dialogue`."""

    def __init__(self, brain: OpenAIChatBrain) -> None:
        self._brain = brain

    async def end_probability(self, messages: Sequence[Message]) -> float | None:
        """None: a chat server writes replies, and does not say how likely a user's turn ends."""
        return None

    async def reply(
        self,
        messages: Sequence[Message],
        *,
        prefix: str = "",
        max_tokens: int | None = None,
        tools: ToolOffer | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Streams the assistant's next turn; see `relay.brains.Dialogue`. Closing it closes the connection."""
        settings = self._brain.settings
        think = ThinkFilter()
        overlap = OverlapFilter(prefix, add_space=settings.continuation == "instruct")
        clock = asyncio.get_running_loop().time
        due, begun, writing = clock() + settings.first_token_timeout_s, False, True
        async with contextlib.aclosing(self._content(messages, prefix, max_tokens, tools)) as stream:
            while True:
                try:
                    async with asyncio.timeout_at(due):
                        piece = await anext(stream, None)
                except TimeoutError as error:
                    raise self._brain.unavailable(
                        f"stopped for {settings.between_tokens_timeout_s:g} s in mid-reply; look at its load"
                        if begun
                        else f"said nothing for {settings.first_token_timeout_s:g} s; use a smaller model, or one that "
                        "does not reason first"
                    ) from error
                if piece is None:
                    return
                if not isinstance(piece, str):
                    if writing and (text := overlap.push(think.end()) + overlap.end()):
                        yield text
                    writing, begun = False, True
                    yield piece
                # Text comes before calls: what a model adds after one stands nowhere in the finished message.
                elif writing and (text := overlap.push(think.push(piece))):
                    begun = True
                    yield text
                if begun:
                    due = clock() + settings.between_tokens_timeout_s

    async def _content(
        self, messages: Sequence[Message], prefix: str, max_tokens: int | None, tools: ToolOffer | None
    ) -> AsyncGenerator[Piece, None]:
        """One completion as the server sends it; an empty text is a sign of life. Raises BrainUnavailable."""
        brain = self._brain
        body = {
            "model": await brain.model(),
            "messages": chat_messages(messages, prefix, brain.settings.continuation),
            "stream": True,
            "max_tokens": max_tokens or brain.settings.max_tokens,
            **tool_fields(tools),
        }
        if prefix and brain.settings.continuation == "prefill":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        calls, counts, finish_reason = CallOrder(), None, None
        async with contextlib.aclosing(await brain.complete(body)) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code != 200 or kind == "application/json":  # some servers cannot stream
                for chunk in self._parse((await brain.read(response)).decode("utf-8", "replace")):
                    yield chunk.part.content or ""
                    for delta in calls.push(chunk.part.tool_calls or ()):
                        yield delta
                    counts, finish_reason = chunk.usage or counts, chunk.finish_reason or finish_reason
                for delta in calls.end():
                    yield delta
                yield reply_end(finish_reason, counts)
                return
            if kind == "text/html":
                raise brain.unavailable("answers with a web page; check --llm-url, it often ends in /v1")
            try:
                async with contextlib.aclosing(self._events(response.aiter_bytes())) as events:
                    async for data in events:
                        for chunk in self._parse(data):
                            counts, finish_reason = chunk.usage or counts, finish_reason or chunk.finish_reason
                            if chunk.part.content or chunk.part.tool_calls:
                                yield chunk.part.content or ""
                            for delta in calls.push(chunk.part.tool_calls or ()):
                                yield delta
                        if finish_reason:
                            break
                    else:
                        raise brain.unavailable("ended the reply unfinished; look at its log")
                    for delta in calls.end():
                        yield delta
                    # The count of tokens comes after the reply; and a response read to its end leaves a connection that
                    # the next reply need not open again.
                    with contextlib.suppress(TimeoutError, httpx.HTTPError, EventTooLong, BrainUnavailable):
                        async with asyncio.timeout(_DRAIN_S):
                            async for data in events:
                                counts = next((chunk.usage for chunk in self._parse(data) if chunk.usage), counts)
            except httpx.HTTPError as error:
                raise brain.unavailable(f"broke the reply off ({error}); look at its log") from error
            except EventTooLong as error:
                raise brain.unavailable(f"does not stream chat completions ({error}); check --llm-url") from error
            yield reply_end(finish_reason, counts)

    async def _events(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
        parser = SseParser()
        async for chunk in chunks:
            for data in parser.push(chunk):
                yield data
        for data in parser.end():
            yield data

    def _parse(self, data: str) -> list[Chunk]:
        """The chunks in an event's data. Raises BrainUnavailable for what is none, and for an error in its place."""
        try:
            chunks = parse(data)
        except msgspec.MsgspecError as error:
            raise self._brain.unavailable(
                f"sent something that is not a chat completion ({error}); check --llm-url"
            ) from error
        for chunk in chunks:
            if chunk.error or chunk.object == "error":
                raise self._brain.unavailable(f"failed: {_reason(data.encode())}; look at its log")
        return chunks


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_ADVICE = {
    400: ("refused the request", "check --llm-model, or look at its log"),
    401: ("refused the key", "set the variable that --llm-key-env names"),
    403: ("refused the key", "set the variable that --llm-key-env names"),
    404: ("does not know the address or the model", "check --llm-url, which often ends in /v1, and --llm-model"),
    429: ("has too much to do or its quota is used up", "try again later"),
    502: ("is not ready", "wait until it has started"),
    503: ("is not ready", "wait until it has started"),
}


def _reason(body: bytes) -> str:
    """What an error body says, in the forms of OpenAI, FastAPI and Ollama, shortened; empty if it is none of these."""
    with contextlib.suppress(msgspec.MsgspecError):
        found = msgspec.json.decode(body)
        for key in ("error", "detail", "message"):
            if isinstance(found, dict) and found.get(key):
                found = found[key]
        return str(found.get("message", "") if isinstance(found, dict) else found)[:_REASON_CHARACTERS]
    return ""


def _base_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ConfigError(f"--llm-url {url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
        raise ConfigError(f"--llm-url {url!r} must look like http://127.0.0.1:8000/v1")
    path = parsed.path.rstrip("/").removesuffix("/chat/completions")
    return parsed.copy_with(path=path or "/v1", query=None, fragment=None)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local"))
