"""Engines of another process, over a real Unix socket in this one: the same answers, the same errors, no slot lost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import relay.errors
from relay.audio import Int16Array
from relay.engine import remote
from relay.engine.brain import BrainInput, BrainOutput, Sampling
from relay.engine.draft import Draft, DraftInput, DraftOutput, Judgement, Signals
from relay.engine.ears import EarsInput, EarsOutput, Word
from relay.engine.engine import Engine, Steps
from relay.engine.host import EngineHost
from relay.engine.load import Admission, Measures
from relay.engine.remote import EngineLink, Links, RemoteLoad
from relay.engine.remote_wire import (
    HEADER,
    KINDS,
    MAX_FRAME_BYTES,
    Failed,
    FrameError,
    Frames,
    Loads,
    Seated,
    Up,
    Welcome,
    body_bytes,
    error_of,
    failed,
    frame,
    pack,
    unpack,
)
from relay.engine.verifier import Judged
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput
from relay.errors import BadEvent, BrainUnavailable, EngineBusy, EngineUnavailable, RelayError, StageFailed
from relay_models.drafting import Drafted

SLOTS = 3
ERRORS: dict[int, Exception] = {
    1: StageFailed("ears", "the sphinx choked"),
    2: BrainUnavailable("nobody answers"),
    3: ValueError("a bad value"),
    4: RelayError("closed"),
    5: BadEvent("no", code="unknown_event", param="a.b"),
}


class Adding:
    """Says the sum of all that its slot has heard; fails when an input begins with minus the number of an error."""

    max_slots = SLOTS
    max_batch = SLOTS

    def load(self) -> None:
        self.sums: dict[int, int] = {}
        self.opened = self.closed = 0
        self.gate: list[int] = []

    def open(self, slot: int) -> None:
        assert slot not in self.sums
        self.sums[slot] = 0
        self.opened += 1

    def close(self, slot: int) -> None:
        del self.sums[slot]
        self.closed += 1

    def unload(self) -> None: ...

    def step(self, slots: Sequence[int], xs: Sequence[EarsInput]) -> list[EarsOutput | BaseException]:
        return [self._one(slot, x) for slot, x in zip(slots, xs, strict=True)]

    def _one(self, slot: int, x: EarsInput) -> EarsOutput | BaseException:
        if len(x.pcm) and -int(x.pcm[0]) in ERRORS:
            return ERRORS[-int(x.pcm[0])]
        self.sums[slot] += int(x.pcm.astype(np.int64).sum())
        words = (Word("sum", 0, len(x.pcm), 0.5),) if x.final else ()
        return EarsOutput(str(self.sums[slot]), "", words, final=x.final, end_probability=0.25)


@contextlib.asynccontextmanager
async def hosted(engine: Engine[Any, Any]) -> AsyncIterator[tuple[EngineHost, Path]]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too deep for the path of a Unix socket
        host = EngineHost({"ears": engine}, Welcome(["ears"], SLOTS))
        async with engine, host.listen(Path(folder) / "engine"):
            yield host, Path(folder) / "engine"


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


# ----------------------------------------------------------------------------------------------------------- properties

PCM = hnp.arrays(np.int16, st.integers(0, 40), elements=st.integers(-6, 2000))
ACTIONS = st.lists(
    st.tuples(st.just("open"), st.integers(0, 3), st.none(), st.none())
    | st.tuples(st.just("close"), st.integers(0, 3), st.none(), st.none())
    | st.tuples(st.just("step"), st.integers(0, 3), PCM, st.booleans()),
    max_size=30,
)


async def perform(engine: Steps[EarsInput, EarsOutput], actions: list[Any]) -> list[object]:
    """What each action gives: an output, or the class and text of an error. Four callers for three slots."""
    slots: dict[int, tuple[contextlib.AsyncExitStack, int]] = {}
    seen: list[object] = []
    try:
        for verb, caller, pcm, final in actions:
            try:
                if verb == "open" and caller not in slots:
                    stack = contextlib.AsyncExitStack()
                    slots[caller] = stack, await stack.enter_async_context(engine.slot())
                elif verb == "close" and caller in slots:
                    await slots.pop(caller)[0].aclose()
                elif verb == "step" and caller in slots:
                    seen.append(await engine.step(slots[caller][1], EarsInput(pcm, final)))
            except Exception as error:
                seen.append((type(error), str(error), vars(error)))
    finally:
        for stack, _ in slots.values():
            await stack.aclose()
    return seen


@settings(max_examples=40)
@given(ACTIONS)
def test_a_remote_engine_answers_as_the_local_one(actions: list[Any]) -> None:
    async def main() -> None:
        local, far = Engine(Adding(), name="ears"), Engine(Adding(), name="ears")
        async with local:
            expected = await perform(local, actions)
        async with hosted(far) as (_, path), remote.connect(path) as link:
            assert await perform(link.engine("ears"), actions) == expected
            assert far.slots_in_use == 0

    asyncio.run(main())


FLOATS = st.floats(-1e6, 1e6)
WORDS = st.builds(SpokenWord, st.text(), st.integers(0, 2**62), st.integers(0, 10**9))
NUMBERS = hnp.arrays(np.float32, 3, elements=st.floats(-9, 9, width=32))
DRAFTED = st.builds(
    Drafted,
    st.lists(st.integers(0, 9)).map(tuple),
    st.lists(st.integers(0, 9)).map(tuple),
    st.booleans(),
    hnp.arrays(np.float32, st.tuples(st.integers(0, 3), st.just(4)), elements=st.floats(-9, 9, width=32)),
    NUMBERS,
    NUMBERS,
    NUMBERS,
)
JUDGEMENTS = st.builds(Judgement, FLOATS, st.integers(0, 9))
DRAFTS = st.builds(Draft, st.lists(st.text()).map(tuple), st.booleans(), st.none() | DRAFTED, st.none() | JUDGEMENTS)
SIGNALS = st.builds(Signals, st.integers(0, 2**40), FLOATS, FLOATS, FLOATS, st.none() | FLOATS, st.none() | FLOATS)
VALUES = {
    "ears": st.builds(EarsInput, PCM, st.booleans())
    | st.builds(
        EarsOutput,
        st.text(),
        st.text(),
        st.lists(st.builds(Word, st.text(), st.integers(0, 9), st.integers(0, 9), FLOATS)).map(tuple),
        st.booleans(),
        st.none() | FLOATS,
        st.none() | st.integers(0, 999),
    ),
    "voice": st.builds(VoiceInput, st.text(), st.booleans(), FLOATS, st.booleans())
    | st.builds(VoiceOutput, PCM, st.lists(WORDS).map(tuple), st.booleans()),
    "brain": st.builds(
        BrainInput,
        st.lists(st.integers(0, 9)),
        st.builds(Sampling, FLOATS, FLOATS, st.integers(0, 99)),
        st.just([]),
        st.lists(st.integers(0, 9)),
    )
    | st.builds(BrainOutput, st.none() | st.integers(0, 9), FLOATS, FLOATS, FLOATS, FLOATS),
    "draft": st.builds(
        DraftInput,
        PCM,
        st.text(),
        st.sampled_from(["", "whole", "broken"]),
        st.integers(0, 9),
        FLOATS,
        st.integers(0, 9),
    )
    | st.builds(DraftOutput, st.none() | SIGNALS, st.none() | DRAFTS),
    "verifier": st.builds(Judged, DRAFTS, FLOATS) | JUDGEMENTS,
}
GIVEN = (EarsOutput, VoiceOutput, BrainOutput, DraftOutput, Judgement)


@given(st.data(), st.sampled_from(sorted(VALUES)))
def test_every_value_comes_through_as_it_was(data: st.DataObject, name: str) -> None:
    value = data.draw(VALUES[name])
    back = unpack(msgspec.Raw(bytes(pack(value))), KINDS[name][isinstance(value, GIVEN)])
    assert_same(value, back)


def assert_same(value: Any, back: Any) -> None:
    assert type(back) is type(value)
    if isinstance(value, np.ndarray):
        assert value.dtype == back.dtype
        assert back.flags.writeable
        np.testing.assert_array_equal(value, back)
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            assert_same(getattr(value, each.name), getattr(back, each.name))
    else:
        assert value == back


@given(PCM)
def test_a_bare_array_comes_through(pcm: Int16Array) -> None:
    back = unpack(msgspec.Raw(bytes(pack(pcm))), KINDS["denoise"][1])
    np.testing.assert_array_equal(back, pcm)


@pytest.mark.parametrize("value", [np.array([None]), np.int64(1), object()], ids=repr)
def test_what_cannot_be_sent_says_so(value: object) -> None:
    with pytest.raises(TypeError):
        pack({"x": value})


@pytest.mark.parametrize("name", [name for name in vars(relay.errors) if name.endswith(("Error", "Busy", "Failed"))])
def test_errors_of_this_project_come_through_as_themselves(name: str) -> None:
    kind = getattr(relay.errors, name)
    error = kind("voice", "why") if kind is StageFailed else kind("why")
    back = error_of(msgspec.msgpack.decode(msgspec.msgpack.encode(failed(7, error)), type=Failed))
    assert type(back) is kind
    assert (str(back), vars(back)) == (str(error), vars(error))


def test_other_errors_are_told_of_but_never_made() -> None:
    class Strange(Exception): ...

    back = error_of(failed(0, Strange("what")))
    assert (type(back), str(back)) == (RuntimeError, "Strange: what")
    for kind in ("SystemExit", "KeyboardInterrupt", "dataclass", "no_such", "Shown"):
        assert type(error_of(Failed(0, kind, ["x"], {}))) is RelayError
    assert type(error_of(failed(0, KeyError("k")))) is KeyError


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_documented_error(body: bytes) -> None:
    with contextlib.suppress(FrameError):
        Frames(Up).decode(body)
    for kind in {kind for pair in KINDS.values() for kind in pair}:
        with contextlib.suppress(FrameError):
            unpack(msgspec.Raw(body), kind)


def test_frames_are_bounded() -> None:
    with pytest.raises(FrameError, match="larger"):
        body_bytes(struct.pack("!I", MAX_FRAME_BYTES + 1))
    with pytest.raises(FrameError, match="larger"):
        frame(Welcome(["x" * MAX_FRAME_BYTES], 1))
    assert body_bytes(frame(Welcome([], 1))[: HEADER.size]) == len(frame(Welcome([], 1))) - HEADER.size


# ------------------------------------------------------------------------------------------------------- lost and late


class Waiting(Adding):
    """Steps when it is let."""

    def load(self) -> None:
        super().load()
        import threading

        self.let = threading.Event()
        self.stepping = threading.Event()

    def step(self, slots: Sequence[int], xs: Sequence[EarsInput]) -> list[EarsOutput | BaseException]:
        self.stepping.set()
        assert self.let.wait(20)
        return super().step(slots, xs)


NOTHING = EarsInput(np.zeros(0, np.int16))


def test_a_gateway_that_dies_frees_its_slots_even_in_a_step() -> None:
    async def main() -> None:
        runner = Waiting()
        engine = Engine(runner, name="ears")
        async with hosted(engine) as (_, path), remote.connect(path) as staying, staying.engine("ears").slot():
            async with contextlib.AsyncExitStack() as stack:
                reader, writer = await asyncio.open_unix_connection(path)
                link = EngineLink("engine", writer, Welcome([], 0))
                following = asyncio.create_task(_follow(link, reader))
                dying = link.engine("ears")
                slot = await stack.enter_async_context(dying.slot())
                await stack.enter_async_context(dying.slot())
                step = asyncio.create_task(dying.step(slot, NOTHING))
                await until(runner.stepping.is_set)
                assert engine.slots_in_use == SLOTS
                writer.transport.abort()
                with pytest.raises(RelayError, match="engine process"):
                    await step
                await following
                runner.let.set()
            await until(lambda: engine.slots_in_use == 1)
            async with staying.engine("ears").slot(), staying.engine("ears").slot():
                pass
        assert runner.opened == runner.closed

    asyncio.run(main())


async def _follow(link: EngineLink, reader: asyncio.StreamReader) -> None:
    await remote.read_body(reader)  # the welcome
    await link.follow(reader)


def test_when_the_engine_process_ends_everything_fails_at_once_and_says_why() -> None:
    async def main() -> None:
        runner = Waiting()
        async with contextlib.AsyncExitStack() as stack:
            hosting = contextlib.AsyncExitStack()
            _, path = await hosting.enter_async_context(hosted(Engine(runner, name="ears")))
            link = await stack.enter_async_context(remote.connect(path))
            ears = link.engine("ears")
            slot = await stack.enter_async_context(ears.slot())
            step = asyncio.create_task(ears.step(slot, NOTHING))
            await until(runner.stepping.is_set)
            closing = asyncio.create_task(hosting.aclose())
            runner.let.set()
            with pytest.raises(RelayError, match="engine process has ended"):
                await step
            await link.lost.wait()
            with pytest.raises(RelayError, match="engine process has ended"):
                await ears.step(slot, NOTHING)
            with pytest.raises(RelayError, match="engine process has ended"):
                async with ears.slot():
                    pass
            await closing
        with pytest.raises(relay.errors.ConnectionFailed):
            async with remote.connect(path):
                pass

    asyncio.run(main())


def test_a_cancelled_step_keeps_its_slot_until_it_has_ended() -> None:
    async def main() -> None:
        runner = Waiting()
        engine = Engine(runner, name="ears")
        async with hosted(engine) as (_, path), remote.connect(path) as link:
            ears = link.engine("ears")

            async def caller() -> None:
                async with ears.slot() as slot:
                    await ears.step(slot, NOTHING)

            task = asyncio.create_task(caller())
            await until(runner.stepping.is_set)
            task.cancel()
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(task), 0.05)
            assert engine.slots_in_use == 1
            with pytest.raises(RuntimeError, match="being stepped already"):
                await ears.step(next(iter(ears._pending)), NOTHING)
            runner.let.set()
            await until(lambda: engine.slots_in_use == 0)

    asyncio.run(main())


def test_an_open_cancelled_under_way_leaves_no_slot_open() -> None:
    async def main() -> None:
        engine = Engine(Adding(), name="ears")
        async with hosted(engine) as (_, path), remote.connect(path) as link:

            async def caller() -> None:
                async with link.engine("ears").slot():
                    await asyncio.sleep(60)

            for turns in range(8):
                task = asyncio.create_task(caller())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(20):
                while True:  # all slots can be had again
                    with contextlib.suppress(EngineBusy):
                        async with link.engine("ears").slot(), link.engine("ears").slot(), link.engine("ears").slot():
                            break
                    await asyncio.sleep(0.001)

    asyncio.run(main())


def test_a_gateway_reaches_its_own_slots_only_and_nonsense_cuts_it_off() -> None:
    async def main() -> None:
        engine = Engine(Adding(), name="ears")
        async with hosted(engine) as (_, path), remote.connect(path) as one, remote.connect(path) as other:
            stack = contextlib.AsyncExitStack()
            slot = await stack.enter_async_context(one.engine("ears").slot())
            async with stack:
                with pytest.raises(RuntimeError, match="not open"):
                    await other.engine("ears").step(slot, NOTHING)
                with pytest.raises(RelayError, match="no engine"):
                    async with other.engine("voice").slot():
                        pass
                with pytest.raises(RelayError, match="larger"):
                    await one.engine("ears").step(slot, EarsInput(np.zeros(MAX_FRAME_BYTES, np.int16)))
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(struct.pack("!I", 2**31))
                async with asyncio.timeout(20):
                    await reader.read()
                writer.close()
                assert (await one.engine("ears").step(slot, NOTHING)).stable == "0"

    asyncio.run(main())


def test_all_gateways_are_told_of_the_seats() -> None:
    async def main() -> None:
        async with hosted(Engine(Adding(), name="ears")) as (host, path), remote.connect(path) as one:
            host.tell(Seated(2, "no time"))
            async with remote.connect(path) as late:
                await until(lambda: one.taken == late.taken == 2)
                assert one.refusal == late.refusal == "no time"
                assert late.welcome == Welcome(["ears"], SLOTS)

    asyncio.run(main())


def test_what_cannot_be_loaded_there_is_raised_here() -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ears"
            async with EngineHost({}, failed(0, EngineUnavailable("no GPU here"))).listen(path):
                with pytest.raises(EngineUnavailable, match="no GPU here"):
                    async with remote.connect(path):
                        pass

    asyncio.run(main())


def test_a_socket_that_listens_already_is_answered_when_there_is_an_engine() -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = Path(folder) / "ears"
            listener.bind(str(path))
            listener.listen()
            early = asyncio.create_task(_asked(path))
            await asyncio.sleep(0)
            engine = Engine(Adding(), name="ears")
            async with engine, EngineHost({"ears": engine}, Welcome(["ears"], SLOTS)).listen(listener):
                assert await early == "7"
            with pytest.raises(relay.errors.ConnectionFailed):
                await _asked(path)

    asyncio.run(main())


async def _asked(path: Path) -> str:
    async with remote.connect(path) as link, link.engine("ears").slot() as slot:
        output: EarsOutput = await link.engine("ears").step(slot, EarsInput(np.array([3, 4], np.int16)))
        return output.stable


def test_engines_of_several_processes_are_reached_by_name_and_a_loss_is_named() -> None:
    async def main() -> None:
        one, other = Engine(Adding(), name="ears"), Engine(Adding(), name="denoise")
        async with one, other, contextlib.AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            hosts = {
                "server": EngineHost({}, Welcome([], SLOTS)),
                "first": EngineHost({"ears": one}, Welcome(["ears"], SLOTS)),
                "second": EngineHost({"denoise": other}, Welcome(["denoise"], 0)),
            }
            hosting = {name: contextlib.AsyncExitStack() for name in hosts}
            for name, host in hosts.items():
                await stack.enter_async_context(hosting[name])
                await hosting[name].enter_async_context(host.listen(folder / name))
            links = [await stack.enter_async_context(remote.connect(folder / name)) for name in hosts]
            joined = Links(links[0], links[1:])
            assert joined.names == ["denoise", "ears"]
            async with joined.engine("ears").slot(), joined.engine("denoise").slot():
                assert (one.slots_in_use, other.slots_in_use) == (1, 1)
            hosts["first"].tell(Loads({"ears": Measures(0.5, 0.6, 0.7)}))
            hosts["second"].tell(Loads({"noise suppression": Measures(0.25)}))
            await until(lambda: joined.used() == {"ears": 0.5, "noise suppression": 0.25})
            losing = asyncio.create_task(joined.lost())
            await asyncio.sleep(0.01)
            assert not losing.done()
            await hosting["second"].aclose()
            assert "the second process has ended" in str(await losing)

    asyncio.run(main())


def test_callers_are_refused_for_want_of_time_in_another_process() -> None:
    async def main() -> None:
        async with hosted(Engine(Adding(), name="ears")) as (host, path), remote.connect(path) as link:
            admission = Admission({"ears": RemoteLoad(link, "ears")})
            admission.count(0.0, 8)
            assert admission.refusal(20.0) is None  # nothing is known of it yet
            host.tell(Loads({"ears": Measures(0.9, 0.95, 0.1)}))
            await until(lambda: link.loads)
            refusal = admission.refusal(20.0)
            assert refusal is not None
            assert "with one caller more the ears would take 94%" in refusal

    asyncio.run(main())
