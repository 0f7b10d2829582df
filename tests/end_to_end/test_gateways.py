"""`relay serve --gateways 2` as it is started: sessions over both, processes that die, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import relay
from relay.audio import VOICE_RATE_HZ
from relay.client.files import load
from relay.config import ServerConfig
from relay.errors import ConfigError
from tests.fast_models import save_fast_models
from tests.server.conftest import Client

PATIENCE_S = 60
pytestmark = pytest.mark.timeout(300)


@dataclass
class Running:
    """A server of several processes."""

    process: asyncio.subprocess.Process
    url: str

    @property
    def children(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]

    @property
    def gateways(self) -> list[psutil.Process]:
        return [child for child in self.children if "relay.server.gateway" in child.cmdline()]

    @property
    def engines(self) -> list[psutil.Process]:
        return [child for child in self.children if "relay.server.engine" in child.cmdline()]

    def callers(self, gateway: psutil.Process) -> int:
        port = urlsplit(self.url).port
        return sum(
            one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in gateway.net_connections("tcp")
        )

    async def sessions(self) -> int:
        async with httpx.AsyncClient() as http:
            return int((await http.get(self.url + "/readyz")).json()["sessions"])

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with connect(self.url.replace("http", "ws", 1) + "/v1/realtime") as socket:
            client = Client(socket)
            await client.wait_for("session.created")
            yield client


@contextlib.asynccontextmanager
async def serving(*flags: str, environ: Mapping[str, str | None] | None = None) -> AsyncIterator[Running]:
    """A server of two gateways; `environ` sets variables of its environment, or, by None, takes them away."""
    variables = {**os.environ, **(environ or {})}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "serve", "--port", "0", "--gateways", "2", *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in variables.items() if value is not None},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("ready "), line
        yield Running(process, line.removeprefix("ready ").strip())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if await condition():
                    return
            await asyncio.sleep(0.05)


async def refused(running: Running) -> bool:
    """A full server says so in the handshake, or, in the instant before a gateway has heard of it, when it closes."""
    try:
        async with running.client():
            return False
    except InvalidStatus as error:
        return error.response.status_code == 503
    except ConnectionClosed as error:
        return error.rcvd is not None and error.rcvd.code == 1013


def test_sessions_are_counted_over_all_gateways_and_a_death_takes_only_its_own() -> None:
    async def main() -> None:
        async with serving("--max-sessions", "6") as running, contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(running.client()) for _ in range(6)]
            replies = await asyncio.gather(*(client.text_turn("hello there") for client in clients))
            assert [reply["status"] for reply in replies] == ["completed"] * 6
            await until(lambda: _is(running.sessions, 6))
            assert await refused(running)

            async with httpx.AsyncClient() as http:
                metrics = (await http.get(running.url + "/metrics")).text
                assert (await http.get(running.url + "/healthz")).text == "ok\n"
            assert "relay_sessions 6.0" in metrics
            assert 'relay_replies_total{status="completed"} 6.0' in metrics

            # The gateway that holds the first client dies.
            port = clients[0].socket.local_address[1]
            holder = next(
                gateway
                for gateway in running.gateways
                if any(pair.raddr and pair.raddr.port == port for pair in gateway.net_connections())
            )
            holder.kill()
            alive = [client for client in clients if not await _is_lost(client)]
            await until(lambda: _is(running.sessions, len(alive)))
            for client in alive:
                assert (await client.text_turn("and now"))["status"] == "completed"
            await until(lambda: _has_gateways(running, 2))  # another has taken its place
            async with asyncio.timeout(PATIENCE_S):
                while len(alive) < 6:
                    with contextlib.suppress(InvalidStatus):  # a gateway that has not heard of the free seats yet
                        alive.append(await stack.enter_async_context(running.client()))
            await until(lambda: _is(running.sessions, 6))
            assert await refused(running)

    asyncio.run(main())


def test_gateways_share_the_callers_evenly() -> None:
    async def main() -> None:
        async with serving() as running, contextlib.AsyncExitStack() as stack:
            for _ in range(16):
                await stack.enter_async_context(running.client())
            held = [running.callers(gateway) for gateway in running.gateways]
            assert sum(held) == 16
            assert min(held) >= 5, held  # with a gateway that is slow to ask now and then, on a busy machine

    asyncio.run(main())


async def _is(number: Callable[[], Awaitable[int]], expected: int) -> bool:
    return await number() == expected


async def _has_gateways(running: Running, count: int) -> bool:
    return len(running.gateways) == count


async def _is_lost(client: Client) -> bool:
    """Whether a client was that gateway's: one of another answers."""
    try:
        await client.text_turn("still there?")
    except ConnectionClosed:
        return True
    return False


@pytest.mark.parametrize(("flags", "engines"), [((), 4), (("--engine-processes", "one"), 1)], ids=["each", "one"])
def test_a_spoken_turn_and_a_clean_end(flags: tuple[str, ...], engines: int) -> None:
    question = Path(relay.__file__).parent / "assets" / "question.wav"

    async def main() -> None:
        async with serving(*flags) as running:
            children = running.children
            assert (len(running.engines), len(children)) == (engines, engines + 2)
            async with running.client() as client:
                pcm = load(question, VOICE_RATE_HZ)
                for at in range(0, len(pcm), 2400):
                    await client.append(pcm[at : at + 2400].astype("<i2").tobytes())
                await client.append(bytes(2 * 24_000))
                done = await client.wait_for("response.done")
                assert done["response"]["status"] == "completed"
                assert any(event["type"] == "response.output_audio.delta" for event in client.events)
                running.process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await client.socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1001
            async with asyncio.timeout(PATIENCE_S):
                assert await running.process.wait() == 0
            assert not any(child.is_running() for child in children)

    asyncio.run(main())


@pytest.fixture(scope="module")
def fast_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with small random models of the fast path, whose drafts have words whatever is heard."""
    home = tmp_path_factory.mktemp("home")
    save_fast_models(home)
    return home


@pytest.mark.parametrize("path", ["relay", "draft"])
def test_a_draft_is_made_and_judged_in_a_process_of_its_own(path: str, fast_models: Path) -> None:
    question = Path(relay.__file__).parent / "assets" / "question.wav"
    # The brain is far slower than any machine's draft: which path wins is no matter of luck.
    flags = ("--path", path, "--brain-delay-ms", "20000", "--no-speculation", "--ears", "pocketsphinx")

    async def main() -> None:
        async with serving(*flags, environ={"RELAY_HOME": str(fast_models)}) as running, running.client() as client:
            await client.send(type="session.update", session={"type": "realtime", "relay": {"draft": True}})
            pcm = load(question, VOICE_RATE_HZ)
            for at in range(0, len(pcm), 2400):
                await client.append(pcm[at : at + 2400].astype("<i2").tobytes())
            await client.append(bytes(2 * 24_000))
            report = (await client.wait_for("relay.draft"))["draft"]
            assert report["committed"], report
            assert (report["probability"] is None) == (path == "draft")
            heard = await client.wait_for("response.output_audio_transcript.delta")
            assert report["prefix"].startswith(heard["delta"])
            async with httpx.AsyncClient() as http:
                metrics = (await http.get(running.url + "/metrics")).text
            assert 'relay_drafts_total{outcome="committed"} 1.0' in metrics
            assert len(running.engines) == 4
            parts = {"ears", "voice", "brain", "draft model", "sockets"}
            assert all(f'relay_load{{part="{part}"}}' in metrics for part in parts)

    asyncio.run(main())


@pytest.mark.parametrize("parts", ["each", "one"])
def test_where_the_relay_does_not_load_the_cascade_answers_and_it_is_said_once(parts: str, tmp_path: Path) -> None:
    draft = tmp_path / "models" / "draft"
    draft.mkdir(parents=True)
    (draft / "config.json").write_text("no config")

    async def paths(running: Running) -> list[str]:
        async with running.client() as client:
            await client.send(type="session.update", session={"type": "realtime", "relay": {}})
            offered: list[str] = (await client.wait_for("session.updated"))["session"]["relay"]["paths"]
            assert (await client.text_turn("hello there"))["status"] == "completed"
            return offered

    async def main() -> None:
        async with serving("--engine-processes", parts) as running:
            assert await paths(running) == ["relay", "cascade", "draft"]
        async with serving("--engine-processes", parts, environ={"RELAY_HOME": str(tmp_path)}) as running:
            assert await paths(running) == ["cascade"]
            running.process.terminate()
            assert running.process.stderr is not None
            async with asyncio.timeout(PATIENCE_S):
                log = (await running.process.stderr.read()).decode()
        assert log.count("replies are made by the language model alone (--path cascade): ") == 1, log
        assert "Traceback" not in log

    asyncio.run(main())


def test_ctrl_c_ends_all_processes_with_its_status() -> None:
    async def main() -> None:
        async with serving() as running:
            children = running.children
            running.process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE_S):
                assert await running.process.wait() == 130
            assert not any(child.is_running() for child in children)
            assert running.process.stderr is not None
            assert b"Traceback" not in await running.process.stderr.read()

    asyncio.run(main())


def test_ctrl_c_while_models_load_leaves_no_process_behind() -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", "serve", "--port", "0", "--gateways", "2"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            while len(children := psutil.Process(process.pid).children()) < 3:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert await process.communicate() == (b"", b"")
        assert process.returncode == 130
        assert not any(child.is_running() for child in children)

    asyncio.run(main())


def test_when_the_first_process_is_killed_the_others_end_and_the_gateways_say_why() -> None:
    async def main() -> None:
        async with serving() as running:
            children = running.children
            async with running.client() as client:
                running.process.kill()
                with pytest.raises(ConnectionClosed):
                    while True:
                        await client.socket.recv()
            _, left = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE_S)
            assert not left
            assert running.process.stderr is not None
            log = (await running.process.stderr.read()).decode()
            # One that is slow to look may find that a process with models, which ends for the same reason, is gone too.
            assert log.count("relay: error: gateway: the ") == log.count(" process has ended; see its log") == 2
            assert "Traceback" not in log

    asyncio.run(main())


def test_when_a_process_with_a_model_is_killed_all_end_and_say_which() -> None:
    async def main() -> None:
        async with serving() as running:
            children = running.children
            voice = next(engine for engine in running.engines if any("/voice" in path for path in _sockets(engine)))
            async with running.client() as client:
                voice.kill()
                with pytest.raises(ConnectionClosed):
                    while True:
                        await client.socket.recv()
            async with asyncio.timeout(PATIENCE_S):
                assert await running.process.wait() == 1
            _, left = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE_S)
            assert not left
            assert running.process.stderr is not None
            log = (await running.process.stderr.read()).decode()
            assert "relay: error: the voice process has ended (-9)" in log
            assert "Traceback" not in log

    asyncio.run(main())


def _sockets(process: psutil.Process) -> list[str]:
    return [str(pair.laddr) for pair in process.net_connections("unix")]


@pytest.mark.parametrize("parts", ["each", "one"])
def test_a_model_that_cannot_run_is_told_once_by_the_first_process(parts: str) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", "serve", "--port", "0", "--gateways", "2"),
            *("--engine-processes", parts, "--ears", "no-such"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        assert (process.returncode, out) == (2, b"")
        assert err.startswith(b"relay: error: there is no ears engine 'no-such'")
        assert err.count(b"\n") == 1

    asyncio.run(main())


def test_libraries_use_one_thread_unless_they_are_told_otherwise() -> None:
    async def main() -> None:
        async with serving(environ={"OMP_NUM_THREADS": "3"}) as running:
            assert [child.environ()["OMP_NUM_THREADS"] for child in running.children] == ["3"] * 6
        async with serving(environ={"OMP_NUM_THREADS": None}) as running:
            assert [child.environ()["OMP_NUM_THREADS"] for child in running.children] == ["1"] * 6

    asyncio.run(main())


def test_what_gateways_cannot_do_is_said_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="--gateways"):
        ServerConfig(gateways=-1)
