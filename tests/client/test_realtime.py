from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve

import relay
from relay.audio import VOICE_RATE_HZ
from relay.client.dial import realtime_url
from relay.client.dialogue import Dialogue, hold
from relay.client.duplex import Recorder, Script
from relay.client.files import load
from relay.client.playout import PlayoutClock
from relay.client.realtime import Event, OutputAudio, UnknownEvent, connect
from relay.errors import ConnectionFailed, StageFailed, UsageError
from relay.wire import response_events, server_events
from tests.server.conftest import EndlessBrain

QUESTION = Path(relay.__file__).parent / "assets" / "question.wav"


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("ws://127.0.0.1:8000", "ws://127.0.0.1:8000/v1/realtime?model=relay"),
        ("http://localhost:80/", "ws://localhost:80/v1/realtime?model=relay"),
        ("https://example.org", "wss://example.org/v1/realtime?model=relay"),
        ("wss://example.org/other?model=m", "wss://example.org/other?model=m"),
        ("ws://[::1]:9", "ws://[::1]:9/v1/realtime?model=relay"),
    ],
)
def test_short_urls_mean_the_whole_address(short: str, full: str) -> None:
    assert realtime_url(short, "relay") == full


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "ws://", "ws://host:port", "ws://[::1"])
def test_what_is_no_url_is_wrong_use(url: str) -> None:
    with pytest.raises(UsageError, match="give one like ws://"):
        realtime_url(url, "relay")


@pytest.mark.parametrize("subprotocol", ["relay.v1", "realtime"])
def test_a_typed_turn_sounds_the_same_over_both_subprotocols(serving: Any, subprotocol: Any) -> None:
    async def main() -> list[Event]:
        events = []
        async with serving() as stand, connect(stand.server.url, subprotocol=subprotocol) as client:
            assert client.subprotocol == subprotocol
            await client.create_message("hello")
            await client.create_response(metadata={"a": "b"})
            async with asyncio.timeout(20):
                async for event in client:
                    events.append(event)
                    if isinstance(event, response_events.ResponseDone):
                        break
        return events

    events = asyncio.run(main())
    audio = [event for event in events if isinstance(event, OutputAudio)]
    at = 0
    for piece in audio:
        assert piece.first_sample == at
        at += len(piece.pcm)
    assert at == 2 * 2400
    done = events[-1]
    assert isinstance(done, response_events.ResponseDone)
    assert {piece.response_id for piece in audio} == {done.response.id}
    assert done.response.metadata == {"a": "b"}


def test_the_session_is_followed_and_audio_comes_in_its_format(serving: Any) -> None:
    async def main() -> None:
        async with serving() as stand, connect(stand.server.url) as client:
            ulaw = {"format": {"type": "audio/pcmu"}}
            await client.update({"audio": {"input": ulaw, "output": ulaw}})
            async with asyncio.timeout(20):
                async for event in client:
                    if isinstance(event, server_events.SessionUpdated):
                        break
                await client.append(np.zeros(160, dtype=np.int16))
                await client.create_message("hello")
                await client.create_response()
                samples = 0
                async for event in client:
                    assert not isinstance(event, server_events.Error)
                    if isinstance(event, OutputAudio):
                        samples += len(event.pcm)
                        assert np.abs(event.pcm).max() > 1000
                    if isinstance(event, response_events.ResponseDone):
                        break
            assert samples == 2 * 800  # 8 kHz

    asyncio.run(main())


def test_wrong_settings_are_refused_before_they_are_sent(serving: Any) -> None:
    async def main() -> None:
        async with serving() as stand, connect(stand.server.url) as client:
            with pytest.raises(UsageError, match=r"session\.update"):
                await client.update({"made_up": 1})
            with pytest.raises(UsageError, match=r"response\.create"):
                await client.create_response(made_up=1)

    asyncio.run(main())


def test_a_spoken_turn_in_real_time_is_answered_played_and_reported(serving: Any) -> None:
    async def main() -> None:
        question = load(QUESTION, VOICE_RATE_HZ)
        async with serving() as stand, connect(stand.server.url) as client:
            playout, script, recorder = PlayoutClock(), Script(), Recorder()
            dialogue = Dialogue(client, playout)
            await dialogue.start()
            script.say(question)
            async with asyncio.timeout(60):
                await hold(client, dialogue, playout, script, recorder.add)
            (reply,) = dialogue.replies.values()
            assert dialogue.transcripts == ["beep"]
            assert reply.status == "completed"
            assert reply.text.split() == ["Yes", "indeed."]
            assert [word.word for word in reply.words] == ["Yes", "indeed."]
            assert reply.metrics is not None
            assert playout.played_samples(reply.response_id) == reply.audio_samples == 2 * 2400
            assert int((np.abs(recorder.played()) == 3000).sum()) == 2 * 2400
            assert dialogue.quiet
            assert not dialogue.errors

    asyncio.run(main())


@pytest.mark.parametrize("subprotocol", ["relay.v1", "realtime"])
def test_speech_silences_the_reply_and_the_server_learns_what_was_heard(serving: Any, subprotocol: Any) -> None:
    long_answer = EndlessBrain(*(f"word{n} " for n in range(200)))

    async def main() -> None:
        question = load(QUESTION, VOICE_RATE_HZ)
        async with serving(brain=long_answer) as stand, connect(stand.server.url, subprotocol=subprotocol) as client:
            playout, script = PlayoutClock(), Script()
            truncated: list[Event] = []
            dialogue = Dialogue(client, playout, on_event=truncated.append)
            await dialogue.start()
            script.say(question)

            async def interrupt() -> None:
                await dialogue.until(lambda: any(playout.spans(r) for r in dialogue.replies))
                script.say(question)
                await dialogue.until(lambda: len(dialogue.replies) == 2)
                await client.cancel()
                await dialogue.until(lambda: dialogue.quiet)

            async with asyncio.timeout(60):
                talking = asyncio.create_task(hold(client, dialogue, playout, script))
                await interrupt()
                first = next(iter(dialogue.replies.values()))
                assert first.status == "cancelled"
                assert playout.played_samples(first.response_id) < first.audio_samples
                talking.cancel()
                await asyncio.gather(talking, return_exceptions=True)
            if subprotocol == "realtime":
                assert any(isinstance(event, server_events.ConversationItemTruncated) for event in truncated)
            assert not dialogue.errors

    asyncio.run(main())


def test_a_server_that_goes_silent_is_not_waited_for_for_ever(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.client.dialogue.SILENCE_TIMEOUT_MS", 1500)

    async def main() -> None:
        async with serving(brain=EndlessBrain(90.0)) as stand, connect(stand.server.url) as client:
            playout, script = PlayoutClock(), Script()
            dialogue = Dialogue(client, playout)
            await dialogue.start()
            script.say(load(QUESTION, VOICE_RATE_HZ))
            await hold(client, dialogue, playout, script)

    with pytest.raises(StageFailed, match="owes an answer"):
        asyncio.run(main())


def test_refusals_say_what_to_do(serving: Any) -> None:
    async def main() -> None:
        async with serving(api_key="secret", max_sessions=1) as stand:
            for key in (None, "wrong"):
                with pytest.raises(ConnectionFailed, match="--api-key"):
                    async with connect(stand.server.url, api_key=key):
                        pass
            with pytest.raises(ConnectionFailed, match="404"):
                async with connect(f"{stand.server.url}/nothing", api_key="secret"):
                    pass
            async with connect(stand.server.url, api_key="secret"):
                with pytest.raises(ConnectionFailed, match="503"):
                    async with connect(stand.server.url, api_key="secret"):
                        pass

    asyncio.run(main())


def test_nobody_there() -> None:
    async def main() -> None:
        with pytest.raises(ConnectionFailed, match="relay serve"):
            async with connect("ws://127.0.0.1:9"):
                pass
        with pytest.raises(ConnectionFailed, match="no server"):
            async with connect("ws://no-such-host.invalid:8000"):
                pass

    asyncio.run(main())


def test_a_server_that_speaks_something_else() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionFailed, match="does not speak websockets"):
                async with connect(f"ws://127.0.0.1:{port}"):
                    pass

    asyncio.run(main())


CREATED = '{"type":"session.created","event_id":"e","session":{}}'


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [
        (1000, "", None),
        (1001, "going away", None),
        (1008, "audio_too_fast: slow down", "slow down"),
        (1011, "", "1011"),
    ],
)
def test_how_a_session_ends(code: int, reason: str, says: str | None) -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.send(CREATED)
        await socket.send('{"type":"event.of.tomorrow","event_id":"e"}')
        await socket.send(b"\x07" + bytes(20))
        await socket.close(code, reason)

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}") as client:
                events: list[Event] = []

                async def read() -> None:
                    async for event in client:
                        events.append(event)

                if says is None:
                    await read()
                else:
                    with pytest.raises(ConnectionFailed, match=says):
                        await read()
                assert [type(event) for event in events] == [UnknownEvent, UnknownEvent]
                with pytest.raises(ConnectionFailed):
                    await client.commit()

    asyncio.run(main())


def test_a_certificate_that_is_not_trusted(serving: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")

    async def main() -> None:
        async with serving(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem") as stand:
            assert stand.server.url.startswith("https://")
            with pytest.raises(ConnectionFailed, match="SSL_CERT_FILE"):
                async with connect(stand.server.url):
                    pass
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
            async with connect(stand.server.url) as client:
                assert client.subprotocol == "relay.v1"

    asyncio.run(main())


def test_a_server_that_says_nothing() -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(ConnectionFailed, match="says nothing"):
                async with connect(f"ws://127.0.0.1:{port}", open_timeout_s=0.2):
                    pass

    asyncio.run(main())


def test_a_websocket_that_is_no_realtime_server() -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.send("hello")

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(ConnectionFailed, match="not a Realtime server"):
                async with connect(f"ws://127.0.0.1:{port}"):
                    pass

    asyncio.run(main())
