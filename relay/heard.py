"""The playback ledger: samples played -> words heard. It decides what stays in the context after an interruption."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from relay.engine.voice import SpokenWord


class Ledger:
    """What was sent of one reply and how much of it the person has heard.

    Positions are samples of the reply at the voice's rate. What was played is known from the client's reports; without
    any, the caller bounds it by the time since the first sample was sent.
    """

    def __init__(self) -> None:
        self._words: list[SpokenWord] = []
        self.sent_samples = 0
        self.reported_samples: int | None = None

    def sent(self, samples: int, words: Sequence[SpokenWord]) -> None:
        """Notes audio that went out, with the words that begin in it."""
        self.sent_samples += samples
        self._words.extend(words)

    def played(self, samples: int) -> None:
        """Notes a client's report. Reports never go back, and nobody plays what was not sent."""
        self.reported_samples = min(max(samples, self.reported_samples or 0), self.sent_samples)

    def heard(self, played_samples: int) -> str:
        """The words heard when that much was played: those of which at least half was."""
        middles = [(word.start_sample + word.end_sample) / 2 for word in self._words]
        count = bisect.bisect_right(middles, min(played_samples, self.sent_samples))
        return " ".join(word.text for word in self._words[:count])

    @property
    def text(self) -> str:
        """All words sent."""
        return " ".join(word.text for word in self._words)
