"""What a written word is read by: the words around it, of which those after it may not have come yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relay_models.frontend.written import Written
from relay_models.phonemes import Pause

LOOK_AHEAD: Final = 2
"""Written words after the current one that its reading may depend on."""


class NotYet(Exception):
    """The reading depends on text that has not come."""


@dataclass(frozen=True, slots=True)
class Around:
    """A written word and its neighbours.

    Attributes:
        words: The word, then those that follow it, as far as they have come.
        before: Written words before it, latest last; enough for any rule.
        ended: No more text comes.
    """

    words: Sequence[Written]
    before: Sequence[Written]
    ended: bool

    def ahead(self, distance: int) -> Written | None:
        """The word so many places on; None where the text ends. Raises NotYet when it has not come."""
        assert 1 <= distance <= LOOK_AHEAD
        if distance < len(self.words):
            return self.words[distance]
        if self.ended:
            return None
        raise NotYet

    def follower(self, distance: int = 1) -> str:
        """The word so many places on if it goes on in the same phrase, else an empty string. Raises NotYet."""
        for word in self.words[:distance]:
            if word.pause or word.full_stop or word.line_end:
                return ""
        word_ahead = self.ahead(distance)
        return word_ahead.core if word_ahead else ""

    def previous(self, distance: int = 1) -> str:
        """The word so many places back if this one goes on in the same phrase, else an empty string."""
        if distance > len(self.before) or any(word.pause for word in self.before[-distance:]):
            return ""
        return self.before[-distance].core

    @property
    def first(self) -> bool:
        """Whether a sentence begins here."""
        return not self.before or self.before[-1].pause in (".", "?", "!")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a written word is said.

    Attributes:
        words: Spoken words: lower case, or capitals to be spelled.
        pause: The pause after the last of them.
        taken: Written words that were read at once.
    """

    words: tuple[str, ...]
    pause: Pause
    taken: int = 1
