"""Text as a language model writes it -> words with phonemes, while the text still arrives. No torch.

A word is read as soon as the blank after it has come; some readings wait for the next one or two words (`$3.5 million`,
`Dr.`, `read`). What a word sounds like depends on the text alone: however it is cut into increments, the words are the
same, and a word that was given out never changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from relay_models.frontend.context import Around, NotYet
from relay_models.frontend.heteronyms import heteronym
from relay_models.frontend.lexicon import Lexicon
from relay_models.frontend.reading import Reader
from relay_models.frontend.written import Written, written_words
from relay_models.phonemes import PERIOD, Pause, with_pause

LONGEST_STRETCH: Final = 256
"""Characters without a blank after which a word ends all the same."""
_REMEMBERED: Final = 6
"""Written words before the current one that rules may look at."""
_FENCES: Final = ("```", "~~~")
_CODE_BLOCK: Final = "code block"
_OPEN_TAG: Final = re.compile(
    r"<(?:a|abbr|b|blockquote|br|button|code|details|div|em|font|h[1-6]|hr|i|iframe|img|input|kbd|li|mark|ol|p|pre|q|s|"
    r"small|span|strong|sub|summary|sup|table|tbody|td|th|thead|tr|u|ul|video)$", re.I,
)  # fmt: skip
_OPEN_LINK: Final = re.compile(r"\]\([^()\s]*$")
_DISPLAY_MATH: Final = ("$$", "\\[", "\\]")


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """One word to be said, or a pause between words.

    Attributes:
        text: The word as it is said, in lower case; letters to be spelled in capitals. Empty: only a pause.
        phonemes: ARPAbet with stress; empty for a pause.
        pause: The pause after it.
        start: First character of the written text that it stands for, counted from the beginning of the stream.
        end: Position after the last one. `2026` gives two words with the same place; places of two words are the same
            or apart, and in order.
    """

    text: str
    phonemes: tuple[str, ...]
    pause: Pause
    start: int
    end: int

    @property
    def symbols(self) -> tuple[str, ...]:
        """What a voice reads: the phonemes, then the pause or the word boundary."""
        return with_pause(self.phonemes, self.pause)


@dataclass(frozen=True, slots=True)
class FrontendState:
    """Everything that a stream remembers; immutable, so that a copy is a reference.

    Attributes:
        tail: Characters after the last blank.
        tail_start: Place of the first of them in the text.
        line_start: Nothing but blanks stands before the tail in its line.
        waiting: Written words that are not read yet, in order.
        before: The latest written words that were read.
        fence: The marks that end the code block that the text is in; empty outside.
        skipping: The character that ends a tag or link whose rest is left out; empty outside.
    """

    tail: str = ""
    tail_start: int = 0
    line_start: bool = True
    waiting: tuple[Written, ...] = ()
    before: tuple[Written, ...] = ()
    fence: str = ""
    skipping: str = ""


class Frontend:
    """The front end of all streams: rules and lexicon, no state.

    Args:
        lexicon: Pronunciations (`relay_models.frontend.lexicon.load_lexicon()`).
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._reader = Reader(lexicon.knows)

    def stream(self) -> TextStream:
        """A new stream of text."""
        return TextStream(self)

    def push(self, state: FrontendState, text: str) -> tuple[list[SpokenWord], FrontendState]:
        """Takes more text; gives the words that are certain now and the state after them."""
        waiting = list(state.waiting)
        scan = _Scan(state, waiting)
        for character in text:
            scan.take(character)
        return self._read(scan.state(), waiting, ended=False)

    def finish(self, state: FrontendState) -> tuple[list[SpokenWord], FrontendState]:
        """No more text comes: gives the rest of the words and the state of an empty stream that goes on counting."""
        waiting = list(state.waiting)
        scan = _Scan(state, waiting)
        scan.take("\n")
        after = scan.state()
        words, _ = self._read(after, waiting, ended=True)
        return words, FrontendState(tail_start=after.tail_start - 1)

    def _read(
        self, state: FrontendState, waiting: list[Written], *, ended: bool
    ) -> tuple[list[SpokenWord], FrontendState]:
        said: list[SpokenWord] = []
        before = state.before
        at = 0
        while at < len(waiting):
            around = Around(waiting[at : at + 3], before, ended)
            try:
                words, pause, taken = self._say(around)
            except NotYet:
                break
            said += words
            read = waiting[at : at + taken]
            if not read[-1].core:
                before = (*before[:-1], replace(before[-1], pause=pause)) if before else ()
            else:
                before = (*before, *read[:-1], replace(read[-1], pause=pause))[-_REMEMBERED:]
            at += taken
        return said, replace(state, waiting=tuple(waiting[at:]), before=before)

    def _say(self, around: Around) -> tuple[list[SpokenWord], Pause, int]:
        """Words, the pause after them, and how many written words that took. Raises NotYet."""
        reading = self._reader.read(around)
        first, last = around.words[0], around.words[reading.taken - 1]
        heard = [
            (text, (heteronym(text, around) if reading.taken == 1 else None) or self._lexicon.say(text))
            for text in reading.words
        ]
        heard = [(text, phonemes) for text, phonemes in heard if phonemes]
        if not heard:
            earlier = around.before[-1].pause if around.before else PERIOD
            alone = [SpokenWord("", (), reading.pause, first.start, last.end)] if reading.pause and not earlier else []
            return alone, earlier or reading.pause, reading.taken
        words = [SpokenWord(text, phonemes, "", first.start, last.end) for text, phonemes in heard]
        words[-1] = replace(words[-1], pause=reading.pause)
        return words, reading.pause, reading.taken


class TextStream:
    """One text that arrives in increments.

    `state` is all that it remembers: `copy` is cheap, and going back to an earlier state undoes what came since.
    """

    def __init__(self, frontend: Frontend, state: FrontendState | None = None) -> None:
        self._frontend = frontend
        self.state = state or FrontendState()

    def push(self, text: str) -> list[SpokenWord]:
        """Takes more text, cut anywhere; gives the words that are certain now."""
        words, self.state = self._frontend.push(self.state, text)
        return words

    def finish(self) -> list[SpokenWord]:
        """The words that waited for more text. What is pushed afterwards is a new text."""
        words, self.state = self._frontend.finish(self.state)
        return words

    def copy(self) -> TextStream:
        """A stream that goes on from here on its own."""
        return TextStream(self._frontend, self.state)


class _Scan:
    """Cuts characters into written words, with the few block rules of Markdown and HTML."""

    def __init__(self, state: FrontendState, waiting: list[Written]) -> None:
        self._before = state.before
        self._tail = list(state.tail)
        self._tail_start = state.tail_start
        self._line_start = state.line_start
        self._fence = state.fence
        self._skipping = state.skipping
        self._waiting = waiting

    def state(self) -> FrontendState:
        """The state after all characters so far; `waiting` as it was given."""
        return FrontendState(
            "".join(self._tail),
            self._tail_start,
            self._line_start,
            tuple(self._waiting),
            self._before,
            self._fence,
            self._skipping,
        )

    def take(self, character: str) -> None:
        """One more character of the text."""
        if not character.isspace():
            self._tail.append(character)
            if len(self._tail) >= LONGEST_STRETCH or (character == "—" and not self._fence):
                self._cut(line_end=False)
            return
        line_end = character in "\n\r\u2028\u2029\v\f"
        if self._tail:
            self._cut(line_end=line_end)
        elif line_end and not self._fence:
            self._end_line()
        self._tail_start += 1
        if line_end:
            self._line_start = True
            self._skipping = ""

    def _cut(self, *, line_end: bool) -> None:
        """The tail is a whole stretch."""
        stretch, start = "".join(self._tail), self._tail_start
        self._tail.clear()
        self._tail_start += len(stretch)
        line_start, self._line_start = self._line_start, False
        if self._fence:
            if line_start and stretch.startswith(self._fence):
                self._fence = ""
            return
        if line_start and stretch.startswith(_FENCES):
            self._open_fence(stretch, start)
            return
        if self._skipping:
            _, found, stretch_after = stretch.partition(self._skipping)
            if not found:
                return
            self._skipping = ""
            start += len(stretch) - len(stretch_after)
            stretch = stretch_after
        opened = _OPEN_TAG.search(stretch) or _OPEN_LINK.search(stretch)
        if opened and not line_end:
            self._skipping = ">" if stretch[opened.start()] == "<" else ")"
            stretch = stretch[: opened.start()]
        if stretch in _DISPLAY_MATH or not stretch:
            return
        words = written_words(stretch, start, line_start=line_start, line_end=line_end)
        if line_start and stretch.startswith(("-", "*", "+", "#", ">", "•")) and not words:
            self._line_start = True  # what follows a bullet begins the line: `- [ ] task`, `> ## heading`
        self._waiting += words
        if line_end and not words:
            self._end_line()

    def _open_fence(self, stretch: str, start: int) -> None:
        mark = stretch[:3]
        if mark in stretch[3:]:  # opened and closed at once
            self._waiting += written_words(stretch.replace(mark, "   "), start, line_start=False, line_end=False)
            return
        self._fence = mark
        end = start + len(stretch)
        self._waiting += [Written(word, start, end) for word in _CODE_BLOCK.split()]
        self._waiting[-1] = replace(self._waiting[-1], pause=PERIOD, line_end=True)

    def _end_line(self) -> None:
        """A line ends after a blank or an empty word: a sentence ends there if nothing else has ended it.

        Whether something has is not known before the words are read, and must not depend on how the text was cut.
        """
        if self._waiting or self._before:
            self._waiting.append(Written("", self._tail_start, self._tail_start, PERIOD, line_end=True))
