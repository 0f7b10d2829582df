"""Written words with digits in them -> spoken words: money, dates, times, measures, ranges, telephone numbers."""

from __future__ import annotations

import re
from typing import Final

from relay_models.frontend.calendar import CALENDAR, YEAR, Say, is_year, month_of
from relay_models.frontend.context import Around
from relay_models.frontend.numbers import LARGEST, cardinal, decimal, digits, fraction, ordinal, whole, year
from relay_models.frontend.tables import (
    CURRENCIES,
    IRREGULAR_PLURALS,
    SCALES,
    SYMBOLS,
    UNITS,
    VERSIONED,
    word_set,
)

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_CURRENCY = "|".join(re.escape(sign) for sign in sorted(CURRENCIES, key=len, reverse=True))
_SCALE = "|".join(sorted(SCALES, key=len, reverse=True))
_DASH = r"(?:-|–|—)"

PLAIN: Final = re.compile(_NUMBER)
AMOUNT: Final = re.compile(rf"(?:[~<>≤≥±+-])?(?:{_NUMBER})(?:{_DASH}(?:{_NUMBER}))?")
"""A number or a range of numbers: what may stand before a unit."""
_SIGNED = re.compile(r"(<=|>=|[~≈<>≤≥±+#–-])(?=[\d.$€£¥])(.+)")
_SIGNS: Final = {
    "~": "about", "≈": "about", "<": "less than", ">": "more than", "≤": "at most", "≥": "at least", "±":
    "plus or minus", "+": "plus", "-": "minus", "–": "minus", "#": "number", "<=": "at most", ">=": "at least",
}  # fmt: skip
_RATIO = re.compile(r"(\d+):(\d+)")
_PHONE = re.compile(
    r"(?:\+?(\d{1,3})[-. ]?)?\(?(\d{3})\)?[-.](\d{3})[-.](\d{4})|(\d{3})-(\d{4})|(\d{3})-(\d\d)-(\d{4})"
)
_PHONE_START = re.compile(r"\+\d{1,3}|\(\d{3}\)")
_DIGIT_GROUPS = re.compile(r"\d+(?:-\d+){2,}")
_DOTTED = re.compile(r"\d+(?:\.\d+){2,}")
_VERSION = re.compile(r"[vV](\d+(?:\.\d+)*)")
_ORDINAL = re.compile(r"(\d{1,3}(?:,\d{3})*|\d{1,15})(?:st|nd|rd|th)", re.I)
_NUMBER_S = re.compile(rf"({_NUMBER})'?s")
_PER = re.compile(rf"(.*\d\w?)/([A-Za-z]+)|((?:{_CURRENCY}).*\d\w?)/(\d\w*)")
_FRACTION = re.compile(r"(\d+)/(\d+)(?:th|rd|nd|st|s|ths)?")
_MONEY = re.compile(rf"({_CURRENCY})(-?)({_NUMBER})({_SCALE})?(\+?)", re.I)
_MONEY_RANGE = re.compile(rf"({_CURRENCY})({_NUMBER})({_SCALE})?{_DASH}(?:{_CURRENCY})?({_NUMBER})({_SCALE})?", re.I)
_MONEY_AFTER = re.compile(rf"({_NUMBER})({_CURRENCY})", re.I)
_RANGE = re.compile(rf"({_NUMBER}){_DASH}({_NUMBER})(\D*)")
_MEASURE = re.compile(rf"({_NUMBER})-?(\D+)")
_SCALED = re.compile(rf"({_NUMBER})([kK]|M|B|bn|mn)(\+?)")
_BY = re.compile(r"(\d+)[x×](\d+)(?:[x×](\d+))?")
_FEET = re.compile(r"(\d+)'(\d+)?\"?")
_POWER = re.compile(rf"({_NUMBER}|[a-z])(?:\^[({{]?(-?\d+)[)}}]?|([²³]))", re.I)
_SCIENTIFIC = re.compile(rf"({_NUMBER})e([+-]?)(\d+)", re.I)
_HEXADECIMAL = re.compile(r"0x([0-9a-f]+)", re.I)
_BIT_OF_SUM = re.compile(rf"{_NUMBER}|[A-Za-z]+|[²³]|[^\sA-Za-z\d]")
_SUM = re.compile(r"[\dA-Za-z.,()²³]+(?:(?:==|!=|<=|>=|[-+*/=×÷^<>≤≥≈–])[\dA-Za-z.,()²³]+)+")
_SUM_SIGNS: Final = SYMBOLS | {"-": "minus", "–": "minus", "*": "times", "/": "over", "^": "to the power of"}

_FRACTION_ENDINGS: Final = word_set("th rd nd st ths")
_OPERATORS: Final = word_set("+ - − – * / = == < > ≤ ≥")
_ABOUT: Final = word_set("about around roughly approximately nearly")


def unit_words(written: str, *, one: bool) -> list[str]:
    """A unit in full: `km/h` -> kilometers per hour. Empty when it is none."""
    power = ""
    if written[-1:] in "²³" and written[:-1] in UNITS:
        written, power = written[:-1], {"²": "square", "³": "cubic"}[written[-1]]
    if written in UNITS:
        name = UNITS[written] if one else plural(UNITS[written])
        return [power, *name.split()] if power else name.split()
    over, slash, under = written.partition("/")
    if slash and over in UNITS and under.rstrip("²") in UNITS:
        squared = ["squared"] if under.endswith("²") else []
        return [*unit_words(over, one=one), "per", *UNITS[under.rstrip("²")].split(), *squared]
    return []


def plural(unit: str) -> str:
    """More than one of a unit: `degree celsius` -> degrees celsius, `mile per hour` -> miles per hour."""
    head, per, rest = unit.partition(" per ")
    words = head.split()
    at = 0 if words[0] == "degree" else len(words) - 1
    words[at] = IRREGULAR_PLURALS.get(words[at]) or words[at] + "s"
    return " ".join(words) + per + rest


def read_digits(core: str, around: Around) -> tuple[list[str], int] | None:
    """Spoken words of a written word that holds digits, and how many written words that took; None: no rule fits.

    Raises:
        NotYet: It depends on words that have not come.
    """
    phone = _telephone(core, around)
    if phone:
        return phone, 1
    if PLAIN.fullmatch(core):
        return _plain(core, around)
    sign = _SIGNED.fullmatch(core)
    if sign:
        rest = read_digits(sign[2], around)
        said_before = _SIGNS[sign[1]] == "about" and around.previous().lower() in _ABOUT
        return ([*([] if said_before else _SIGNS[sign[1]].split()), *rest[0]], rest[1]) if rest else None
    per = _PER.fullmatch(core)
    if per and per[2] not in _FRACTION_ENDINGS:
        rest, thing = read_digits(per[1] or per[3], around), read_digits(per[4], around) if per[4] else None
        name = thing[0] if thing else UNITS.get(per[2] or "", per[2] or "").lower().split()
        return ([*rest[0], "per", *name], rest[1]) if rest else None
    money = _MONEY.fullmatch(core)
    if money:
        return _money(money, around)
    for pattern, say in _READERS:
        found = pattern.fullmatch(core)
        said = say(found, around) if found else None
        if said:
            return said.split(), 1
    return None


def number_words(text: str) -> str:
    """A plain number with or without commas and decimals."""
    return decimal(text.replace(",", ""))


def _telephone(core: str, around: Around) -> list[str]:
    """Digits one by one where a telephone number begins or goes on."""
    bare = re.fullmatch(r"\d{2,4}(?:[-.]\d{2,4})*", core)
    if bare and len(around.before) > 0:
        earlier = around.previous()
        run = [around.previous(n) for n in (1, 2, 3, 4)]
        if earlier and any(
            _PHONE_START.fullmatch(word) and all(re.fullmatch(r"[\d.-]+", between) for between in run[:n])
            for n, word in enumerate(run)
        ):
            return digits(core).split()
    if re.fullmatch(r"\+\d{1,3}", core) and re.fullmatch(r"\(?\d{2,4}\)?(?:[-.]\d{2,4})*", around.follower()):
        return ["plus", *digits(core).split()]
    if re.fullmatch(r"\(\d{3}\)", core):
        return digits(core).split()
    if core == "1" and re.fullmatch(r"\d{3}-\d{3}-\d{4}", around.follower()):
        return ["one"]
    return []


def _plain(core: str, around: Around) -> tuple[list[str], int]:
    """A bare number: a day after a month, a year, or just a number."""
    text = core.replace(",", "")
    if "." in text:
        versioned = around.previous().lower() in VERSIONED and not text.startswith(".")
        return " point ".join(whole(part) for part in text.split(".")).split() if versioned else decimal(
            text
        ).split(), 1
    number = int(text) if len(text) < 19 else -1
    earlier = around.previous()
    if 1 <= number <= 31 and len(text) <= 2 and earlier and month_of(earlier) and earlier.lower() != "may":
        return ordinal(number).split(), 1
    if 1 <= number <= 31 and earlier == "May" and not around.follower().islower():
        return ordinal(number).split(), 1
    if 1 <= number <= 31 and len(text) <= 2 and not text.startswith("0"):
        month = month_of(around.follower())
        if month and around.follower()[0].isupper() and (month != "may" or around.follower() == "May"):
            article = [] if earlier.lower() in ("the", "of") else ["the"]
            return [*article, *ordinal(number).split(), "of", month], 2
    if len(text) == 4 and "," not in core and 1100 <= number < 2100 and is_year(number, around):
        return year(number).split(), 1
    return (digits(text) if len(text) > 12 and "," not in core else whole(text)).split(), 1


def _money(found: re.Match[str], around: Around) -> tuple[list[str], int]:
    names = CURRENCIES[found[1].lower()]
    amount = found[3].replace(",", "")
    minus = "minus " if found[2] else ""
    more = " plus" if found[5] else ""
    scale, taken = SCALES.get((found[4] or "").lower(), ""), 1
    if not scale:
        follower = around.follower()
        if follower.lower() in SCALES and (len(follower) > 2 or follower in ("M", "B", "bn", "tn", "K")):
            scale, taken = SCALES[follower.lower()], 2
    before, _, after = amount.partition(".")
    if scale:
        said = f"{decimal(amount)} {scale} {names[1]}"
    elif len(after) == 2 and names[2]:
        said = _with_cents(before or "0", int(after), names)
    else:
        said = f"{decimal(amount)} {names[0] if amount == '1' else names[1]}"
    return f"{minus}{said}{more}".split(), taken


def _with_cents(before: str, cents: int, names: tuple[str, str, str, str]) -> str:
    units = f"{whole(before)} {names[0] if before == '1' else names[1]}"
    small = f"{cardinal(cents)} {names[2] if cents == 1 else names[3]}"
    if cents == 0:
        return units
    return small if int(before) == 0 else f"{units} and {small}"


def _money_range(found: re.Match[str], around: Around) -> str:
    names = CURRENCIES[found[1].lower()]
    low, high = SCALES.get((found[3] or "").lower(), ""), SCALES.get((found[5] or "").lower(), "")
    if not high and around.follower().lower() in ("thousand", "million", "billion", "trillion"):
        return f"{number_words(found[2])} to {number_words(found[4])}"
    return f"{number_words(found[2])} {low} to {number_words(found[4])} {high} {names[1]}"


def _money_after(found: re.Match[str], around: Around) -> str:
    names = CURRENCIES[found[2].lower()]
    before, _, after = found[1].replace(",", "").partition(".")
    if len(after) == 2 and names[2]:
        return _with_cents(before or "0", int(after), names)
    return f"{number_words(found[1])} {names[0] if found[1] == '1' else names[1]}"


def _ratio(found: re.Match[str], around: Around) -> str:
    return f"{whole(found[1])} to {whole(found[2])}"


def _phone(found: re.Match[str], around: Around) -> str:
    return digits(found[0])


def _digit_groups(found: re.Match[str], around: Around) -> str:
    return digits(found[0])


def _dotted(found: re.Match[str], around: Around) -> str:
    parts = found[0].split(".")
    return (" dot " if len(parts) == 4 else " point ").join(whole(part) for part in parts)


def _version(found: re.Match[str], around: Around) -> str:
    return "version " + " point ".join(whole(part) for part in found[1].split("."))


def _ordinal(found: re.Match[str], around: Around) -> str:
    number = int(found[1].replace(",", ""))
    return ordinal(number) if number <= LARGEST else ""


def _number_s(found: re.Match[str], around: Around) -> str:
    return (year(int(found[1])) if YEAR.fullmatch(found[1]) else number_words(found[1])) + "'s"


def _fraction(found: re.Match[str], around: Around) -> str:
    over, under = int(found[1][:15]), int(found[2][:15])
    if YEAR.fullmatch(found[1]) and len(found[2]) == 2:
        return f"{year(over)} {cardinal(under)}"
    mixed = PLAIN.fullmatch(around.previous()) and around.previous().isdigit() and over < under
    begin = "and " if mixed else ""
    if 0 < over < 100 and 2 <= under <= 100 and (under <= 10 or under in (12, 16, 20, 24, 25, 32, 50, 64, 100)):
        if mixed and over == 1:
            return f"{begin}{'a half' if under == 2 else fraction(over, under).replace('one ', 'a ', 1)}"
        if over < under or under in (2, 3, 4, 8):
            return begin + fraction(over, under)
    return f"{whole(found[1])} over {whole(found[2])}"


def _range(found: re.Match[str], around: Around) -> str:
    unit = found[3].lstrip(" -")
    if unit and not unit_words(unit, one=False):
        scale = SCALES.get(unit.lower(), "")
        return f"{number_words(found[1])} to {number_words(found[2])} {scale}" if scale else ""
    said = []
    for text in (found[1], found[2]):
        dated = YEAR.fullmatch(text) and not unit
        said.append(year(int(text)) if dated else number_words(text))
    if re.fullmatch(r"\d{4}", found[1]) and re.fullmatch(r"\d\d", found[2]):
        return f"{year(int(found[1])) if found[1] >= '1000' else said[0]} to {said[1]}"
    return " ".join([said[0], "to", said[1], *unit_words(unit, one=False)])


def _measure(found: re.Match[str], around: Around) -> str:
    said = number_words(found[1])
    hyphen = found[0][len(found[1])] == "-"
    if found[2] in "xX" and {around.previous(), around.follower()} & _OPERATORS:
        return f"{said} X"  # 2x + 1, but 3x faster
    unit = unit_words(found[2].removesuffix("."), one=found[1] == "1" or hyphen)
    return " ".join([said, *unit]) if unit else ""


def _scaled(found: re.Match[str], around: Around) -> str:
    if found[2] == "K" and len(found[1]) == 1:
        return f"{number_words(found[1])} K"  # 4K screens, 5K runs
    return f"{number_words(found[1])} {SCALES[found[2].lower()]}{' plus' if found[3] else ''}"


def _by(found: re.Match[str], around: Around) -> str:
    return " by ".join(whole(part) for part in found.groups() if part)


def _feet(found: re.Match[str], around: Around) -> str:
    feet = "foot" if found[1] == "1" or found[2] else "feet"
    return f"{whole(found[1])} {feet} {whole(found[2]) if found[2] else ''}"


def _power(found: re.Match[str], around: Around) -> str:
    base = number_words(found[1]) if found[1][-1].isdigit() else found[1].upper()
    exponent = found[2] or str("²³".index(found[3]) + 2)
    if exponent in ("2", "3"):
        return f"{base} {'squared' if exponent == '2' else 'cubed'}"
    return f"{base} to the power of {'minus ' if exponent[0] == '-' else ''}{whole(exponent.lstrip('-'))}"


def _scientific(found: re.Match[str], around: Around) -> str:
    sign = "minus " if found[2] == "-" else ""
    return f"{number_words(found[1])} times ten to the {sign}{whole(found[3])}"


def _hexadecimal(found: re.Match[str], around: Around) -> str:
    return "zero X " + " ".join(digits(c) if c.isdigit() else c.upper() for c in found[1])


def _sum(found: re.Match[str], around: Around) -> str:
    if not re.search(r"[\d²³]", found[0]) or re.search(r"[A-Za-z]{4,}|[A-Za-z]-|-[A-Za-z]|[A-Za-z]/", found[0]):
        return ""
    said = []
    for bit in _BIT_OF_SUM.findall(found[0].replace("==", "=")):
        if bit[0] in "0123456789.":
            said.append(number_words(bit) if PLAIN.fullmatch(bit) else "")
        else:
            said.append(_SUM_SIGNS.get(bit) or (" ".join(bit.upper()) if len(bit) < 3 else bit.lower()))
    return " ".join(word for word in said if any(c.isalpha() for c in word))


_READERS: Final[tuple[tuple[re.Pattern[str], Say], ...]] = (
    *CALENDAR,
    (_RATIO, _ratio),
    (_PHONE, _phone),
    (_DIGIT_GROUPS, _digit_groups),
    (_DOTTED, _dotted),
    (_VERSION, _version),
    (_ORDINAL, _ordinal),
    (_NUMBER_S, _number_s),
    (_FRACTION, _fraction),
    (_MONEY_RANGE, _money_range),
    (_MONEY_AFTER, _money_after),
    (_RANGE, _range),
    (_FEET, _feet),
    (_BY, _by),
    (_SCALED, _scaled),
    (_MEASURE, _measure),
    (_POWER, _power),
    (_SCIENTIFIC, _scientific),
    (_HEXADECIMAL, _hexadecimal),
    (_SUM, _sum),
)
