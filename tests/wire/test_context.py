"""What a language model is given of a conversation."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.events import Message, ToolCall
from relay.wire.context import MAX_TOKENS, message_of, truncated
from relay.wire.types import Item, RetentionRatio


def item(**fields: Any) -> Item:
    made: Item = msgspec.convert(fields, Item)
    return made


def said(role: str, text: str, **fields: Any) -> Item:
    kind = "output_text" if role == "assistant" else "input_text"
    return item(type="message", role=role, content=[{"type": kind, "text": text}], **fields)


def test_items_become_messages() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}
    output = {"type": "function_call_output", "call_id": "c"}
    items = [
        said("system", "Be brief."),
        said("user", ""),
        item(type="message", role="user", content=[{"type": "input_audio"}]),
        said("assistant", "Well", status="in_progress"),
        said("assistant", "Half a", status="incomplete"),
        item(**call, status="completed"),
        item(**call, status="incomplete"),
        item(**output, output=""),
    ]
    assert [message_of(one) for one in items] == [
        Message("system", "Be brief."),
        None,
        None,
        None,
        Message("assistant", "Half a"),
        Message("assistant", "", calls=(ToolCall("c", "f", "{}"),)),
        None,
        Message("tool", "", call_id="c"),
    ]


def ratio(share: float, limit: int | None = None) -> RetentionRatio:
    limits = {} if limit is None else {"token_limits": {"post_instructions": limit}}
    return msgspec.convert({"type": "retention_ratio", "retention_ratio": share, **limits}, RetentionRatio)


def tokens(messages: list[Message]) -> int:
    return sum(4 + len(message.text) // 4 for message in messages)


@given(st.lists(st.integers(0, 400), max_size=40), st.floats(0.1, 1.0), st.integers(50, 1000))
def test_the_latest_that_fit_are_kept_and_the_cut_rests(sizes: list[int], share: float, limit: int) -> None:
    messages = [Message("user", f"{at}".ljust(size)) for at, size in enumerate(sizes)]
    rule = ratio(share, limit)
    kept = truncated(messages, rule)
    assert kept == messages[len(messages) - len(kept) :]
    assert tokens(kept) <= limit or len(kept) == 1
    assert truncated(messages, "disabled") == messages
    if tokens(messages) <= limit:
        assert kept == messages
    # The beginning of the context only changes when the limit is passed; then it falls to the share.
    for end in range(1, len(messages)):
        before, after = truncated(messages[:end], rule), truncated(messages[: end + 1], rule)
        if after[0] != before[0]:
            assert tokens([*before, messages[end]]) > limit
            assert tokens(after) <= share * limit or len(after) == 1


@pytest.mark.parametrize("rule", ["auto", ratio(0.5)])
def test_without_a_limit_of_the_clients_there_is_the_documented_one(rule: Any) -> None:
    messages = [Message("user", "x" * 4000)] * 40
    kept = truncated(messages, rule)
    assert len(kept) < len(messages)
    assert tokens(kept) <= MAX_TOKENS
