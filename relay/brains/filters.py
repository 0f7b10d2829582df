"""What is taken out of a language model's stream before it is spoken. No I/O.

Each filter has `push(piece) -> text` and `end() -> text`, and holds back no more than it must to decide.
"""

from __future__ import annotations

import re

_TAGS = ("<think>", "</think>", "<thinking>", "</thinking>")
_TAG = re.compile("|".join(map(re.escape, _TAGS)))
_TOKEN = re.compile(r"\s*\S+")
_JOINED = frozenset(",.;:!?…)]}'’\"”%-")  # what stands right after a word


class ThinkFilter:
    """Removes what reasoning models think aloud: `<think>...</think>` blocks, and the white space after them."""

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False
        self._strip = False

    def push(self, piece: str) -> str:
        """The text to speak that this piece settles."""
        self._held += piece
        spoken = ""
        while tag := _TAG.search(self._held):
            spoken += self._keep(self._held[: tag.start()])
            self._held = self._held[tag.end() :]
            self._thinking = not tag[0].startswith("</")
            self._strip = True
        unfinished = max(n for text in _TAGS for n in range(len(text)) if self._held.endswith(text[:n]))
        end = len(self._held) - unfinished
        spoken += self._keep(self._held[:end])
        self._held = self._held[end:]
        return spoken

    def end(self) -> str:
        """The rest of the text: what looked like the beginning of a tag, but no unfinished thought."""
        return self._keep(self._held)

    def _keep(self, text: str) -> str:
        if self._thinking:
            return ""
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        return text


class OverlapFilter:
    """Removes from the beginning of a continuation the words that repeat the end, or all, of what it continues.

    The longest repetition counts. Words are compared without case and punctuation.

    Args:
        prefix: What was said already.
        add_space: Put a space before the first word where the prefix ends without one. Otherwise a stream that begins
            without white space continues the prefix's last word.
    """

    def __init__(self, prefix: str, *, add_space: bool = True) -> None:
        self._said = [norm for word in prefix.split() if (norm := _norm(word))]
        self._ends_in_space = not prefix or prefix[-1].isspace()
        self._add_space = add_space
        self._held = ""
        self._deciding = bool(self._said)
        self._begun = False

    def push(self, piece: str) -> str:
        """The text that this piece settles."""
        if not self._deciding:
            return self._begin(piece)
        self._held += piece
        return self._decide(ended=False)

    def end(self) -> str:
        """The rest of the text."""
        return self._decide(ended=True) if self._deciding else ""

    def _decide(self, *, ended: bool) -> str:
        words: list[str] = []  # the complete words held
        ends: list[int] = []  # where each ends in what is held
        partial = ""  # the word that may still grow
        for token in _TOKEN.finditer(self._held):
            norm = _norm(token[0])
            if not ended and token.end() == len(self._held):
                partial = norm
            elif norm:
                words.append(norm)
                ends.append(token.end())
        count = len(words)
        tails = [self._said[i:] for i in range(len(self._said))]  # longest first
        if not ended and any(
            count < len(tail) and words == tail[:count] and tail[count].startswith(partial) for tail in tails
        ):
            return ""
        repeated = next((len(tail) for tail in tails if words[: len(tail)] == tail), 0)
        text, self._held = self._held[ends[repeated - 1] if repeated else 0 :], ""
        self._deciding = False
        return self._begin(text)

    def _begin(self, text: str) -> str:
        if self._begun:
            return text
        if self._ends_in_space:
            text = text.lstrip()
        elif text and self._add_space and not text[0].isspace() and text[0] not in _JOINED:
            text = " " + text
        self._begun = bool(text)
        return text


def _norm(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())
