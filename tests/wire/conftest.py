"""What the tests of the wire share: the protocol with readable ids, and the strictness of OpenAI's own SDK."""

import itertools
import json
from collections.abc import Callable
from typing import Any, get_args

import openai.types.realtime as sdk
import pytest
from openai._models import BaseModel

from relay.wire.realtime import RealtimeProtocol

SDK_SERVER_EVENTS: dict[str, type[BaseModel]] = {
    get_args(cls.model_fields["type"].annotation)[0]: cls for cls in get_args(get_args(sdk.RealtimeServerEvent)[0])
}


def extras(value: Any, path: str = "") -> set[str]:
    """Paths of the fields that the SDK's models do not have."""
    if isinstance(value, BaseModel):
        found = {f"{path}.{name}".lstrip(".") for name in value.model_extra or {}}
        for name in type(value).model_fields:
            found |= extras(getattr(value, name), f"{path}.{name}")
        return found
    if isinstance(value, list):
        return set().union(*(extras(part, path) for part in value)) if value else set()
    return set()


def parse_with_sdk(frame: str) -> BaseModel:
    """A server event read by the SDK's model of its type, strictly, with no field that the model does not have."""
    kind = json.loads(frame)["type"]
    assert kind in SDK_SERVER_EVENTS, kind
    event = SDK_SERVER_EVENTS[kind].model_validate_json(frame, strict=True)
    # Sessions are shown with `id` and `object`, as the SDK's RealtimeSessionCreateResponse has them.
    assert extras(event) <= {"session.id", "session.object"}, frame
    return event


@pytest.fixture(scope="session")
def sdk_parse() -> Callable[[str], BaseModel]:
    return parse_with_sdk


@pytest.fixture(scope="session")
def sdk_server_types() -> set[str]:
    return set(SDK_SERVER_EVENTS)


@pytest.fixture(scope="session")
def new_protocol() -> Callable[..., RealtimeProtocol]:
    """Makes protocols whose ids are event_1, item_2, ..."""

    def make(**kwargs: Any) -> RealtimeProtocol:
        counter = itertools.count(1)
        return RealtimeProtocol(**{"new_id": lambda prefix: f"{prefix}_{next(counter)}", **kwargs})

    return make


@pytest.fixture
def protocol(new_protocol: Callable[..., RealtimeProtocol]) -> RealtimeProtocol:
    return new_protocol()
