"""`relay talk`: a dialogue at the microphone, or with sound files in its place."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.live import Live
from rich.text import Text

from relay.audio import VOICE_RATE_HZ
from relay.client.dialogue import Dialogue, Reply, hold, until_first
from relay.client.duplex import Recorder, Script
from relay.client.files import load, write_wav
from relay.client.microphone import DeviceCard, sound_devices
from relay.client.playout import PlayoutClock
from relay.client.realtime import Event, connect
from relay.commands.console import complain, note, print_json, progress_console
from relay.errors import StageFailed
from relay.wire import response_events as reply_events
from relay.wire import server_events as got


@dataclass(frozen=True, slots=True)
class TalkOptions:
    """What `relay talk` was asked.

    Attributes:
        url: The server.
        api_key: Presented to it.
        input: Sound file to speak instead of the microphone.
        output: Stereo WAV to record the dialogue into.
        device_in: PortAudio's number of the microphone.
        device_out: PortAudio's number of the loudspeaker.
        json: Print turns as JSON lines.
    """

    url: str
    api_key: str | None = None
    input: Path | None = None
    output: Path | None = None
    device_in: int | None = None
    device_out: int | None = None
    json: bool = False


async def talk(options: TalkOptions) -> int:
    """Holds one dialogue: until its input has been answered, or with devices until Ctrl-C.

    Returns:
        Exit status.

    Raises:
        AudioFileError: The input cannot be read, or the output not written.
        EngineUnavailable: There is no sound device.
        ConnectionFailed: There is no server, or it was lost.
        StageFailed: The input was not answered.
    """
    speech = None if options.input is None else await asyncio.to_thread(load, options.input, VOICE_RATE_HZ)
    if speech is None:
        sound_devices()  # before a session is opened for nothing
    recorder = Recorder()
    try:
        async with connect(options.url, api_key=options.api_key) as client:
            playout = PlayoutClock()
            with Screen(json=options.json) as screen:
                dialogue = Dialogue(client, playout, on_event=screen.show)
                screen.dialogue = dialogue
                await dialogue.start()
                if speech is None:
                    note("Talk; Ctrl-C ends. Use headphones, or the microphone hears the reply.")
                    card = DeviceCard(
                        playout,
                        client.append,
                        report=dialogue.report,
                        on_block=recorder.add,
                        device_in=options.device_in,
                        device_out=options.device_out,
                    )
                    await until_first(dialogue.run(), card.run())
                else:
                    script = Script()
                    script.say(speech)
                    await hold(client, dialogue, playout, script, recorder.add)
                    _check_answered(dialogue, options)
    finally:
        if options.output is not None and len(recorder.heard()):
            await asyncio.to_thread(write_wav, options.output, recorder.stereo(), VOICE_RATE_HZ)
    return 0


def _check_answered(dialogue: Dialogue, options: TalkOptions) -> None:
    if not dialogue.replies:
        raise StageFailed("ears", f"the server heard no speech in {options.input}; give a recording of someone talking")
    if not any(reply.audio_samples for reply in dialogue.replies.values()):
        failure = next((reply.failure for reply in dialogue.replies.values() if reply.failure), "no reason given")
        raise StageFailed("voice", f"the reply has no sound: {failure}")


class Screen:
    """Shows a dialogue: finished turns on stdout, live text on stderr when that is a terminal.

    Attributes:
        dialogue: Set it before the first event.
    """

    dialogue: Dialogue

    def __init__(self, *, json: bool) -> None:
        self._json = json
        console = progress_console()
        redirect = sys.stdout.isatty() and not console.quiet
        self._live = Live(console=console, transient=True, refresh_per_second=12, redirect_stdout=redirect)

    def __enter__(self) -> Screen:
        """Begins to show."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the terminal as it was."""
        self._live.stop()

    def show(self, event: Event) -> None:
        """Takes one event of the dialogue."""
        match event:
            case got.TranscriptionCompleted(transcript=transcript) if transcript:
                self._line({"type": "user", "text": transcript}, f"you: {transcript}")
            case reply_events.ResponseDone(response=response):
                reply = self.dialogue.replies[response.id]
                self._line(_reply_json(reply), _reply_line(reply))
            case got.Error(error=detail):
                complain(detail.message)
            case _:
                pass
        if not self._live.console.quiet:
            self._live.update(self._now())

    def _line(self, value: dict[str, object], line: str) -> None:
        if self._json:
            print_json(value)
        else:
            print(line, flush=True)

    def _now(self) -> Text:
        """What is being said at this moment."""
        text = Text()
        stable, unstable = self.dialogue.partial
        if stable or unstable:
            text.append(f"you: {stable} ").append(unstable, style="dim")
        speaking = [reply for reply in self.dialogue.replies.values() if not reply.over]
        for reply in speaking:
            text.append("\n" if text else "").append(f"relay: {reply.text}", style="cyan")
        return text


def _reply_line(reply: Reply) -> str:
    ending = {"completed": "", "cancelled": " [interrupted]"}.get(reply.status, f" [{reply.failure or reply.status}]")
    return f"relay: {reply.text}{ending}"


def _reply_json(reply: Reply) -> dict[str, object]:
    return {
        "type": "reply",
        "text": reply.text,
        "status": reply.status,
        "error": reply.failure,
        "audio_s": round(reply.audio_samples / VOICE_RATE_HZ, 3),
        "metrics": reply.metrics,
    }
