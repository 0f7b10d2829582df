"""Dialogues made by rule for the embedded language model: small talk, itself, its limits, tasks, simple facts.

All of it follows from `brain_talk.txt`, `brain_services.txt`, the lists below and one seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from relay_models.frontend.numbers import cardinal

Turn = tuple[str, str]
"""(role, text) with role `user` or `assistant`."""

_FOLDER = Path(__file__).parent

VALUES: dict[str, tuple[str, ...]] = {
    key: tuple(values.split("|"))
    for key, values in (
        line.split(" ", 1) for line in (_FOLDER / "brain_values.txt").read_text(encoding="utf-8").splitlines() if line
    )
}
_PARTS_OF_DAY = ("", "", "", " pm", " am", " in the evening", " in the morning", " o'clock")


def _time(chance: random.Random) -> str:
    hour = cardinal(chance.randint(1, 12))
    form = chance.choice(("{}", "{}", "{} thirty", "half past {}", "quarter past {}", "{} fifteen", "{} forty five"))
    part = chance.choice(_PARTS_OF_DAY)
    return form.format(hour) + (part if form == "{}" or "clock" not in part else "")


def choose_value(name: str, chance: random.Random) -> str:
    """A value of the list `name`; a trailing 2 names a second value of the same list."""
    name = name.removesuffix("2")
    if name == "time":
        return chance.choice((_time(chance), _time(chance), _time(chance), "noon"))
    if name == "street":
        kind = chance.choice(("street", "street", "road", "avenue", "lane", "drive"))
        return f"{cardinal(chance.randint(1, 99))} {chance.choice(VALUES[name])} {kind}"
    if name in ("name", "city") and chance.random() < 0.1:  # nobody's, so that copying is learnt, not the list
        return "".join(chance.choice(_SYLLABLES) for _ in range(chance.randint(2, 3))).capitalize()
    if name == "topping" and chance.random() < 0.6:
        return " and ".join(chance.sample(VALUES[name], 2))
    return chance.choice(VALUES[name])


_SYLLABLES = tuple(
    first + vowel
    for first in ["b", "br", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "w", "z"]
    for vowel in ["a", "an", "e", "el", "en", "i", "in", "o", "on", "or", "u"]
)
_CHOICE = re.compile(r"\{([^{}]*)\}|\[([^\[\]{}]*)\]")
_TWO_PREPOSITIONS = re.compile(r"\b(from|starting|for|of) on\b")
_ARTICLE = re.compile(r"\b([Aa])(?= (?:[aeio](?!ne\b)|ugly))")
_VALUE = re.compile(r"\$([A-Za-z]+2?)")


def expand(pattern: str, values: dict[str, str], chance: random.Random) -> str:
    """One reading of a pattern; values that it draws are added to `values`. `$Name` is the value with a capital."""

    def choice(match: re.Match[str]) -> str:
        if match[1] is not None:
            return chance.choice(match[1].split("|"))
        return match[2] if chance.random() < 0.5 else ""

    while _CHOICE.search(pattern):
        pattern = _CHOICE.sub(choice, pattern)

    def value(match: re.Match[str]) -> str:
        key = match[1][0].lower() + match[1][1:]
        if key not in values:
            taken = values.get(key.removesuffix("2"))
            values[key] = choose_value(key, chance)
            while values[key] == taken:
                values[key] = choose_value(key, chance)
        text = values[key]
        return text[0].upper() + text[1:] if match[1][0].isupper() else text

    text = _TWO_PREPOSITIONS.sub(r"\1", _VALUE.sub(value, pattern))
    return " ".join(_ARTICLE.sub(r"\1n", text).split())


@dataclass(slots=True)
class Block:
    """A short exchange: turns of alternatives, in order."""

    name: str
    weight: float
    turns: list[tuple[str, list[str]]] = field(default_factory=list)

    def play(self, chance: random.Random) -> list[Turn]:
        """One reading of it. Longer exchanges stop early now and then, always after the assistant."""
        values: dict[str, str] = {}
        turns: list[Turn] = []
        for role, alternatives in self.turns:
            turns.append((role, proper(expand(chance.choice(alternatives), values, chance), role)))
            if role == "assistant" and len(turns) < len(self.turns) and chance.random() < 0.3:
                break
        return turns


@dataclass(slots=True)
class Slot:
    """What a task has to know: how the opening mentions it, how it is asked for, how it is answered."""

    name: str
    mentions: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Service:
    """A task with its slots and its endings."""

    name: str
    weight: float
    openings: list[str] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    asides: list[tuple[str, str]] = field(default_factory=list)

    def play(self, chance: random.Random) -> list[Turn]:
        """One course of the task, with changes of mind and questions on the way."""
        values: dict[str, str] = {}

        def say(role: str, pattern: str) -> None:
            turns.append((role, proper(expand(pattern, values, chance), role)))

        turns: list[Turn] = []
        opening = chance.choice(self.openings)
        mentioned = [slot for slot in self.slots if slot.mentions and chance.random() < 0.3]
        say("user", " ".join([opening, *(chance.choice(slot.mentions) for slot in mentioned)]))
        known = {slot.name for slot in mentioned} | {slot.name for slot in self.slots if f"${slot.name}" in opening}
        lead = chance.choice(("", "", "Sure. ", "Of course. ", "I can play that through with you. ", "Happy to help. "))
        for slot in self.slots:
            if slot.name in known and (slot.mentions or slot.name in values):
                continue
            say("assistant", lead + chance.choice(slot.questions))
            if chance.random() < 0.06 and self.asides:
                question, answer = chance.choice(self.asides)
                say("user", question)
                say("assistant", answer.split("{Shall")[0].strip() + " " + chance.choice(slot.questions))
            answer = chance.choice(slot.answers)
            later = [s for s in self.slots if s.mentions and s.name not in known and s is not slot]
            known.add(slot.name)
            if later and chance.random() < 0.15:
                extra = chance.choice(later)
                known.add(extra.name)
                answer += " " + chance.choice(extra.mentions)
            say("user", answer)
            lead = chance.choice(("", "", "Okay. ", "All right. ", "Good. ", "Got it. ", "Thanks. "))
        say("assistant", lead + chance.choice(self.sums))
        if chance.random() < 0.2:
            self._change(values, say, chance)
        if chance.random() < 0.12:
            say("user", "{no|no thanks|no cancel it|never mind|cancel that|forget it}")
            say(
                "assistant",
                "{Okay|All right}, {I've dropped it|never mind then}. {Is there anything else?|Can I help otherwise?}",
            )
            return turns
        say("user", chance.choice(_AGREEMENTS))
        say("assistant", chance.choice(self.endings))
        if chance.random() < 0.3 and self.asides:
            question, answer = chance.choice(self.asides)
            say("user", question)
            say("assistant", answer.replace("{Shall we go on?|", "{").replace("{Shall I go on?|", "{"))
        return turns

    def _change(self, values: dict[str, str], say: Callable[[str, str], None], chance: random.Random) -> None:
        """The user changes one value after all."""
        changeable = [name for name in ("time", "day", "people", "city", "size") if name in values]
        if not changeable:
            return
        name = chance.choice(changeable)
        old = values.pop(name)
        while values.get(name, old) == old:
            values[name] = choose_value(name, chance)
        say(
            "user",
            f"{{no|no wait|actually|sorry|wait}} {{make it|i meant|it should be|i'd rather have}} ${name}[ please]",
        )
        say(
            "assistant",
            f"{{Okay|Sure|No problem}}, ${name}{{ then| instead|}}. "
            "{Is that right now?|Anything else to change?|Shall I go on?}",
        )


_AGREEMENTS = (
    "{yes|yeah|yes please|sure|okay|that's right|correct|yes that's right|sounds good|perfect|yep|go ahead|please do}",
)


def proper(text: str, role: str) -> str:
    """Capitals where written English has them, and a question mark or full stop at the end of a user's turn."""
    text = _NAMED.sub(lambda match: _NAMES[match[0]], text)
    text = _MONTH.sub(lambda match: match[0].capitalize(), text)
    text = re.sub(r"(?<![\w'])i(?=\b(?!'?\w))|(?<![\w'])i(?='(?:m|d|ll|ve)\b)", "I", text)
    text = re.sub(r"(?:^|(?<=[.!?] ))[a-z]", lambda match: match[0].upper(), text)
    if role == "user" and text[-1] not in ".!?":
        text += "?" if _ASKED.match(text) else "."
    return text


_NAMES = {word: word.title() for key in ("city", "name") for word in VALUES[key]} | {
    word: word.capitalize()
    for word in (
        "monday tuesday wednesday thursday friday saturday sunday january february april june july august september "
        "october november december english relay "
        + " ".join(word for word in VALUES["cuisine"] if word not in ("vegetarian", "vegan", "seafood"))
    ).split()
}
_NAMED = re.compile(rf"(?<![\w'])(?:{'|'.join(sorted(_NAMES, key=len, reverse=True))})(?![\w'])")
_MONTH = re.compile(r"(?<=\bon )(?:march|may)\b|(?<=\bof )(?:march|may)\b")
_ASKED = re.compile(r"(?:who|what|how|where|when|why|which|can|could|do|does|did|is|are|will)\b", re.I)


def read_blocks(path: Path = _FOLDER / "brain_talk.txt") -> list[Block]:
    """The exchanges of `brain_talk.txt`."""
    blocks: list[Block] = []
    for line in _lines(path):
        mark, _, rest = line.partition(" ")
        if mark == "=":
            name, weight = rest.split()
            blocks.append(Block(name, float(weight)))
            continue
        role = {">": "user", "<": "assistant"}[mark]
        turns = blocks[-1].turns
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].append(rest)
    return blocks


def read_services(path: Path = _FOLDER / "brain_services.txt") -> list[Service]:
    """The tasks of `brain_services.txt`."""
    services: list[Service] = []
    question = ""
    for line in _lines(path):
        mark, _, rest = line.partition(" ")
        service = services[-1] if services else None
        if mark == "=":
            name, weight = rest.split()
            services.append(Service(name, float(weight)))
            continue
        assert service is not None
        if mark == "slot":
            service.slots.append(Slot(rest))
        elif mark == "q":
            question = rest
        elif mark == "a":
            service.asides.append((question, rest))
        elif mark == ">" and not service.slots:
            service.openings.append(rest)
        else:
            slot = service.slots[-1] if service.slots else Slot("")
            {"+": slot.mentions, "?": slot.questions, ">": slot.answers, "sum": service.sums,
             "done": service.endings}[mark].append(rest)  # fmt: skip
    return services


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
