"""Batches for the ears: all audio as int16 in one buffer on the device, and plans of what each row of a batch holds.

A plan is made on the CPU from the seed, the step and the clips that are there; the audio itself stays on the device.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from relay_models.framing import FRAME_MS
from relay_models.training.ears_data import RATE_HZ, Clips
from relay_models.training.ears_synthesis import read_shard

BUCKETS_S = (2.4, 3.6, 4.8, 6.4, 8.8, 12.8, 16.8)
"""Lengths of a batch's rows."""
BUCKET_SHARES = (0.12, 0.16, 0.18, 0.16, 0.14, 0.12, 0.12)
CHAINED_SHARES = (0.0, 0.0, 0.0, 0.0, 0.35, 0.6, 0.6)
"""Share of the batches of each length whose rows hold several clips."""
FRAME_SAMPLES = RATE_HZ * FRAME_MS // 1000
SLOWEST, FASTEST = 0.86, 1.16
_TAIL_SAMPLES = RATE_HZ * 15 // 100
"""Silence that clips end with; see `ears_synthesis.finish`."""


class Store:
    """Clips on the device.

    Args:
        capacity: Samples that fit. Clips beyond are refused.
        tokenizer: Turns labels into word pieces.
        device: Where the audio lies.

    Attributes:
        audio: [capacity] int16.
        group: Group of each clip, a number of `groups`.
        groups: Names of the groups, in the order in which they came.
    """

    def __init__(self, capacity: int, tokenizer: Tokenizer, device: torch.device) -> None:
        self.audio = torch.zeros(capacity, dtype=torch.int16, device=device)
        self.used = 0
        self.groups: list[str] = []
        self._tokenizer = tokenizer
        self._starts: list[NDArray[np.int64]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._groups: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._sorted: dict[int, NDArray[np.int64]] = {}
        self.tokens: list[NDArray[np.int64]] = []
        self.lock = threading.Lock()

    def add(self, clips: Clips, group: str) -> bool:
        """Takes clips in; False, and nothing taken, when the buffer is full. Safe beside a thread that makes plans."""
        tokens = [np.array(e.ids, np.int64) for e in self._tokenizer.encode_batch(clips.texts)]
        with self.lock:
            end = self.used + len(clips.audio)
            if end > len(self.audio):
                return False
            self.audio[self.used : end] = torch.from_numpy(clips.audio).to(self.audio.device)
            lengths = np.array(clips.lengths, np.int64)
            self._starts.append(self.used + np.cumsum(lengths) - lengths)
            self._lengths.append(lengths)
            if group not in self.groups:
                self.groups.append(group)
            self._groups.append(np.full(len(lengths), self.groups.index(group)))
            self._counts.append(np.array([len(ids) for ids in tokens], np.int64))
            self.tokens += tokens
            self.used = end
            self._refresh(self.groups.index(group))
        return True

    def _refresh(self, group: int) -> None:
        """Joins the tables, and sorts the clips of one group by length."""
        self.starts, self.lengths = np.concatenate(self._starts), np.concatenate(self._lengths)
        self.group, self.counts = np.concatenate(self._groups), np.concatenate(self._counts)
        # Clips whose words are too dense for the frames are of no use to CTC.
        usable = (self.counts > 0) & ((self.counts + 2) * FRAME_SAMPLES * SLOWEST < self.lengths)
        mine = np.flatnonzero(usable & (self.group == group))
        self._sorted[group] = mine[np.argsort(self.lengths[mine], kind="stable")]

    def hours(self) -> dict[str, float]:
        """Hours of each group."""
        with self.lock:
            return {
                name: float(self.lengths[self.group == number].sum()) / RATE_HZ / 3600
                for number, name in enumerate(self.groups)
            }

    def pick(self, group: int, shortest: float, longest: float, chances: NDArray[np.float64]) -> NDArray[np.int64]:
        """Clips of a group, one for each chance in [0, 1), of lengths in samples (`shortest`, `longest`].

        The nearest shorter clips are taken where none has such a length; -1 where the group has none that short.
        """
        order = self._sorted[group]
        low, high = np.searchsorted(self.lengths[order], (shortest, longest), side="right")
        if high == 0:
            return np.full(len(chances), -1)
        low = min(low, max(0, high - 16)) if high - low < 16 else low
        picked: NDArray[np.int64] = order[low + (chances * (high - low)).astype(np.int64)]
        return picked


@dataclass(frozen=True, slots=True)
class Plan:
    """What a batch holds.

    Attributes:
        samples: Length of its rows.
        places: [pieces, 4] int64: row, first sample in the row, samples there, first sample in the store.
        rates: [pieces, 2] float32: playing speed, gain.
        lengths: [rows] int64, samples that count.
        ends: [rows] int64, sample at which speech is over.
        tokens: [rows, most tokens] int64, padded by 0.
        token_counts: [rows] int64.
    """

    samples: int
    places: NDArray[np.int64]
    rates: NDArray[np.float32]
    lengths: NDArray[np.int64]
    ends: NDArray[np.int64]
    tokens: NDArray[np.int64]
    token_counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Mix:
    """How batches are put together.

    Attributes:
        seconds: Audio in a batch.
        shares: Share of the clips by group.
        buckets: Row lengths in use: the first so many of `BUCKETS_S`.
        only: Number of the only row length in use, or None.
    """

    seconds: float
    shares: Mapping[str, float]
    buckets: int = len(BUCKETS_S)
    only: int | None = None


def plan_batch(store: Store, mix: Mix, seed: int, step: int, part: int = 0) -> Plan:
    """The batch of a step: a function of the arguments and of the clips in the store, in their order.

    Batches of one step that differ in `part` have rows of the same length, so that they cost the same. Short rows hold
    one clip; longer ones hold several as well, with pauses between, so that the model meets changes of
    speaker and pauses inside an utterance. Raises ValueError when the store has no clip of these groups.
    """
    chance = np.random.default_rng((seed, step))
    shares = np.array(BUCKET_SHARES[: mix.buckets])
    bucket = int(chance.choice(mix.buckets, p=shares / shares.sum())) if mix.only is None else mix.only
    if part:
        chance = np.random.default_rng((seed, step, part))
    samples = int(BUCKETS_S[bucket] * RATE_HZ)
    rows = max(1, int(mix.seconds / BUCKETS_S[bucket]))
    chained = bool(chance.random() < CHAINED_SHARES[bucket])
    limit = BUCKETS_S[bucket - 2] * RATE_HZ if chained else float(samples)
    floor = 0.0 if chained or bucket == 0 else BUCKETS_S[bucket - 1] * RATE_HZ

    weights = np.array([mix.shares.get(name, 0.0) for name in store.groups])
    if weights.sum() <= 0:
        raise ValueError("the store has no clips of the groups wanted")
    weights /= weights.sum()
    offset = (chance.uniform(0.0, 0.3, rows) * RATE_HZ).astype(np.int64)
    offset = np.minimum(offset, samples // 20)
    ends = np.zeros(rows, np.int64)
    open_rows = np.ones(rows, bool)
    row_gain = 10 ** (chance.uniform(-6, 0, rows) / 20)
    places: list[NDArray[np.int64]] = []
    rates: list[NDArray[np.float64]] = []
    spoken: list[list[NDArray[np.int64]]] = [[] for _ in range(rows)]
    for _ in range(6 if chained else 1):
        groups = chance.choice(len(weights), rows, p=weights)
        chances = chance.random(rows)
        clips = np.full(rows, -1)
        for number in range(len(weights)):
            mine = np.flatnonzero(groups == number)
            clips[mine] = store.pick(number, floor, limit, chances[mine])
        missing = np.flatnonzero(clips < 0)
        for best in np.argsort(-weights).tolist():
            if not len(missing):
                break
            clips[missing] = store.pick(best, 0.0, limit, chances[missing])
            missing = np.flatnonzero(clips < 0)
        lengths, counts = store.lengths[clips], store.counts[clips]
        rate = chance.uniform(SLOWEST, FASTEST, rows)
        rate = np.minimum(rate, lengths / ((counts + 2) * FRAME_SAMPLES))
        room = samples - offset
        if not chained:
            rate = np.maximum(rate, lengths / room * 1.0005)
        taken = np.floor(lengths / rate).astype(np.int64)
        open_rows &= (taken <= room) & (clips >= 0)
        mine = np.flatnonzero(open_rows)
        if not len(mine):
            break
        gain = row_gain[mine] * 10 ** (chance.uniform(-3, 0, len(mine)) / 20)
        places.append(np.stack((mine, offset[mine], taken[mine], store.starts[clips[mine]]), axis=1))
        rates.append(np.stack((rate[mine], gain), axis=1))
        for row in mine:
            spoken[row].append(store.tokens[clips[row]])
        ends[mine] = offset[mine] + taken[mine]
        pause = (chance.uniform(0.05, 0.9, rows) * RATE_HZ).astype(np.int64)
        offset = np.where(open_rows, ends + pause, offset)
    tail = (chance.uniform(0.05, 1.2, rows) * RATE_HZ).astype(np.int64)
    token_counts = np.array([sum(map(len, pieces)) for pieces in spoken], np.int64)
    tokens = np.zeros((rows, max(1, int(token_counts.max()))), np.int64)
    for number, pieces in enumerate(spoken):
        if pieces:
            tokens[number, : token_counts[number]] = np.concatenate(pieces)
    return Plan(
        samples=samples,
        places=np.concatenate(places),
        rates=np.concatenate(rates).astype(np.float32),
        lengths=np.minimum(ends + tail, samples),
        ends=np.maximum(ends - _TAIL_SAMPLES, 0),
        tokens=tokens,
        token_counts=token_counts,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """A plan carried out, on the device.

    Attributes:
        audio: [rows, samples] float32, full scale 1, silent where nobody speaks.
        lengths, ends, tokens, token_counts: See `Plan`.
    """

    audio: Tensor
    lengths: Tensor
    ends: Tensor
    tokens: Tensor
    token_counts: Tensor


def carry_out(plan: Plan, store: Store) -> Batch:
    """Reads the clips out of the store, at their speeds (linear interpolation), into rows."""
    device = store.audio.device

    def put(array: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    places, rates = put(plan.places), put(plan.rates)
    rows = len(plan.lengths)
    audio = torch.zeros(rows * plan.samples + 1, device=device)
    time = torch.arange(int(plan.places[:, 2].max()), device=device)
    row, first, count, start = (column[:, None] for column in places.unbind(1))
    rate, gain = (column[:, None] for column in rates.unbind(1))
    at = time * rate
    whole = at.floor()
    index = (start + whole.long()).clamp_(max=len(store.audio) - 2)
    value = torch.lerp(store.audio[index].float(), store.audio[index + 1].float(), at - whole) * (gain / 32768)
    target = torch.where(time < count, row * plan.samples + first + time, rows * plan.samples)
    audio.scatter_(0, target.flatten(), value.flatten())
    return Batch(
        audio[:-1].view(rows, plan.samples), put(plan.lengths), put(plan.ends), put(plan.tokens), put(plan.token_counts)
    )


class Planner(threading.Thread):
    """Makes the plans of coming steps beside the device's work, in order. `close` ends it.

    Args:
        store: The clips.
        mix_at: Step -> how to put its batch together.
        seed: Of all plans.
        first: The first step.
        part: See `plan_batch`.
        ahead: Plans kept ready.
    """

    def __init__(self, store: Store, mix_at: MixSchedule, seed: int, first: int, part: int = 0, ahead: int = 6) -> None:
        super().__init__(daemon=True)
        self._store, self._mix_at, self._seed, self._first, self._part = store, mix_at, seed, first, part
        self._queue: queue.Queue[Plan | BaseException] = queue.Queue(ahead)
        self._closed = threading.Event()

    def run(self) -> None:
        """Thread body."""
        step = self._first
        while not self._closed.is_set():
            made: Plan | BaseException
            try:
                with self._store.lock:
                    made = plan_batch(self._store, self._mix_at(step), self._seed, step, self._part)
            except BaseException as error:  # handed to whoever waits
                made = error
            while not self._closed.is_set():
                try:
                    self._queue.put(made, timeout=0.2)
                    break
                except queue.Full:
                    continue
            step += 1

    def next(self) -> Plan:
        """The next step's plan; raises what making it raised."""
        made = self._queue.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        """Ends the thread and waits for it."""
        self._closed.set()
        self.join()


class MixSchedule:
    """Mix of each step: short rows first; in the end, where that is wanted, other shares.

    Args:
        mix: The mix in the long run.
        short_steps: Steps with the three shortest kinds of row.
        late_shares: Shares of the groups from step `late_from` on.
        late_from: See `late_shares`.
    """

    def __init__(
        self, mix: Mix, short_steps: int, late_shares: Mapping[str, float] | None = None, late_from: int = 10**9
    ) -> None:
        self._short = Mix(mix.seconds, mix.shares, min(3, mix.buckets))
        self._mix, self._short_steps = mix, short_steps
        self._late = replace(mix, shares=late_shares or mix.shares)
        self._late_from = late_from

    def __call__(self, step: int) -> Mix:
        """The mix of a step."""
        if step < self._short_steps:
            return self._short
        return self._mix if step < self._late_from else self._late


def group_of(shard: str) -> str:
    """Group of a shard by its file name: `espeak-03-0001` is of eSpeak; Flite's recorded voices are one group.

    Recordings are named after their corpus: `natural-vctk-0` is of the group `vctk`.
    """
    kind, _, rest = shard.partition("-")
    if kind == "natural":
        return rest.partition("-")[0]
    return "flite" if kind in ("awb", "rms", "slt") else kind


class ShardReader(threading.Thread):
    """Takes shards into the store as they appear in a folder, oldest name first in each look. `close` ends it."""

    def __init__(self, store: Store, folder: Path) -> None:
        super().__init__(daemon=True)
        self._store, self._folder = store, folder
        self._seen: set[str] = set()
        self._closed = threading.Event()

    def read_new(self) -> int:
        """Takes in what is there; returns how many shards were new."""
        new = sorted(path for path in self._folder.glob("*.json") if path.name not in self._seen)
        for path in new:
            self._seen.add(path.name)
            if not self._store.add(read_shard(path), group_of(path.stem)):
                self._closed.set()
                break
        return len(new)

    def run(self) -> None:
        """Thread body."""
        while not self._closed.wait(1.0):
            self.read_new()

    def close(self) -> None:
        """Ends the thread and waits for it."""
        self._closed.set()
        self.join()


def load_shards(store: Store, paths: Sequence[Path]) -> None:
    """Takes shards in, in this order, and leaves the files: for runs that can be repeated."""
    for path in paths:
        store.add(read_shard(path), group_of(path.stem))
