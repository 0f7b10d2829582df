"""A server that says what a test tells it to: the page itself, and the server's side of a dialogue as a script."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from relay.server.static import SECURITY_HEADERS, load_page
from relay.wire.binary import AudioFrame, encode_audio

RATE_HZ = 24_000
WORD_SAMPLES = RATE_HZ // 4


def tone(samples: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """[samples] int16 at 24 kHz, loud enough to count as speech."""
    return (8000 * np.sin(2 * np.pi * 500 * np.arange(samples) / RATE_HZ)).astype(np.int16)


class Peer:
    """The server's side of one connection."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.audio_frames = 0

    def send(self, type_: str, **fields: Any) -> None:
        """Sends an event."""
        self.connection.send(json.dumps({"type": type_, **fields}))

    def expect(self, type_: str, accept: Callable[[dict[str, Any]], bool] = lambda event: True) -> dict[str, Any]:
        """Reads until such an event comes."""
        while True:
            message = self.connection.recv(timeout=60)
            if isinstance(message, bytes):
                self.audio_frames += 1
                continue
            event: dict[str, Any] = json.loads(message)
            if event["type"] == type_ and accept(event):
                return event

    def begin(self, number: int, *, modality: str = "audio") -> str:
        """Announces response `number`; gives its id."""
        id_ = f"resp_{number}"
        response = {"id": id_, "status": "in_progress", "output_modalities": [modality], "relay": {"index": number}}
        self.send("response.created", response=response)
        return id_

    def take_typed(self, number: int, text: str) -> None:
        """Takes a typed question and announces response `number` to it."""
        self.expect("response.create")
        item = {"id": f"asked: {text}", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self.send("conversation.item.added", item=item)
        self.begin(number)

    def speak(self, number: int, words: Sequence[str], *, first_word: int = 0) -> int:
        """Sends words with their audio, a quarter of a second each; gives the position after the last."""
        id_ = f"resp_{number}"
        first = first_word * WORD_SAMPLES
        places = [
            {"word": word, "start_sample": first + i * WORD_SAMPLES, "end_sample": first + (i + 1) * WORD_SAMPLES}
            for i, word in enumerate(words)
        ]
        self.send("response.output_audio_transcript.delta", response_id=id_, delta=" ".join(words) + " ")
        data = tone(len(words) * WORD_SAMPLES).tobytes()
        self.connection.send(encode_audio(AudioFrame(number, first, "pcm16", data)))
        self.send("relay.words", response_id=id_, item_id=f"item_{number}", words=places)
        return first + len(words) * WORD_SAMPLES

    def finish(self, number: int, *, path: str = "relay", status: str = "completed", **stages_ms: float) -> None:
        """Ends response `number`, with its metrics."""
        id_ = f"resp_{number}"
        self.send("response.output_audio.done", response_id=id_)
        self.send("response.done", response={"id": id_, "status": status, "status_details": None})
        stages = stages_ms or {"endpointing": 200.0, "ears": 40.0, "draft": 60.0, "verify": 10.0, "voice_first": 30.0}
        metrics = {"path": path, "onset_ms": sum(stages.values()), "speech_end_ms": None, "stages_ms": stages}
        self.send("relay.metrics", response_id=id_, metrics=metrics)

    def until_played(self, number: int, samples: int) -> None:
        """Waits until the page has reported that so much of response `number` was played."""
        id_ = f"resp_{number}"
        self.expect("relay.playback", lambda event: event["response_id"] == id_ and event["played_samples"] >= samples)

    def until_closed(self) -> None:
        """Reads until the page goes away."""
        with contextlib.suppress(ConnectionClosed, AssertionError):
            while True:
                self.connection.recv()


Script = Callable[[Peer], None]


class ScriptedServer:
    """Serves the page at `url`. Connection n is given to script n, the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._page = load_page()
        self.connections = 0
        self.refuses = threading.Event()  # set: new connections are refused
        self.failures: list[BaseException] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[ScriptedServer]:
        """Listens until the block ends; what went wrong in a script is raised then."""
        protocols = [Subprotocol("relay.v1")]
        with serve(self._run, "127.0.0.1", 0, process_request=self._respond, subprotocols=protocols) as server:
            self.url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
        if self.failures:
            raise self.failures[0]

    def _respond(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        empty = Headers({"Content-Length": "0", "Connection": "close"})
        if path == "/v1/realtime":
            return Response(503, "Service Unavailable", empty, b"") if self.refuses.is_set() else None
        file = self._page.get(path)
        if file is None:
            return Response(404, "Not Found", empty, b"")
        headers = {"Content-Type": file.content_type, "Content-Length": str(len(file.body)), "Connection": "close"}
        return Response(200, "OK", Headers({**headers, **SECURITY_HEADERS}), file.body)

    def _run(self, connection: ServerConnection) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        try:
            script(Peer(connection))
        except ConnectionClosed:
            return  # the test is over
        except BaseException as error:
            self.failures.append(error)
