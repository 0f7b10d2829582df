"""What of a conversation a language model is given: its finished items as messages, the latest that fit."""

from __future__ import annotations

from collections.abc import Sequence

from relay.events import Message, ToolCall
from relay.wire.types import (
    ContentPart,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputAudio,
    InputText,
    Item,
    OutputAudio,
    OutputText,
    RetentionRatio,
    TokenLimits,
)

CHARS_PER_TOKEN = 4
"""For English text and the usual tokenizers; the limits below are estimates by it."""

MAX_TOKENS = 28_224
"""Of a conversation under `truncation: "auto"`: what the API's documentation names, a context of 32k less one reply."""

_TOKENS_PER_MESSAGE = 4  # of a chat template's marks around it


def message_of(item: Item) -> Message | None:
    """A finished item as a language model is given it.

    None while it is in progress, for a call that was cut off while it was made, and for a message without words.
    """
    if item.status == "in_progress":
        return None
    if isinstance(item, FunctionCallOutputItem):
        return Message("tool", item.output, call_id=item.call_id)
    if isinstance(item, FunctionCallItem):
        call = ToolCall(str(item.call_id), item.name, item.arguments)
        return Message("assistant", "", calls=(call,)) if item.status == "completed" else None
    text = " ".join(filter(None, map(words_of, item.content)))
    return Message(item.role, text) if text else None


def words_of(part: ContentPart) -> str:
    """What a content part says; empty for speech without a transcript."""
    if isinstance(part, InputText | OutputText):
        return part.text
    if isinstance(part, InputAudio | OutputAudio) and isinstance(part.transcript, str):
        return part.transcript
    return ""


def truncated(messages: Sequence[Message], rule: str | RetentionRatio) -> list[Message]:
    """The latest messages that fit.

    Under a retention ratio several messages are dropped at once, down to that share of the limit, so that the
    beginning of the context, which a language model server caches, changes rarely.

    Args:
        messages: All, oldest first.
        rule: `session.truncation`; `disabled` drops nothing and leaves it to the language model's server to refuse.
    """
    if rule == "disabled":
        return list(messages)
    limit, kept_share = MAX_TOKENS, 1.0
    if isinstance(rule, RetentionRatio):
        kept_share = rule.retention_ratio
        if isinstance(rule.token_limits, TokenLimits) and isinstance(rule.token_limits.post_instructions, int):
            limit = rule.token_limits.post_instructions
    costs = [_tokens(message) for message in messages]
    first = total = 0
    # The walk repeats every cut since the conversation began: so the cut stays where it is between two of them.
    for at, cost in enumerate(costs):
        total += cost
        if total > limit:
            while total > kept_share * limit and first < at:
                total -= costs[first]
                first += 1
    return list(messages[first:])


def _tokens(message: Message) -> int:
    chars = len(message.text)
    if message.calls:
        chars += sum(len(call.name) + len(call.arguments) for call in message.calls)
    return _TOKENS_PER_MESSAGE + chars // CHARS_PER_TOKEN
