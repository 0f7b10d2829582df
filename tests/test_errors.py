from __future__ import annotations

import inspect

import pytest

from relay import errors
from relay.errors import BadEvent, BrainUnavailable, ConfigError, RelayError, StageFailed, UsageError, shown

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, RelayError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_a_row_of_its_own_or_of_a_parent(cls: type[RelayError]) -> None:
    error = (
        StageFailed("ears", "say it again")
        if cls is StageFailed
        else BrainUnavailable("start it")
        if cls is BrainUnavailable
        else cls("do this")
    )
    row = shown(error)
    assert row.type.endswith("_error")
    assert row.code
    assert row.close_code is None or 1000 <= row.close_code < 5000
    assert 400 <= row.http_status < 600
    assert row.exit_status in (1, 2)


def test_wrong_use_ends_with_two() -> None:
    assert shown(UsageError("")).exit_status == shown(ConfigError("")).exit_status == 2
    assert [name for name, row in errors.documented().items() if row.exit_status == 2] == ["UsageError"]


def test_an_error_that_nobody_raised_on_purpose() -> None:
    assert shown(ZeroDivisionError()).code == "internal_error"
    assert shown(KeyboardInterrupt()).code == "internal_error"


def test_the_nearest_ancestor_decides() -> None:
    class Special(BrainUnavailable):
        pass

    assert shown(Special("x")) == shown(BrainUnavailable("x")) != shown(StageFailed("brain", "x"))


def test_what_errors_carry() -> None:
    bad = BadEvent("no", code="unknown_event", param="type", event_id="e1")
    assert (str(bad), bad.code, bad.param, bad.event_id) == ("no", "unknown_event", "type", "e1")
    assert (BrainUnavailable("no").stage, StageFailed("voice", "no").stage) == ("brain", "voice")


def test_codes_tell_rows_apart() -> None:
    codes = [row.code for row in errors.documented().values()]
    assert len(set(codes)) == len(codes)


def test_errors_that_end_a_connection_have_a_close_code() -> None:
    assert {name for name, row in errors.documented().items() if row.close_code in (1008, 1009, 1013, 3000)} == {
        "FrameTooLarge",
        "AudioTooFast",
        "SlowReader",
        "Unauthorized",
        "TooManySessions",
    }
