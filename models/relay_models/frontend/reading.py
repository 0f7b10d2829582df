"""Written words -> spoken words: abbreviations, acronyms, compound words, other scripts.

Rules of thumb for American English, for text as language models write it. What no rule knows is read as it is spelled;
nothing raises. Taylor 2009, "Text-to-Speech Synthesis", chapters 4 and 5, describes the problems.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from anyascii import anyascii

from relay_models.frontend.addresses import Addresses
from relay_models.frontend.calendar import YEAR, month_of
from relay_models.frontend.context import Around, Reading
from relay_models.frontend.numbers import cardinal, digits, ordinal, roman, whole, year
from relay_models.frontend.numeric import AMOUNT, PLAIN, number_words, read_digits, unit_words
from relay_models.frontend.tables import (
    ABBREVIATIONS,
    ALONE_UNITS,
    CURRENCIES,
    CURRENCY_CODES,
    ENDS_OR_NOT,
    GREEK,
    KINGS,
    LETTERED,
    NO_FULL_STOP,
    NUMBERED,
    SPELLED,
    SPOKEN,
    STATES,
    SYMBOLS,
    TITLES,
    UNITS,
    WEEKDAYS,
    word_set,
)
from relay_models.frontend.written import Written
from relay_models.phonemes import COMMA, PERIOD

_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?")
_DOTTED_LETTERS = re.compile(r"[A-Za-z](?:\.[A-Za-z])+")
_FROM_TO = re.compile(r"([A-Z][a-z]+)\.?[-–]([A-Z][a-z]+)\.?")
_RATE = re.compile(r"([A-Za-z]+)/([A-Za-z]+)")
_RUNS = re.compile(r"[A-Z]+(?![a-z])(?:s(?![a-z]))?|[A-Z]?[a-z]+(?:'[a-z]+)?|[A-Z]+|\d+|[^\sA-Za-z\d]")
_NUMBER_RUN = re.compile(r"\d+")
_IRISH = re.compile(r"[OD]'[A-Z]")
_CAPITALS = re.compile(r"([A-Z]{2,})('?s)?")
_LONE_GREEK = re.compile(f"(?<![\u0370-\u03ff\u1f00-\u1fff])[{''.join(GREEK)}](?![\u0370-\u03ff\u1f00-\u1fff])", re.I)
_VOWEL = re.compile(r"[aeiouy]", re.I)
_NAMED_SIGNS: Final = {"+": "plus", "&": "and", "@": "at", "%": "percent", "=": "equals", "°": "degrees", "×": "by"}
_NEEDS_NUMBER: Final = word_set("fig figs vol ch sec eq para apt p pp no nos ref ca b d c")
_WORDS_TOO: Final = word_set("al v ed co min max sec sq temp est ch")
_PAGES: Final = {"p": "page", "pp": "pages", "no": "number", "b": "born", "d": "died", "c": "circa"}
_STREETS: Final = {"st": "street", "dr": "drive"}
_STREET_TITLES: Final = {"st": "saint", "dr": "doctor"}
_TIMES_OF_RATES: Final = word_set("s sec min h hr hour day week wk month mo year yr person user item")
_SAINTLY: Final = word_set("mount fort port the visit lake mt")


class Reader:
    """Reads written words. It keeps no state.

    Args:
        knows: Whether a word in lower case is in the pronunciation dictionary.
    """

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self._addresses = Addresses(self._pieces)

    def read(self, around: Around) -> Reading:
        """Says the first word of `around`, together with the next one where they belong together.

        Raises:
            NotYet: It depends on a word that has not come.
        """
        here = around.words[0]
        core = here.core
        if not core:
            return Reading((), here.pause)
        if here.full_stop:
            said = self._abbreviation(core, around)
            if said is not None:
                words, ends = said
                return Reading(tuple(words), here.pause if ends or here.pause != PERIOD else "")
        words, taken = self._words(core, around)
        last = around.words[taken - 1]
        return Reading(tuple(words), last.pause, taken)

    def _words(self, core: str, around: Around) -> tuple[list[str], int]:
        if _WORD.fullmatch(core):
            return self._letters(core, around)
        fixed = NO_FULL_STOP.get(core.lower())
        if fixed is not None:
            return fixed.split(), 1
        if core in SYMBOLS:
            return self._symbol(core, around), 1
        if core[0] not in "0123456789" and AMOUNT.fullmatch(around.previous()):
            unit = unit_words(core, one=_is_one(around.previous()))
            if unit:
                return unit, 1
        if any(c in "0123456789²³" for c in core):
            said = read_digits(core, around)
            if said:
                return said
        return self._odd(core, around), 1

    def _odd(self, core: str, around: Around) -> list[str]:
        """A written word of letters mixed with signs or digits that is no number."""
        if core in ALONE_UNITS:
            return unit_words(core, one=False)
        days = _from_to(core)
        if days:
            return days
        address = self._addresses.read(core)
        if address is not None:
            return address
        if _DOTTED_LETTERS.fullmatch(core):
            return [core.replace(".", "").upper()]
        if not core.isascii():
            return self._foreign(core, around)
        rate = _RATE.fullmatch(core)
        if rate and rate[2] in _TIMES_OF_RATES:
            return [*self._run(rate[1]), "per", *UNITS.get(rate[2], rate[2]).split()]
        parts = [part for part in re.split("[-–—]", core) if part]
        if len(parts) > 1 and any(c in "0123456789" for c in core):
            return [word for part in parts for word in self._part(part)]
        return self._pieces(core)

    def _part(self, part: str) -> list[str]:
        """Part of a compound, read as if it stood alone."""
        alone = Around((Written(part, 0, len(part)),), (), ended=True)
        return self._words(part, alone)[0] if part[0] in "0123456789" else self._pieces(part)

    # Words of letters

    def _letters(self, core: str, around: Around) -> tuple[list[str], int]:
        lower = core.lower()
        earlier = around.previous()
        if len(core) == 1:
            return self._letter(core, around), 1
        if earlier and AMOUNT.fullmatch(earlier):
            unit = unit_words(core, one=_is_one(earlier)) if core not in ("in", "I", "a") else []
            if unit and not (core == "MM" or (core == "m" and around.follower() == "dash")):
                return unit, 1
            if lower in CURRENCY_CODES and core.isupper():
                return CURRENCY_CODES[lower][0 if _is_one(earlier) else 1].split(), 1
            if lower in ("am", "pm"):
                return [core.upper()], 1
        elif lower in ("am", "pm") and core.isupper():
            return [core], 1
        if lower in _STREETS and core.istitle() and (lower == "st" or earlier):
            return self._street(lower, around)[0], 1
        town = around.before[-1] if core in STATES and around.before else None
        if town and town.pause == COMMA and town.core[:1].isupper():
            return STATES[core].split(), 1
        if core in ALONE_UNITS and not self._knows(lower):
            return unit_words(core, one=False), 1
        fixed = NO_FULL_STOP.get(lower)
        if fixed is not None:
            return fixed.split(), 1
        if core[0].isupper():
            value = self._roman(core, around)
            if value:
                return value, 1
            amount = around.follower() if lower in CURRENCY_CODES and core.isupper() else ""
            if PLAIN.fullmatch(amount):
                name = CURRENCY_CODES[lower][0 if _is_one(amount) else 1]
                return [*number_words(amount).split(), *name.split()], 2
            month = month_of(core)
            if month and month != lower and (around.previous()[-1:].isdigit() or around.follower()[:1].isdigit()):
                return [month], 1
        return self._run(core, earlier), 1

    def _letter(self, core: str, around: Around) -> list[str]:
        """A single letter: article, pronoun, unit after a number, or its own name."""
        earlier = around.previous()
        if earlier and AMOUNT.fullmatch(earlier) and core not in ("I", "a", "x", "X"):
            unit = unit_words(core, one=_is_one(earlier))
            if unit:
                return unit
        if core in "xX" and earlier[-1:].isdigit() and around.follower()[:1].isdigit():
            return ["by"]
        if core in "IVX" and earlier.lower() in NUMBERED | KINGS and earlier[:1].isupper():
            value = roman(core)
            king = earlier.lower() in KINGS - NUMBERED
            return ["the", *ordinal(value).split()] if king else cardinal(value).split()
        if core == "I":
            return ["i"]
        if core == "a" or (core == "A" and around.first):
            return ["a"]
        return [core.upper()]

    def _roman(self, core: str, around: Around) -> list[str]:
        earlier = around.previous()
        if not earlier[:1].isupper() or not core.isupper():
            return []
        value = roman(core)
        if not value:
            return []
        if earlier.lower() in KINGS and value < 40:
            return ["the", *ordinal(value).split()]
        if earlier.lower() in NUMBERED or (value < 40 and not set(core) - set("IVX")):
            return cardinal(value).split()
        return []

    def _run(self, run: str, earlier: str = "") -> list[str]:
        """A run of letters, maybe with an apostrophe: a word, an acronym, or words written together."""
        lower = run.lower()
        if len(run) == 1:
            return [run.upper()]
        if run.islower() or (run[1:].islower() and len(run) > 1):
            bare = lower.strip("'")
            silent = len(bare) <= 4 and not _VOWEL.search(bare) and "'" not in bare and not self._knows(bare)
            return [bare.upper() if silent else lower.rstrip("'")]
        capitals = _CAPITALS.fullmatch(run)
        if capitals:
            return self._capitals(capitals[1], capitals[2] or "", earlier)
        if self._knows(lower):
            return [lower]
        if _IRISH.match(run):
            return [lower]
        parts = [found for found in _RUNS.findall(run) if found[0].isalpha()]
        if len(parts) < 2:
            return [lower.replace("'", "")] if parts else []
        if parts[0] in ("Mc", "Mac", "De", "Di", "La", "Le", "Van", "O", "D", "Fitz") and len(parts) == 2:
            return [lower]
        return [word for part in parts for word in self._run(part)]

    def _capitals(self, letters: str, ending: str, earlier: str) -> list[str]:
        """A word in capitals, perhaps with a small plural: spelled or spoken."""
        lower = letters.lower()
        shouted = len(earlier) > 1 and earlier.isupper() and self._knows(earlier.lower()) and earlier not in SPELLED
        known = self._knows(lower)
        spoken = letters in SPOKEN or (known and (letters not in SPELLED or shouted))
        if spoken or (len(letters) > 4 and letters not in SPELLED and _VOWEL.search(letters)):
            return [lower + ("'s" if ending and not lower.endswith("s") else "")]
        if not ending and letters.endswith("S") and letters[:-1] in SPELLED and letters not in SPELLED:
            return [letters[:-1] + "'s"]
        return [letters + ("'s" if ending else "")]

    # Words with full stops

    def _abbreviation(self, core: str, around: Around) -> tuple[list[str], bool] | None:
        """What an abbreviation stands for and whether its full stop ends a sentence; None: it is none."""
        lower = core.lower()
        here = around.words[0]
        if lower in _STREETS and core[0].isupper():
            return self._street(lower, around)
        if lower in TITLES and core[0].isupper() and not here.line_end:
            return TITLES[lower].split(), False
        month = month_of(core)
        if month and month != lower:
            return [month], here.line_end
        if lower in WEEKDAYS and core[0].isupper() and (lower not in ("sat", "sun") or around.previous() == "on"):
            return [WEEKDAYS[lower]], here.line_end
        days = _from_to(core)
        if days:
            return days, self._ends(around)
        if lower in _NEEDS_NUMBER:
            coming = None if here.line_end else around.ahead(1)
            if coming is None or not (coming.core[:1].isdigit() or roman(coming.core)):
                return None
            return (_PAGES.get(lower) or ABBREVIATIONS[lower]).split(), False
        if len(core) == 1 and core.isupper():
            return self._initial(core, around)
        if AMOUNT.fullmatch(around.previous()):
            unit = unit_words(core, one=_is_one(around.previous()))
            if unit:
                return unit, self._ends(around)
        fixed = NO_FULL_STOP.get(lower) if "." in core else None
        if fixed is not None:
            return fixed.split(), here.line_end or (lower == "ph.d" and self._ends(around))
        if _DOTTED_LETTERS.fullmatch(core):
            return [core.replace(".", "").upper()], self._ends(around)
        time = re.fullmatch(r"\d{1,2}(?::\d\d)?[ap]\.m", core, re.I)
        if time:
            said = read_digits(core, around)
            return (said[0], self._ends(around)) if said else None
        if lower in _WORDS_TOO and not self._abbreviates(lower, around):
            return None
        if lower in ABBREVIATIONS:
            return ABBREVIATIONS[lower].split(), self._ends(around) if lower in ENDS_OR_NOT else here.line_end
        return None

    def _abbreviates(self, lower: str, around: Around) -> bool:
        """Whether a short form that is a word, too, is short here: `et al.`, `Foo & Co.`, `2nd ed.`."""
        earlier = around.previous()
        if lower == "al":
            return earlier.lower() == "et"
        if lower == "ed":
            return earlier[:1].isdigit()
        if lower in ("co", "v"):
            return earlier[:1].isupper() or earlier == "&"
        coming = around.ahead(1)
        return coming is not None and (coming.core[:1].isdigit() or lower == "sq")

    def _street(self, lower: str, around: Around) -> tuple[list[str], bool]:
        """`St.` and `Dr.`: before a name, or after one."""
        coming = None if around.words[0].line_end or around.words[0].pause not in ("", PERIOD) else around.ahead(1)
        named = coming is not None and coming.core[:1].isupper()
        earlier = around.previous()
        after_name = earlier[:1].isupper() and earlier.lower() not in _SAINTLY and not self._begins(around)
        if not after_name and (named or lower == "dr"):
            return [_STREET_TITLES[lower]], around.words[0].line_end
        return [_STREETS[lower]], self._ends(around)

    @staticmethod
    def _begins(around: Around) -> bool:
        """Whether the word before stands at the beginning of a sentence, where its capital says nothing."""
        return len(around.before) < 2 or around.before[-2].pause in (".", "?", "!")

    @staticmethod
    def _ends(around: Around) -> bool:
        """Whether the full stop of an abbreviation ends the sentence, too."""
        if around.words[0].line_end:
            return True
        coming = around.ahead(1)
        return coming is None or coming.core[:1].isupper()

    def _initial(self, core: str, around: Around) -> tuple[list[str], bool] | None:
        earlier = around.previous()
        if around.words[0].line_end or earlier.lower() in LETTERED:
            return None
        coming = around.ahead(1)
        if coming is None or not coming.core[:1].isupper() or (core == "I" and not earlier[:1].isupper()):
            return None
        return [core], False

    def _symbol(self, core: str, around: Around) -> list[str]:
        if core in ("<", ">") and not (around.before and around.follower()):
            return []
        if core in ("×", "*") and around.previous()[-1:].isdigit():
            return ["times"]
        if core in CURRENCIES and AMOUNT.fullmatch(around.previous()):
            return CURRENCIES[core][0 if _is_one(around.previous()) else 1].split()
        return SYMBOLS[core].split()

    # Everything else

    def _foreign(self, core: str, around: Around) -> list[str]:
        """Letters beyond ASCII: Greek letters by name, everything else by its Latin transliteration."""
        if self._knows(core.lower()):
            return [core.lower()]
        named = _LONE_GREEK.sub(lambda letter: f" {GREEK[letter[0].lower()]} ", core)
        if named != core:
            return [word for part in named.replace("-", " ").split() for word in self._words(part, around)[0]]
        latin = anyascii(core)
        if _is_latin(core) and latin:
            return self._words(latin, around)[0]
        return self._pieces(latin)

    def _pieces(self, text: str) -> list[str]:
        """Letters, numbers and signs of a written word one by one: the reading of last resort."""
        said: list[str] = []
        runs: list[str] = _RUNS.findall(text)
        for at, run in enumerate(runs):
            if run[0].isalpha():
                numbered = len(run) < 4 and run.isupper() and at + 1 < len(runs) and runs[at + 1][0].isdigit()
                spelled = len(run) == 1 or (numbered and run not in SPOKEN)
                said += [run.upper()] if spelled else self._run(run)
            elif _NUMBER_RUN.fullmatch(run):
                dated = YEAR.fullmatch(run)
                said += (year(int(run)) if dated else digits(run) if len(run) > 6 else whole(run)).split()
            elif run == "." and 0 < at < len(runs) - 1:
                said.append("point" if runs[at - 1].isdigit() and runs[at + 1].isdigit() else "dot")
            elif run in _NAMED_SIGNS and at > 0:
                said += _NAMED_SIGNS[run].split()
        return said


def _from_to(written: str) -> list[str]:
    """`Mon.-Fri` -> monday to friday; months, too. Empty when it is no such range."""
    found = _FROM_TO.fullmatch(written)
    ends = [WEEKDAYS.get(name.lower()) or month_of(name) for name in found.groups()] if found else []
    return [ends[0], "to", ends[1]] if all(ends) and ends else []


def _is_one(written: str) -> bool:
    return written == "1"


def _is_latin(text: str) -> bool:
    return all(c.isascii() or c < "\u0250" or "\u1e00" <= c < "\u1f00" or "\u0300" <= c < "\u0370" for c in text)
