"""`relay talk`: a dialogue at the microphone, or with sound files in its place."""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.live import Live
from rich.text import Text

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay.client.devices import KINDS, choose
from relay.client.devices import list_devices as devices_here
from relay.client.dialogue import Dialogue, Reply, hold, until_first
from relay.client.duplex import Recorder, Script
from relay.client.echo import Canceller, Guard, Mode, Through, echo_control
from relay.client.files import load, write_wav
from relay.client.microphone import DeviceCard
from relay.client.playout import PlayoutClock
from relay.client.realtime import Client, Event, Reconnect, Reconnected, Reconnecting, connect
from relay.commands import keys
from relay.commands.console import complain, note, print_json, progress_console
from relay.errors import EngineUnavailable, StageFailed
from relay.wire import response_events as reply_events
from relay.wire import server_events as got

_GUIDE: dict[type, str] = {
    Canceller: "Talk; Ctrl-C ends. The echo of the reply is cancelled: loudspeakers are fine.",
    Guard: "Talk; Ctrl-C ends. Speak up to interrupt. With `pip install 'relay-dialogue[talk]'` echo is cancelled.",
    Through: "Talk; Ctrl-C ends. Use headphones, or the microphone hears the reply.",
}
METER_DB = (-60.0, -10.0)
METER_CHARS = 20
TALK_KEY = " "


@dataclass(frozen=True, slots=True)
class TalkOptions:
    """What `relay talk` was asked.

    Attributes:
        url: The server.
        api_key: Presented to it.
        model: Model asked for.
        input: Sound file to speak instead of the microphone.
        output: Stereo WAV to record the dialogue into.
        device_in: Number or name of the microphone.
        device_out: Number or name of the loudspeaker.
        echo: How the echo of the loudspeaker is kept out of the microphone.
        push_to_talk: Nothing is sent but between two presses of the space bar.
        json: Print turns as JSON lines.
    """

    url: str
    api_key: str | None = None
    model: str = "relay"
    input: Path | None = None
    output: Path | None = None
    device_in: str | None = None
    device_out: str | None = None
    echo: Mode = "auto"
    push_to_talk: bool = False
    json: bool = False


async def talk(options: TalkOptions) -> int:
    """Holds one dialogue: until its input has been answered, or with devices until Ctrl-C.

    A connection that is lost is opened again, and the conversation goes on where it was. Whatever ends the dialogue, it
    is recorded as far as it came, and the devices are closed.

    Returns:
        Exit status.

    Raises:
        UsageError: A device or an option makes no sense.
        AudioFileError: The input cannot be read, or the output not written.
        EngineUnavailable: There is no sound device, it cannot be opened, or it was unplugged.
        ConnectionFailed: There is no server, or it was lost.
        StageFailed: The input was not answered.
    """
    speech = None if options.input is None else await asyncio.to_thread(load, options.input, VOICE_RATE_HZ)
    if speech is None:  # before a session is opened for nothing
        choose(options.device_in, "input")
        choose(options.device_out, "output")
    recorder = Recorder()
    try:
        async with connect(options.url, api_key=options.api_key, model=options.model, reconnect=Reconnect()) as client:
            playout = PlayoutClock()
            screen = Screen(json=options.json)
            dialogue = screen.dialogue = Dialogue(client, playout, on_event=screen.show)
            await dialogue.start()
            with screen:
                if speech is None:
                    await _at_the_microphone(options, client, dialogue, playout, screen, recorder)
                else:
                    script = Script()
                    script.say(speech)
                    await hold(client, dialogue, playout, script, recorder.add)
                    _check_answered(dialogue, options)
    finally:
        if options.output is not None and len(recorder.heard()):
            write_wav(options.output, recorder.stereo(), VOICE_RATE_HZ)
    return 0


def list_devices(*, json: bool) -> int:
    """Prints the sound devices; those that the system uses are marked. Raises EngineUnavailable."""
    devices = devices_here()
    if json:
        print_json({"devices": [asdict(device) for device in devices]})
        return 0
    if not devices:
        raise EngineUnavailable("there are no sound devices; connect one, or use sound files (talk --input, --output)")
    for device in devices:
        does = [f"{kind}{'*' if kind in device.default_for else ''}" for kind in KINDS if device.does(kind)]
        print(f"{device.index:3}  {device.name}  ({device.host}, {device.rate_hz:g} Hz, {', '.join(does)})")
    note("* the system's own choice")
    return 0


async def _at_the_microphone(
    options: TalkOptions,
    client: Client,
    dialogue: Dialogue,
    playout: PlayoutClock,
    screen: Screen,
    recorder: Recorder,
) -> None:
    control = echo_control(options.echo)
    button = PushToTalk(client, dialogue, playout) if options.push_to_talk else None

    def block(heard: Int16Array, played: Int16Array) -> None:
        if options.output is not None:
            recorder.add(heard, played)
        screen.level_dbfs = _level_dbfs(heard)

    card = DeviceCard(
        playout,
        client.append if button is None else button.append,
        report=dialogue.report,
        on_block=block,
        echo=control,
        device_in=options.device_in,
        device_out=options.device_out,
    )
    if button is None:
        note(_GUIDE[type(control)])
        await until_first(dialogue.run(), card.run())
    else:
        await button.start()
        screen.button = button
        note("Space to talk, space again to send; Ctrl-C ends.")
        await until_first(dialogue.run(), card.run(), button.run())


class PushToTalk:
    """The user's turn begins and ends with a key; what the microphone hears else is not sent.

    Attributes:
        pressed: Whether it is the user's turn.
    """

    def __init__(self, client: Client, dialogue: Dialogue, playout: PlayoutClock) -> None:
        self.pressed = False
        self._client = client
        self._dialogue = dialogue
        self._playout = playout

    async def start(self) -> None:
        """Tells the server that turns come from a key."""
        await self._client.update({"audio": {"input": {"turn_detection": None}}})

    async def append(self, pcm: Int16Array) -> None:
        """Takes [480] int16 of the microphone."""
        if self.pressed:
            await self._client.append(pcm)

    async def run(self) -> None:
        """Follows the keys. Raises UsageError when there is no terminal."""
        async for key in keys.pressed():
            if key == TALK_KEY:
                await self.press()

    async def press(self) -> None:
        """Begins the user's turn, which silences the reply; or ends it, and asks for the answer."""
        self.pressed = not self.pressed
        if self.pressed:
            if any(not reply.over for reply in self._dialogue.replies.values()):
                await self._client.cancel()
            await self._dialogue.interrupt()
            await self._client.clear_input()
        else:
            await self._client.commit()
            await self._client.create_response()


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
        level_dbfs: Of the microphone; None: there is none.
        button: Push-to-talk, if that is how turns are made.
    """

    dialogue: Dialogue | None = None
    level_dbfs: float | None = None
    button: PushToTalk | None = None

    def __init__(self, *, json: bool) -> None:
        self._json = json
        console = progress_console()
        redirect = sys.stdout.isatty() and not console.quiet
        self._live = Live(
            get_renderable=self._now,
            console=console,
            transient=True,
            refresh_per_second=12,
            redirect_stdout=redirect,
            redirect_stderr=redirect,
        )

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
        replies = {} if self.dialogue is None else self.dialogue.replies
        match event:
            case got.TranscriptionCompleted(transcript=transcript) if transcript:
                self._line({"type": "user", "text": transcript}, f"you: {transcript}")
            case reply_events.ResponseDone(response=response):
                self._over(replies[response.id])
            case got.Error(error=detail):
                complain(detail.message)
            case Reconnecting(reason=reason, attempt=1):
                complain(f"{reason}; trying again")
            case Reconnected(lost_responses=lost, restored_items=items):
                for response_id in lost:
                    self._over(replies[response_id])
                complain(f"connected again, with {items} items of the conversation")
            case _:
                pass

    def _over(self, reply: Reply) -> None:
        self._line(_reply_json(reply), _reply_line(reply))

    def _line(self, value: dict[str, object], line: str) -> None:
        if self._json:
            print_json(value)
        else:
            print(line, flush=True)

    def _now(self) -> Text:
        """What is being said at this moment."""
        text = Text()
        if self.dialogue is None:
            return text
        stable, unstable = self.dialogue.partial
        if stable or unstable:
            text.append(f"you: {stable} ").append(unstable, style="dim")
        speaking = [reply for reply in self.dialogue.replies.values() if not reply.over]
        for reply in speaking:
            text.append("\n" if text else "").append(f"relay: {reply.text}", style="cyan")
        if self.level_dbfs is not None:
            text.append("\n" if text else "").append_text(self._meter(self.dialogue, self.level_dbfs))
        return text

    def _meter(self, dialogue: Dialogue, now_dbfs: float) -> Text:
        """The microphone's level, and who is heard."""
        low, high = METER_DB
        lit = round(METER_CHARS * min(1.0, max(0.0, (now_dbfs - low) / (high - low))))
        style = "red" if lit == METER_CHARS else "green"
        text = Text("mic ").append("█" * lit, style=style).append("·" * (METER_CHARS - lit), style="dim")
        if not dialogue.connected:
            return text.append("  no connection", style="red")
        if self.button is not None:
            return text.append("  talking: space sends" if self.button.pressed else "  space to talk", style="dim")
        return text.append("  listening" if dialogue.speaking else "", style="dim")


def _level_dbfs(pcm: Int16Array) -> float:
    return 20.0 * math.log10(max(1.0, float(np.sqrt(np.mean(pcm.astype(np.float64) ** 2)))) / 32768.0)


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
