"""The dialect of OpenAI's Chat Completions API: what is asked, and what the answer's chunks hold. No I/O.

Servers differ in small ways; what is lenient here is so because one of the common ones needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from relay.events import CallDelta, Message, ReplyEnd, ToolCall, ToolOffer

Continuation = Literal["instruct", "prefill"]

_NO_RESULT = "(There is no result yet.)"


def chat_messages(messages: Sequence[Message], prefix: str, continuation: Continuation) -> list[dict[str, Any]]:
    """A conversation in the form that every chat template takes: one system message, then user and assistant by turns.

    Interrupted turns leave neighbours of one role behind; they are joined. The result of a call stands right after it,
    wherever it came in the conversation, and every call has one: templates and servers ask for that. A result without
    its call is shown as the user's words. What was said of this turn follows by `continuation`; it stands at the end in
    both ways, so that the server's cache of the conversation stays valid.
    """
    system = "\n\n".join(message.text for message in messages if message.role == "system")
    turns = _turns(messages)
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": "(Begin the conversation.)"})
    if turns[-1]["role"] == "assistant" and not prefix:
        turns.append({"role": "user", "content": "(Go on.)"})
    if prefix and continuation == "prefill":
        if turns[-1]["role"] == "assistant":
            turns[-1]["content"] += f"\n{prefix}"
        else:
            turns.append({"role": "assistant", "content": prefix})
    elif prefix:
        hint = (
            f'(You have begun to answer aloud: "{prefix}" Write only the words that follow these. Do not repeat them.)'
        )
        if turns[-1]["role"] == "user":
            turns[-1]["content"] += f"\n\n{hint}"
        else:
            turns.append({"role": "user", "content": hint})
    return ([{"role": "system", "content": system}] if system else []) + turns


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """All but the system's messages, by turns."""
    results: dict[str, str] = {}
    for message in messages:
        if message.role == "tool" and message.call_id is not None:
            before = results.get(message.call_id)
            results[message.call_id] = message.text if before is None else f"{before}\n{message.text}"
    called = {call.call_id for message in messages for call in message.calls}
    turns: list[dict[str, Any]] = []
    joins = True  # calls that come before a result were made at once
    for message in messages:
        if message.role == "tool" and message.call_id in called:
            joins = False
            continue
        if message.role == "system":
            continue
        role = "user" if message.role == "tool" else message.role
        text = f"(Result of a tool: {message.text})" if message.role == "tool" else message.text
        last = turns[-1] if turns else None
        if message.calls:
            _add_calls(turns, text, message.calls, results, joins=joins)
            joins = True
        elif last is not None and last["role"] == role and "tool_calls" not in last:
            last["content"] += f"\n{text}"
        else:
            turns.append({"role": role, "content": text})
    return turns


def _add_calls(
    turns: list[dict[str, Any]], text: str, calls: Sequence[ToolCall], results: dict[str, str], *, joins: bool
) -> None:
    """Adds an assistant's calls with their results; `joins` those made with its last words, or with calls before."""
    made = [
        {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": _object(call.arguments)},
        }
        for call in calls
    ]
    answers = [
        {"role": "tool", "tool_call_id": call.call_id, "content": results.get(call.call_id, _NO_RESULT)}
        for call in calls
    ]
    at = len(turns)
    while at and turns[at - 1]["role"] == "tool":
        at -= 1
    speaker = turns[at - 1] if at and turns[at - 1]["role"] == "assistant" else None
    if speaker is None or text or not joins:
        speaker = {"role": "assistant", "content": text}
        turns.append(speaker)
    speaker.setdefault("tool_calls", []).extend(made)
    turns.extend(answers)


def _object(arguments: str) -> str:
    """Arguments as JSON text of an object; servers fail on history that is none, as a model may once have written."""
    try:
        return arguments if isinstance(msgspec.json.decode(arguments), dict) else "{}"
    except msgspec.DecodeError:
        return "{}"


def tool_fields(offer: ToolOffer | None) -> dict[str, Any]:
    """The fields of a request that offer tools; `tool_choice` only where it is not the default."""
    if offer is None:
        return {}
    functions = []
    for tool in offer.tools:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
        functions.append({"type": "function", "function": function})
    fields: dict[str, Any] = {"tools": functions}
    if offer.only is not None:
        fields["tool_choice"] = {"type": "function", "function": {"name": offer.only}}
    elif offer.choice != "auto":
        fields["tool_choice"] = offer.choice
    if offer.parallel is not None:
        fields["parallel_tool_calls"] = offer.parallel
    return fields


class Function(msgspec.Struct):
    """A piece of a call: `arguments` is text, or from some servers the object itself."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCallPart(msgspec.Struct):
    """A piece of one of the calls of a reply."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Part(msgspec.Struct):
    """A piece of the reply, or the whole one from servers that do not stream."""

    content: str | None = None
    tool_calls: list[ToolCallPart] | None = None


class Choice(msgspec.Struct):
    """One alternative; only one is asked for."""

    delta: Part | None = None
    message: Part | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    """Tokens of the prompt by kind."""

    cached_tokens: int | None = None


class TokenCounts(msgspec.Struct):
    """Tokens that a reply took."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct):
    """One event of the stream."""

    choices: list[Choice] | None = None
    error: Any = None
    object: str | None = None
    usage: TokenCounts | None = None

    @property
    def part(self) -> Part:
        """What it adds to the reply; empty for roles, reasoning and usage."""
        choice = self.choices[0] if self.choices else Choice()
        return choice.delta or choice.message or Part()

    @property
    def finish_reason(self) -> str | None:
        """Why the reply is complete with it; None while it is not."""
        return self.choices[0].finish_reason if self.choices else None


_DECODER = msgspec.json.Decoder(Chunk)


def parse(data: str) -> list[Chunk]:
    """The chunks in an event's data: one, or one a line where a server leaves out the lines between events.

    Raises:
        msgspec.MsgspecError: It is not a chat completion.
    """
    try:
        return [_chunk(data)]
    except msgspec.DecodeError:
        return [_chunk(line) for line in data.splitlines() if line.strip()]


def _chunk(data: str) -> Chunk:
    if data.strip() == "[DONE]":
        return Chunk(choices=[Choice(finish_reason="stop")])
    return _DECODER.decode(data)


def reply_end(finish_reason: str | None, counts: TokenCounts | None) -> ReplyEnd:
    """How a reply ended, in our terms."""
    counts = counts or TokenCounts()
    details = counts.prompt_tokens_details or PromptDetails()
    return ReplyEnd(
        finish_reason if finish_reason in ("length", "content_filter") else "stop",  # type: ignore[arg-type]
        input_tokens=counts.prompt_tokens or 0,
        cached_tokens=details.cached_tokens or 0,
        output_tokens=counts.completion_tokens or 0,
    )


@dataclass(slots=True)
class _Call:
    """A call as far as it has come. `held`: arguments that have not been given on."""

    call_id: str | None
    name: str = ""
    held: str = ""
    begun: bool = False


@dataclass(slots=True)
class CallOrder:
    """Puts the pieces of a reply's calls in order: the first call is given on as it comes, the others whole after it.

    Attributes:
        calls: The calls in the order in which they began.
        by_index: The latest call of each index that the server gave.
    """

    calls: list[_Call] = field(default_factory=list)
    by_index: dict[int, int] = field(default_factory=dict)

    def push(self, parts: Sequence[ToolCallPart]) -> list[CallDelta]:
        """Takes the pieces of one chunk; gives those that are next."""
        for position, part in enumerate(parts):
            call = self._call(part, position)
            function = part.function or Function()
            call.name = call.name or function.name or ""
            arguments = function.arguments
            call.held += msgspec.json.encode(arguments).decode() if isinstance(arguments, dict) else arguments or ""
        return self._ready(0) if self.calls else []

    def end(self) -> list[CallDelta]:
        """The rest. A call without arguments gets an empty object of them; one without a name is none."""
        rest: list[CallDelta] = []
        for index, call in enumerate(self.calls):
            if not call.begun and not call.held:
                call.held = "{}"
            rest += self._ready(index)
        return rest

    def _call(self, part: ToolCallPart, position: int) -> _Call:
        """The call that a piece belongs to. A new id begins a new one: some servers number every call 0."""
        index = position if part.index is None else part.index
        at = self.by_index.get(index)
        if at is None or (part.id and self.calls[at].call_id and part.id != self.calls[at].call_id):
            at = self.by_index[index] = len(self.calls)
            self.calls.append(_Call(part.id or None))
        return self.calls[at]

    def _ready(self, index: int) -> list[CallDelta]:
        call = self.calls[index]
        if not call.name or not call.held:
            return []
        delta = CallDelta(index, call.name, call.held, call.call_id)
        call.held, call.begun = "", True
        return [delta]
