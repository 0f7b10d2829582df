"""`relay demo`: one bundled spoken question through a real server, over a real socket, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay.client.dialogue import Dialogue, Reply, hold
from relay.client.duplex import Recorder, Script
from relay.client.files import load, write_wav
from relay.client.playout import PlayoutClock
from relay.client.realtime import connect
from relay.client.timing import Onset, first_audible, onset_of, speech_bounds
from relay.commands.console import complain, note, print_json
from relay.commands.own_server import own_server
from relay.errors import StageFailed


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `relay demo` was asked.

    Attributes:
        output: Where to write the spoken reply.
        json: Print the result as JSON.
        server_environ: Environment of the server process.
    """

    output: Path | None = None
    json: bool = False
    server_environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of the question.

    Attributes:
        transcript: What the server understood.
        reply: The answer.
        onset: Its delay and where it went.
        spoken: [samples] int16, 24 kHz: the answer as it was played.
    """

    transcript: str
    reply: Reply
    onset: Onset
    spoken: Int16Array


async def demo(options: DemoOptions) -> int:
    """Asks the bundled question and shows the answer and where its time went.

    Returns:
        Exit status.

    Raises:
        ConnectionFailed: The server did not start, or was lost.
        StageFailed: There was no answer, or none that can be heard.
        AudioFileError: The reply cannot be written.
    """
    with resources.as_file(resources.files("relay") / "assets" / "question.wav") as path:
        question = await asyncio.to_thread(load, path, VOICE_RATE_HZ)
    note("Starting a server ...")
    async with own_server(options.server_environ) as url:
        note(f"Asking it the bundled question, {len(question) / VOICE_RATE_HZ:.1f} s ...")
        turn = await ask(url, question)
    if options.output is not None:
        await asyncio.to_thread(write_wav, options.output, turn.spoken, VOICE_RATE_HZ)
    if options.json:
        print_json(_result(turn, options))
    else:
        _print(turn, options)
    if turn.reply.failure is not None:
        complain(f"the reply is an apology: {turn.reply.failure}")
        return 1
    return 0


async def ask(url: str, question: Int16Array) -> Turn:
    """Speaks a question to a server and listens to the answer.

    Args:
        url: The server.
        question: [samples] int16, 24 kHz, with room noise around the speech.

    Raises:
        ConnectionFailed: The server was lost.
        StageFailed: There was no answer, or none that can be heard.
    """
    playout, script, recorder = PlayoutClock(), Script(), Recorder()
    async with connect(url) as client:
        dialogue = Dialogue(client, playout)
        await dialogue.start()
        start = script.say(question)
        card = await hold(client, dialogue, playout, script, recorder.add)
    reply = next((r for r in dialogue.replies.values() if playout.spans(r.response_id)), None)
    if reply is None:
        reasons = [*dialogue.errors, *(r.failure for r in dialogue.replies.values() if r.failure)]
        raise StageFailed("voice", f"the question got no spoken reply: {'; '.join(reasons) or 'no reason given'}")
    spans = playout.spans(reply.response_id)
    began, ended = spans[0].position, spans[-1].position + spans[-1].samples
    spoken = recorder.played()[began:ended]
    audible = first_audible(spoken)
    if audible is None:
        raise StageFailed("voice", "the reply is silent; try another --voice")
    onset = onset_of(reply, card, speech_end=start + speech_bounds(question)[1], first_played=began + audible)
    return Turn(" ".join(dialogue.transcripts), reply, onset, spoken)


def _result(turn: Turn, options: DemoOptions) -> dict[str, Any]:
    return {
        "transcript": turn.transcript,
        "reply": turn.reply.text,
        "status": turn.reply.status,
        "audio_s": round(len(turn.spoken) / VOICE_RATE_HZ, 3),
        "path": (turn.reply.metrics or {}).get("path"),
        "onset_ms": round(turn.onset.onset_ms, 1),
        "stages_ms": {name: round(ms, 1) for name, ms in turn.onset.stages_ms.items()},
        "unaccounted_ms": round(turn.onset.unaccounted_ms, 1),
        "output": None if options.output is None else str(options.output),
    }


def _print(turn: Turn, options: DemoOptions) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]you[/bold]    {escape(turn.transcript)}")
    console.print(f"[bold]relay[/bold]  {escape(turn.reply.text)}")
    console.print("\nFrom your last word to the first sound of the reply:")
    table = Table(show_footer=True)
    table.add_column("stage", "together")
    table.add_column("ms", f"{turn.onset.onset_ms:.0f}", justify="right")
    for name, ms in turn.onset.stages_ms.items():
        table.add_row(name, f"{ms:.0f}")
    table.add_row("unaccounted", f"{turn.onset.unaccounted_ms:.0f}", style="dim")
    console.print(table)
    if options.output is not None:
        console.print(f"The reply, {len(turn.spoken) / VOICE_RATE_HZ:.1f} s, is in {escape(str(options.output))}")
