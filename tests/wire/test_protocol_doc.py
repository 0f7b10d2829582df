"""The tables of docs/protocol.md: every event of the API and of this server stands there, with the truth beside it."""

import re
from typing import get_args, get_type_hints

import openai.types.realtime as sdk
import pytest

from relay.wire.client_events import ERROR_CODES, AnyClientEvent
from relay.wire.server_events import AnyServerEvent
from tests.wire.protocol_doc import CLIENTS, ROOT, TEXT, clients_in, table


def names(union: object) -> set[str]:
    return {str(cls.__struct_config__.tag) for cls in get_args(union)}


def sdk_client_types() -> set[str]:
    return {get_args(get_type_hints(param)["type"])[0] for param in get_args(sdk.RealtimeClientEventParam)}


@pytest.mark.parametrize("side", ["Client", "Server"])
def test_every_event_has_its_row(side: str, sdk_server_types: set[str]) -> None:
    theirs, ours = (
        (sdk_client_types(), names(AnyClientEvent)) if side == "Client" else (sdk_server_types, names(AnyServerEvent))
    )
    rows = table(f"## {side} events")
    found = [row[0].strip("`") for row in rows]
    assert len(found) == len(set(found))
    assert set(found) == theirs | ours
    for name, (_, supported, _, clients) in zip(found, rows, strict=True):
        expected = ("yes" if name in theirs else "own") if name in ours else "no"
        assert supported == expected, name
        assert clients_in(clients) <= CLIENTS.keys(), name
        assert not (clients and expected == "no"), name


def test_the_clients_named_have_tests() -> None:
    for client, path in CLIENTS.items():
        assert (ROOT / path).is_file()
        assert f"`{client}`" in TEXT
        assert f"`{path}`" in TEXT


def test_every_error_code_has_its_row() -> None:
    assert {row[0].strip("`"): row[1] for row in table("## Errors")} == ERROR_CODES


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in TEXT.splitlines() if line.startswith("#")}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
