"""Numbers in English words, American style (no `and`): the one number speller of the project. Words have no hyphens."""

from __future__ import annotations

from typing import Final

_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SIZES: Final = (
    (10**15, "quadrillion"),
    (10**12, "trillion"),
    (10**9, "billion"),
    (10**6, "million"),
    (1000, "thousand"),
    (100, "hundred"),
)
_ORDINALS: Final = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_DENOMINATORS: Final = {2: "half", 4: "quarter"}
_ROMAN: Final = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}

LARGEST: Final = 10**18 - 1
"""The largest number that is named; longer ones are read digit by digit."""


def cardinal(number: int) -> str:
    """12345 -> `twelve thousand three hundred forty five`. Raises ValueError beyond 0 to `LARGEST`."""
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{number} has no name here; 0 to {LARGEST} have")
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f" {_ONES[ones]}" if ones else "")
    size, name = next((size, name) for size, name in _SIZES if number >= size)
    head, rest = divmod(number, size)
    return f"{cardinal(head)} {name}" + (f" {cardinal(rest)}" if rest else "")


def ordinal(number: int) -> str:
    """23 -> `twenty third`."""
    head, _, last = cardinal(number).rpartition(" ")
    regular = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return f"{head} {_ORDINALS.get(last, regular)}".strip()


def year(number: int) -> str:
    """1984 -> `nineteen eighty four`, 2019 -> `twenty nineteen`, 2005 -> `two thousand five`. For 1000 to 9999."""
    century, rest = divmod(number, 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def decade(tens: int) -> str:
    """80 -> `eighties`, 0 -> `hundreds`: the plural of a round number of years below 100."""
    if tens == 0:
        return "hundreds"
    return "tens" if tens == 10 else cardinal(tens).removesuffix("y") + "ies"


def clock(hour: int, minute: int) -> str:
    """(7, 5) -> `seven oh five`; the full hour is the bare number."""
    if minute == 0:
        return cardinal(hour)
    return f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"


def digits(text: str) -> str:
    """Every ASCII digit on its own: `415-555` -> `four one five five five five`."""
    return " ".join(_ONES[int(c)] for c in text if "0" <= c <= "9")


def whole(text: str) -> str:
    """A written whole number: a name; digit by digit where it begins with 0 or is too long for a name."""
    if len(text) > 1 and text[0] == "0":
        return digits(text)
    number = int(text) if len(text) <= 18 else LARGEST + 1
    return cardinal(number) if number <= LARGEST else digits(text)


def decimal(text: str) -> str:
    """`3.14` -> `three point one four`, `.5` -> `point five`; no point: a whole number."""
    before, point, after = text.partition(".")
    said = whole(before) if before else ""
    return f"{said} point {digits(after)}".strip() if point and after else said


def fraction(over: int, under: int) -> str:
    """(3, 4) -> `three quarters`, (1, 2) -> `one half`, (2, 3) -> `two thirds`, (1, 21) -> `one twenty first`."""
    name = _DENOMINATORS.get(under) or ordinal(under)
    if over != 1:
        name = "halves" if name == "half" else name + "s"
    return f"{cardinal(over)} {name}"


def roman(text: str) -> int:
    """The value of a Roman numeral in capitals, 0 when it is none in its usual form (`IIX` is none)."""
    if not text or any(c not in _ROMAN for c in text):
        return 0
    values = [_ROMAN[c] for c in text]
    total = sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))
    return total if _roman_of(total) == text else 0


def _roman_of(number: int) -> str:
    written = ""
    for value, letters in (
        (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
        (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
    ):  # fmt: skip
        count, number = divmod(number, value)
        written += letters * count
    return written
