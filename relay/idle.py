"""The idle timer, sans-IO: how long it has been quiet since the last reply was heard, on the input's sample clock."""

from __future__ import annotations


class IdleTimer:
    """Finds stretches of quiet. Feed it every piece of audio; time passes with audio alone."""

    def __init__(self) -> None:
        self._since_ms: int | None = None

    def step(self, now_ms: int, *, quiet: bool, timeout_ms: int | None) -> int | None:
        """Where a stretch of quiet began that has now lasted for the timeout, if one has; then the next begins.

        Args:
            now_ms: How much audio has come.
            quiet: Nobody speaks, nothing is being answered, and the last reply has been heard to its end.
            timeout_ms: How long is too long; None for never.
        """
        if not quiet or timeout_ms is None:
            self._since_ms = None
            return None
        if self._since_ms is None:
            self._since_ms = now_ms
        if now_ms - self._since_ms < timeout_ms:
            return None
        began_ms, self._since_ms = self._since_ms, None
        return began_ms
