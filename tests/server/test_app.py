"""The edge over real sockets: what is documented happens, neighbours are unharmed, nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from relay.config import Limits, ServerConfig
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.errors import ConfigError
from relay.server.app import RelayServer, serve
from tests.server.conftest import BeepVoice, Client, EndlessBrain

TONE = (8000 * np.sin(np.arange(12_000) / 9)).astype("<i2").tobytes()


def test_http_side(serving: Any) -> None:
    async def main() -> None:
        async with serving() as stand, httpx.AsyncClient(base_url=stand.server.url) as http:
            page = await http.get("/")
            assert page.status_code == 200
            assert "<html" in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
            again = await http.get("/", headers={"If-None-Match": page.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert (await http.get("/app.js")).headers["content-type"].startswith("text/javascript")
            assert (await http.get("/healthz")).text == "ok\n"
            assert (await http.get("/readyz")).json() == {
                "ready": True,
                "sessions": 0,
                "capacity": 64,
                "refusing": None,
            }
            assert "relay_sessions 0.0" in (await http.get("/metrics")).text
            for path in ("/nothing", "/../pyproject.toml", "/__init__.py", "/v1/realtime"):
                missing = await http.get(path)
                assert missing.status_code == 404
                assert missing.json()["error"]["code"] == "not_found"

    asyncio.run(main())


BAD_INPUT = [
    ("not json", "{", "invalid_json"),
    ("not an object", "[1]", None),
    ("unknown event", '{"type":"input_audio_buffer.sing","event_id":"e1"}', "unknown_event"),
    ("text where audio is due", '{"type":"input_audio_buffer.append","audio":"hello world!","event_id":"e1"}', None),
    ("half a sample", '{"type":"input_audio_buffer.append","audio":"AAAA","event_id":"e1"}', "invalid_audio"),
    (
        "a rate that does not exist",
        '{"type":"session.update","event_id":"e1","session":{"type":"realtime","audio":{"input":{"format":'
        '{"type":"audio/pcm","rate":11025}}}}}',
        None,
    ),
    ("nothing to cancel", '{"type":"response.cancel","event_id":"e1"}', "response_cancel_not_active"),
    ("nothing to commit", '{"type":"input_audio_buffer.commit","event_id":"e1"}', "input_audio_buffer_commit_empty"),
    ("binary noise", os.urandom(999), "unexpected_binary"),
]


@pytest.mark.parametrize(("what", "frame", "code"), BAD_INPUT, ids=[case[0] for case in BAD_INPUT])
def test_bad_input_is_answered_and_the_session_lives(serving: Any, what: str, frame: str | bytes, code: str) -> None:
    async def main() -> None:
        async with serving() as stand, stand.client() as client:
            await client.socket.send(frame)
            error = (await client.wait_for("error"))["error"]
            assert error["type"] == "invalid_request_error"
            assert error["message"]
            if code is not None:
                assert error["code"] == code
            if isinstance(frame, str) and "e1" in frame:
                assert error["event_id"] == "e1"
            assert (await client.text_turn())["status"] == "completed"

    asyncio.run(main())


def test_a_frame_past_the_limit_closes_its_connection_only(serving: Any) -> None:
    async def main() -> None:
        async with serving() as stand, stand.client() as neighbour:
            # No `async with`: its close() trips over the transport that the server has cut (CPython 3.11).
            client = Client(await connect(stand.ws_url))
            with pytest.raises(ConnectionClosed) as closed:
                await client.socket.send("x" * 20_000_000)
                await client.wait_for("never")
            assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
            assert (await neighbour.text_turn())["status"] == "completed"

    asyncio.run(main())


def test_a_flood_of_audio_is_closed_with_its_code(serving: Any) -> None:
    async def main() -> None:
        async with serving(limits=Limits(max_audio_ahead_s=2.0)) as stand, stand.client() as client:
            with pytest.raises(ConnectionClosed) as closed:
                for _ in range(2000):
                    await client.append(TONE * 8)
                    await asyncio.sleep(0)
                await client.wait_for("never")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert "audio_too_fast" in closed.value.rcvd.reason

    asyncio.run(main())


def test_clients_that_vanish_leave_nothing_and_harm_nobody(serving: Any) -> None:
    async def main() -> None:
        brain = EndlessBrain("one ", 0.05, "two ", *(["more "] * 200))
        async with serving(brain=brain) as stand, stand.client() as neighbour:
            tasks_before = len(asyncio.all_tasks())
            for cut in range(8):
                async with connect(stand.ws_url) as socket:
                    await socket.send(json.dumps({"type": "response.create"}))
                    for _ in range(2 + cut):
                        await socket.recv()
                    socket.transport.abort()
            async with asyncio.timeout(20):
                while stand.server._seats.taken > 1 or len(asyncio.all_tasks()) > tasks_before:
                    await asyncio.sleep(0.01)
            assert stand.server._services.voice.slots_in_use == 0
            assert stand.server._services.ears.slots_in_use == 1
            await neighbour.send(type="response.create")
            await neighbour.wait_for("response.output_audio.delta")
            await neighbour.send(type="response.cancel")
            done = await neighbour.wait_for("response.done")
            assert done["response"]["status"] == "cancelled"

    asyncio.run(main())


def test_key_origin_and_seats(serving: Any) -> None:
    async def refused(stand: Any, **options: Any) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as info:
            async with connect(stand.ws_url, **options):
                pass
        body = json.loads(info.value.response.body or b"{}")
        return info.value.response.status_code, body["error"]["code"]

    async def main() -> None:
        async with serving(api_key="secret", max_sessions=1) as stand:
            assert await refused(stand) == (401, "invalid_api_key")
            key = {"additional_headers": {"Authorization": "Bearer secret"}}
            async with stand.client(**key):
                assert await refused(stand, **key) == (503, "too_many_sessions")
            await stand.until_empty()
            async with stand.client(subprotocols=["realtime", "openai-insecure-api-key.secret"]) as client:
                assert client.socket.subprotocol == "realtime"
        async with serving() as stand:
            assert await refused(stand, origin="https://evil.example") == (401, "invalid_api_key")

    asyncio.run(main())


def test_tls(serving: Any, tmp_path: Path) -> None:
    async def main() -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        import ssl

        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with serving(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem") as stand:
            assert stand.ws_url.startswith("wss://")
            async with stand.client(ssl=context) as client:
                assert (await client.text_turn())["status"] == "completed"
        with pytest.raises(ConfigError, match="tls"):
            async with serving(tls_cert=tmp_path / "key.pem", tls_key=tmp_path / "cert.pem"):
                pass

    asyncio.run(main())


def test_a_taken_port_is_said_clearly(serving: Any) -> None:
    async def main() -> None:
        async with serving() as stand:
            port = int(stand.server.url.rsplit(":", 1)[1])
            with pytest.raises(ConfigError, match="choose another --port"):
                async with RelayServer(ServerConfig(port=port)):
                    pass

    asyncio.run(main())


def test_a_session_is_recorded(serving: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(record_dir=tmp_path) as stand:
            async with stand.client() as client:
                await client.append(TONE)
                await client.socket.send("{")
                await client.text_turn()
            await stand.until_empty()
        (folder,) = tmp_path.iterdir()
        user, rate_hz = soundfile.read(folder / "user.flac", dtype="int16")
        assert rate_hz == 24_000
        assert user.tobytes() == TONE
        agent, _ = soundfile.read(folder / "agent.flac", dtype="int16")
        assert np.count_nonzero(agent) == 2 * 2400
        lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        kinds = {
            sender: [line["event"]["type"] for line in lines if line["from"] == sender and line["event"] != "{"]
            for sender in ("client", "server")
        }
        assert kinds["server"][0] == "session.created"
        assert {"response.output_audio.delta", "response.done"} <= set(kinds["server"])
        assert kinds["client"] == ["input_audio_buffer.append", "conversation.item.create", "response.create"]
        assert [line["from"] for line in lines if line["event"] == "{"] == ["client"]
        events = [line["event"] for line in lines if line["event"] != "{"]
        audio = [e for e in events if e["type"] in ("input_audio_buffer.append", "response.output_audio.delta")]
        assert not any({"audio", "delta"} & event.keys() for event in audio)

    asyncio.run(main())


def test_the_server_says_goodbye(serving: Any) -> None:
    async def main() -> None:
        async with serving() as stand:
            socket = await connect(stand.ws_url)
            await socket.recv()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001

    asyncio.run(main())


class SlowVoice(BeepVoice):
    """A step takes 0.1 s, whoever it is for."""

    max_batch = 1

    def step(self, slots: Sequence[int], xs: Sequence[VoiceInput]) -> list[VoiceOutput | BaseException]:
        threading.Event().wait(0.1)
        return super().step(slots, xs)


def test_callers_are_refused_for_want_of_time_and_those_inside_go_on(serving: Any) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(100),
            serving(voice=SlowVoice) as stand,
            httpx.AsyncClient(base_url=stand.server.url) as http,
            contextlib.AsyncExitStack() as stack,
        ):
            clients = [await stack.enter_async_context(stand.client()) for _ in range(4)]
            tired = asyncio.Event()

            async def talk(client: Client) -> None:
                while not tired.is_set():
                    assert (await client.text_turn())["status"] == "completed"

            async with asyncio.TaskGroup() as talking:
                for client in clients:
                    talking.create_task(talk(client))
                while (reason := (await http.get("/readyz")).json()["refusing"]) is None:
                    await asyncio.sleep(0.05)
                with pytest.raises(InvalidStatus) as caught:
                    async with stand.client():
                        pass
                metrics = (await http.get("/metrics")).text
                tired.set()
            for client in clients:
                assert (await client.text_turn())["status"] == "completed"
            response = caught.value.response
            told = json.loads(response.body)["error"]
            assert (response.status_code, told["type"], told["code"]) == (503, "rate_limit_error", "too_many_sessions")
            assert "the voice would take" in told["message"]
            assert "the voice would take" in reason
            assert 'relay_refused_total{reason="too_many_sessions"} 1.0' in metrics
            lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("relay_load"))
            assert set(lines) == {f'relay_load{{part="{part}"}}' for part in ("ears", "voice", "sockets")}
            assert float(lines['relay_load{part="voice"}']) > 0.1
            counted = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("relay_step"))
            assert float(counted['relay_steps_total{part="voice"}']) >= 1
            assert float(counted['relay_step_seconds_total{part="voice"}']) > 0
            assert "\nrelay_device_memory_bytes " in metrics

    asyncio.run(main())


def test_without_a_limit_of_load_nobody_is_refused_for_want_of_time(serving: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(100), serving(max_load_percent=0) as stand:
            server = stand.server
            for number in range(100):
                server._sockets.stepped(time.monotonic() - number / 10, 1, 1.0)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(6):
                    await stack.enter_async_context(stand.client())
                assert server._seats.refusal() is None

    asyncio.run(main())


def test_a_server_that_is_ready_has_what_it_loaded_out_of_the_garbage_collectors_way(serving: Any) -> None:
    frozen: list[int] = []

    async def main() -> None:
        async with serving() as stand:  # with models that cost nothing
            ready = asyncio.Event()

            def on_ready(url: str) -> None:
                frozen.append(gc.get_freeze_count())
                ready.set()

            task = asyncio.create_task(serve(ServerConfig(port=0), on_ready))
            await ready.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert stand.server.url

    before = gc.get_freeze_count()
    try:
        asyncio.run(main())
        assert frozen[0] > before
    finally:
        gc.unfreeze()
