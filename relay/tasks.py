"""How tasks end: which error of several is told, and what a cancelled one keeps."""

from __future__ import annotations

import asyncio

from relay.errors import RelayError


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one that says most: an error of ours, else the first."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        ours = [e for e in found.exceptions if isinstance(e, RelayError)]
        found = ours[0] if ours else found.exceptions[0]
    return found


def forget_cancellation(task: asyncio.Task[None]) -> None:
    """For `add_done_callback`: frees what a cancelled task holds.

    It keeps the error that it was cancelled with, whose traceback holds the frames. Where one of them holds the task
    or, as a task group's does before Python 3.13, the error, all of it would stay until the collector finds the
    circle, which takes long in a call.
    """
    try:
        task.exception()  # gives the error out, and keeps it no more
    except asyncio.CancelledError as error:
        error.__traceback__ = None
