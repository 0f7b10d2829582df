"""Recordings of sessions: what was heard, what was said, and every event, in files that survive a crash.

A session becomes a folder `DIR/<UTC time>-<session id>/` with `user.flac`, `agent.flac` (each at its format's rate; the
agent's audio is laid on the user's clock, with silence between replies) and `events.jsonl`, a line for each text frame:
`{"at_s", "from", "event"}`, from "client" or "server", without the audio, which is in the tracks. FLAC is written in
frames: a file that ends early still plays.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import soundfile

from relay.audio import EARS_RATE_HZ, RATE_HZ, Format, Int16Array, decode_bytes
from relay.services import Sender
from relay.wire.realtime import RealtimeProtocol

log = logging.getLogger(__name__)

_AUDIO_FIELDS = {"input_audio_buffer.append": "audio", "response.output_audio.delta": "delta"}


class SessionRecorder:
    """Writes one session from a thread of its own; `async with` opens and closes the files.

    Implements `relay.services.Recorder`. A disk that fails stops the recording, with a warning in the log, but never
    the session.
    """

    def __init__(self, folder: Path, protocol: RealtimeProtocol) -> None:
        stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._folder = folder / f"{stamp}-{protocol.session_id}"
        self._protocol = protocol
        self._queue: SimpleQueue[tuple[str, int, bytes | str, Format] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._position_samples = 0

    async def __aenter__(self) -> SessionRecorder:
        """Starts the thread."""
        self._thread.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Writes what waits and closes the files."""
        self._queue.put(None)
        await asyncio.shield(asyncio.to_thread(self._thread.join))

    def heard(self, samples: int, pcm: bytes) -> None:
        """Audio from the client; `samples` counts 16 kHz input."""
        self._position_samples = samples
        self._queue.put(("user", samples, pcm, self._protocol.config.input_format))

    def said(self, samples: int, pcm: bytes, form: Format) -> None:
        """Audio to the client when `samples` of input had come."""
        self._queue.put(("agent", samples, pcm, form))

    def event(self, frame: str, sender: Sender) -> None:
        """A text frame to or from the client."""
        self._queue.put((sender, self._position_samples, frame, "pcm16"))

    def _run(self) -> None:
        tracks: dict[tuple[str, Format], _Track] = {}
        try:
            self._folder.mkdir(parents=True)
            with open(self._folder / "events.jsonl", "w", encoding="utf-8") as events:
                while (item := self._queue.get()) is not None:
                    kind, samples, data, form = item
                    if isinstance(data, str):
                        line = {"at_s": samples / EARS_RATE_HZ, "from": kind, "event": _without_audio(data)}
                        events.write(json.dumps(line) + "\n")
                        events.flush()
                        continue
                    track = tracks.get((kind, form))
                    if track is None:  # a client that changes the format in mid-session gets a second file
                        is_first = not any(known == kind for known, _ in tracks)
                        path = self._folder / (f"{kind}.flac" if is_first else f"{kind}-{form}.flac")
                        track = tracks[kind, form] = _Track(path, RATE_HZ[form])
                    track.write(samples, decode_bytes(data, form))
        except (OSError, soundfile.SoundFileError) as error:
            log.warning("the recording in %s stopped: %s", self._folder, error)
            while self._queue.get() is not None:
                pass
        finally:
            for track in tracks.values():
                track.close()


def _without_audio(frame: str) -> Any:
    """The event in a frame; the frame itself if it holds none."""
    try:
        event = json.loads(frame)
    except (ValueError, RecursionError):
        return frame
    if isinstance(event, dict) and isinstance(kind := event.get("type"), str):
        event.pop(_AUDIO_FIELDS.get(kind, ""), None)
    return event


class _Track:
    """One FLAC file on the session's clock."""

    def __init__(self, path: Path, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._written_samples = 0
        self._file = soundfile.SoundFile(path, "w", samplerate=rate_hz, channels=1, subtype="PCM_16", format="FLAC")

    def write(self, clock_samples: int, pcm: Int16Array) -> None:
        """Writes audio at its place on the 16 kHz clock, or after what was written if that is later."""
        gap = clock_samples * self._rate_hz // EARS_RATE_HZ - self._written_samples
        while gap > 0:
            part = min(gap, self._rate_hz)
            self._file.write(np.zeros(part, dtype=np.int16))
            self._written_samples += part
            gap -= part
        self._file.write(pcm)
        self._written_samples += len(pcm)

    def close(self) -> None:
        """Finishes the file."""
        self._file.close()
