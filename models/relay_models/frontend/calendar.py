"""Times of day, dates, years and decades in their written forms -> spoken words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from relay_models.frontend.context import Around
from relay_models.frontend.numbers import cardinal, clock, decade, ordinal, year
from relay_models.frontend.tables import MONTH_NAMES, MONTHS, UNITS, word_set

Say = Callable[[re.Match[str], Around], str]
"""Spoken words, separated by blanks, of a written word that a pattern fits; empty: it is something else after all."""

YEAR: Final = re.compile(r"(?:1[1-9]|20)\d\d")
_DASH = r"(?:-|–|—)"
_TIME = re.compile(r"(\d{1,2})[:.h](\d\d)(?::(\d\d))?(?:([ap])\.?m\.?)?", re.I)
_HOUR = re.compile(r"(\d{1,2})([ap])\.?m\.?", re.I)
_TIMES_RANGE = re.compile(rf"(\d{{1,2}}(?::\d\d)?(?:[ap]m)?){_DASH}(\d{{1,2}}(?::\d\d)?(?:[ap]m)?)", re.I)
_ISO_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:T([\d:]+)(?:\.\d+)?(Z|[+-][\d:]+)?)?")
_DATE = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d\d)")
_SHORT_DATE = re.compile(r"(\d{1,2})/(\d{1,2})")
_DECADE = re.compile(r"'?(\d\d)?(\d0)'?s")

_YEAR_BEFORE: Final = word_set(
    """in since by from until till of year around during before after circa early late mid spring summer fall autumn
    winter between"""
)
_NO_THINGS: Final = word_set("was is as has its this us does plus versus vs across always perhaps towards years")
_PLURAL_THINGS: Final = word_set("people children men women feet miles more fewer other new different square")
_DATE_BEFORE: Final = word_set("on by since until from before after due dated")


def month_of(word: str) -> str:
    """The month that a written word names, else an empty string."""
    lower = word.lower()
    return lower if lower in MONTH_NAMES else MONTHS.get(lower, "") if word[:1].isupper() else ""


def is_year(number: int, around: Around) -> bool:
    """Whether a bare number of four digits is a year where it stands."""
    earlier = around.previous().lower()
    if earlier in _YEAR_BEFORE or month_of(around.previous()):
        return True
    follower = around.follower()
    things = follower.endswith("s") and follower.islower() and follower not in _NO_THINGS
    if things or follower in _PLURAL_THINGS or follower in UNITS or (number == 2000 and not earlier):
        return False
    return number % 1000 != 0 or number == 2000


def _time(found: re.Match[str], around: Around) -> str:
    hour, minute = int(found[1]), int(found[2])
    if hour > 24 or minute > 59 or (":" not in found[0] and not found[4] and "h" not in found[0]):
        return ""
    half = f" {found[4].upper()}M" if found[4] else ""
    if hour == minute == 0 and not found[3]:
        return "midnight"
    seconds = f" and {cardinal(int(found[3]))} seconds" if found[3] else ""
    if minute == 0 and not half and not seconds:
        follower = around.follower().lower().replace(".", "")
        if follower in ("am", "pm"):
            return cardinal(hour)
        return f"{cardinal(hour)} o'clock" if hour <= 12 else f"{cardinal(hour)} hundred"
    return clock(hour, minute) + seconds + half


def _hour(found: re.Match[str], around: Around) -> str:
    return f"{cardinal(int(found[1]))} {found[2].upper()}M"


def _times_range(found: re.Match[str], around: Around) -> str:
    if ":" not in found[0] and "m" not in found[0].lower():
        return ""
    said = []
    for part in (found[1], found[2]):
        whole_part = _TIME.fullmatch(part)
        hour_part = _HOUR.fullmatch(part)
        if whole_part:
            said.append(_time(whole_part, around).removesuffix(" o'clock"))
        else:
            said.append(_hour(hour_part, around) if hour_part else cardinal(int(part)))
    return " to ".join(said)


def _calendar(month: int, day: int, when: int | None) -> str:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return ""
    said = f"{MONTH_NAMES[month - 1]} {ordinal(day)}"
    return said if when is None else f"{said} {year(when)}" if when >= 1000 else f"{said} {cardinal(when)}"


def _iso_date(found: re.Match[str], around: Around) -> str:
    said = _calendar(int(found[2]), int(found[3]), int(found[1]))
    moment = _TIME.fullmatch(found[4]) if found[4] else None
    if said and moment:
        said += " at " + _time(moment, around)
        said += " UTC" if found[5] == "Z" else ""
    return said


def _date(found: re.Match[str], around: Around) -> str:
    first, second = int(found[1]), int(found[3])
    when = int(found[4]) if len(found[4]) == 4 else 2000 + int(found[4]) if int(found[4]) < 70 else 1900 + int(found[4])
    if found[2] == "." or first > 12:
        first, second = second, first
    return _calendar(first, second, when)


def _short_date(found: re.Match[str], around: Around) -> str:
    if around.previous().lower() not in _DATE_BEFORE:
        return ""
    return _calendar(int(found[1]), int(found[2]), None)


def _decade(found: re.Match[str], around: Around) -> str:
    if not found[1]:
        return decade(int(found[2]))
    century = int(found[1])
    if found[2] == "00":
        return f"{cardinal(century // 10)} thousands" if century % 10 == 0 else f"{cardinal(century)} hundreds"
    return f"{cardinal(century)} {decade(int(found[2]))}"


CALENDAR: Final[tuple[tuple[re.Pattern[str], Say], ...]] = (
    (_ISO_DATE, _iso_date),
    (_DATE, _date),
    (_TIME, _time),
    (_HOUR, _hour),
    (_TIMES_RANGE, _times_range),
    (_DECADE, _decade),
    (_SHORT_DATE, _short_date),
)
