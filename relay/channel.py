"""A bounded queue between two tasks with a named policy for when it is full, and `drop` for what became stale."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


class ChannelFull(Exception):
    """A channel of policy `error` has no room."""


class Channel(Generic[T]):
    """One producer, one consumer, at most `capacity` in weight.

    Args:
        capacity: Bound on the sum of the items' weights.
        policy: When full, `wait` makes `put` wait; `error` makes it raise ChannelFull.
        weight: An item's share of the capacity; 1 each by default.
    """

    def __init__(
        self, capacity: int, *, policy: Literal["wait", "error"] = "wait", weight: Callable[[T], int] = lambda _: 1
    ) -> None:
        self._capacity = capacity
        self._policy = policy
        self._weight = weight
        self._items: deque[T] = deque()
        self._load = 0
        self._closed = False
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_finished(self) -> bool:
        """Closed, and nothing waits."""
        return self._closed and not self._items

    def put_nowait(self, item: T) -> None:
        """Adds an item. Raises ChannelFull when there is no room; an empty channel takes an item of any weight."""
        weight = self._weight(item)
        if self._items and self._load + weight > self._capacity:
            raise ChannelFull
        self._items.append(item)
        self._load += weight
        self._changed.set()

    async def put(self, item: T) -> None:
        """Adds an item, by the policy when full. What is put after `close` is lost."""
        while not self._closed:
            try:
                self.put_nowait(item)
            except ChannelFull:
                if self._policy == "error":
                    raise
                await self._wait()
            else:
                return

    def close(self) -> None:
        """No more items follow; the consumer still gets those that wait."""
        self._closed = True
        self._changed.set()

    def drop(self, stale: Callable[[T], bool]) -> int:
        """Removes the waiting items that are stale; says how many."""
        kept = deque(item for item in self._items if not stale(item))
        dropped = len(self._items) - len(kept)
        self._items = kept
        self._load = sum(map(self._weight, kept))
        self._changed.set()
        return dropped

    async def get(self) -> T:
        """The next item. Raises StopAsyncIteration when the channel is closed and empty."""
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            await self._wait()
        return self._pop()

    async def ready(self, timeout_s: float | None) -> bool:
        """Waits until an item waits or the channel is closed; False when that took longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._items and not self._closed:
                    await self._wait()
        except TimeoutError:
            return False
        return True

    def get_waiting(self) -> list[T]:
        """All items that wait now, without waiting; perhaps none."""
        return [self._pop() for _ in range(len(self._items))]

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            try:
                item = await self.get()
            except StopAsyncIteration:
                return
            yield item

    def _pop(self) -> T:
        item = self._items.popleft()
        self._load -= self._weight(item)
        self._changed.set()
        return item

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
