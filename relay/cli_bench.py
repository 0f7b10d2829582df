"""The command line of `relay bench`: one function for the arguments of each suite, and one that runs it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.arguments import (
    DEVICES,
    PATHS,
    Commands,
    Parser,
    add_command,
    add_url,
    models_dir,
    not_negative,
    own_server,
    positive,
)
from relay.errors import UsageError


def add_bench(commands: Commands[Parser], environ: Mapping[str, str]) -> None:
    """`relay bench` and its suites."""
    parser = add_command(commands, "bench", "measure", _bench_latency)
    suites = parser.add_subparsers(title="suites", metavar="SUITE", required=True)
    summary = "measure the time from the last word to the first sound, and where it goes"
    latency = add_command(suites, "latency", summary, _bench_latency)
    _add_spoken(latency, environ, turns=20, drawn="stages, distribution, and the onset against the delay")
    latency.add_argument(
        "--brain-delay-ms",
        action="append",
        type=not_negative,
        default=[],
        metavar="N",
        help="let the language model begin so much later, to see what a slow one costs; also several times; default 0",
    )
    _add_bench_turns(suites, environ)
    _add_bench_sessions(suites)
    _add_bench_quality(suites)
    _add_bench_echo(suites)
    _add_bench_page(suites)
    _add_bench_streaming(suites)
    _add_bench_runners(suites)


def _add_spoken(suite: Parser, environ: Mapping[str, str], *, turns: int, drawn: str) -> None:
    """What the suites that hold dialogues with a server have in common."""
    suite.add_argument(
        "--path",
        action="append",
        choices=PATHS,
        default=[],
        help="how replies are made, also several times: they are measured by turns; default all that can run here, and "
        "with --url the server's own",
    )
    suite.add_argument("--turns", type=positive, default=turns, metavar="N", help=f"turns to measure; default {turns}")
    suite.add_argument("--seed", type=int, default=0, help="of the utterances, pauses and noise; default 0")
    add_url(suite, environ, default=None, note="default: one started for each measurement")
    suite.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")
    suite.add_argument("--plot", type=Path, metavar="FILE.png", help=f"draw {drawn} here")


def _bench_latency(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench import LatencyOptions, bench_latency

    delays_ms = tuple(dict.fromkeys(options.brain_delay_ms)) or (0,)
    return asyncio.run(bench_latency(LatencyOptions(**_spoken(options, environ), brain_delays_ms=delays_ms)))


def _spoken(options: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """What `_add_spoken` added, as arguments of `PathsOptions`."""
    names = ("turns", "seed", "url", "api_key", "json", "plot")
    return {
        "paths": tuple(dict.fromkeys(options.path)),
        "server_environ": own_server(environ),
        "models_dir": models_dir(environ),
        **{name: getattr(options, name) for name in names},
    }


def _add_bench_turns(suites: Commands[Parser], environ: Mapping[str, str]) -> None:
    summary = (
        "measure who speaks when: pauses, ends of turns, backchannels and interruptions, as Full-Duplex-Bench does"
    )
    turns = add_command(suites, "turns", summary, _bench_turns)
    _add_spoken(turns, environ, turns=30, drawn="pauses by length, rates and delays")


def _bench_turns(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_paths import PathsOptions
    from relay.commands.bench_turns import bench_turns

    return asyncio.run(bench_turns(PathsOptions(**_spoken(options, environ))))


def _add_bench_sessions(suites: Commands[Parser]) -> None:
    summary = "measure what sessions cost the server, or how many dialogues it holds in time"
    sessions = add_command(suites, "sessions", summary, _bench_sessions)
    sessions.add_argument("--quiet", type=positive, default=50, metavar="N", help="quiet callers; default 50")
    sessions.add_argument("--churn", type=positive, default=1000, metavar="N", help="opened and closed; default 1000")
    sessions.add_argument(
        "--seconds", type=float, help="how long to measure; default 20, and 60 for each level of --callers"
    )
    sessions.add_argument("--path", choices=PATHS, help="how replies are made; default: as by `relay serve` without it")
    sessions.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")
    whole = sessions.add_argument_group("whole dialogues, instead of quiet callers")
    whole.add_argument(
        "--callers",
        type=positive,
        nargs="*",
        metavar="N",
        help="hold so many dialogues at once, rising until the onset passes the limit; without a number 1, 2, 4 ...",
    )
    whole.add_argument(
        "--growth-minutes",
        type=float,
        metavar="M",
        help="instead: one call of so many minutes, and whether anything grows in it",
    )
    whole.add_argument("--limit-ms", type=float, default=350.0, metavar="N", help="of the onset's P95; default 350")
    whole.add_argument("--silence-ms", type=positive, metavar="N", help="pause that ends a turn; default: the server's")
    whole.add_argument(
        "--knocks", type=int, default=100, metavar="N", help="callers too many, at a full server; default 100"
    )
    whole.add_argument("--processes", type=positive, metavar="N", help="most processes of callers; default: by number")
    whole.add_argument("--seed", type=int, default=0, help="of what is said; default 0")
    whole.add_argument("--plot", type=Path, metavar="FILE.png", help="draw onset and playout here")


def _bench_sessions(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if options.growth_minutes is not None:
        return _bench_growth(options, environ)
    if options.callers is not None:
        return _bench_dialogues(options, environ)
    from relay.commands.bench_sessions import SessionsOptions, bench_sessions

    if options.plot is not None:
        raise UsageError("--plot draws whole dialogues; give --callers too")
    asked = SessionsOptions(
        quiet=options.quiet,
        seconds=options.seconds or 20.0,
        churn=options.churn,
        path=options.path,
        json=options.json,
        server_environ=own_server(environ),
        models_dir=models_dir(environ),
    )
    return asyncio.run(bench_sessions(asked))


def _bench_growth(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_growth import GrowthOptions, bench_growth

    if not options.growth_minutes > 0:
        raise UsageError("--growth-minutes must be more than 0; an hour is 60")
    if options.callers is not None or options.plot is not None:
        raise UsageError("--growth-minutes measures one caller and draws nothing; leave out --callers and --plot")
    asked = GrowthOptions(
        minutes=options.growth_minutes,
        silence_ms=options.silence_ms,
        path=options.path,
        seed=options.seed,
        json=options.json,
        server_environ=own_server(environ),
        models_dir=models_dir(environ),
    )
    return asyncio.run(bench_growth(asked))


def _bench_dialogues(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_dialogues import DialoguesOptions, bench_dialogues

    if options.seconds is not None and options.seconds < 5:
        raise UsageError("--seconds must be at least 5 with --callers: a turn takes as long")
    asked = DialoguesOptions(
        callers=tuple(options.callers),
        seconds=options.seconds or 60.0,
        limit_ms=options.limit_ms,
        silence_ms=options.silence_ms,
        knocks=max(0, options.knocks),
        processes=options.processes,
        path=options.path,
        seed=options.seed,
        json=options.json,
        plot=options.plot,
        server_environ=own_server(environ),
        models_dir=models_dir(environ),
    )
    return asyncio.run(bench_dialogues(asked))


def _add_bench_quality(suites: Commands[Parser]) -> None:
    quality = add_command(
        suites,
        "quality",
        "measure how well recordings are heard, sentences spoken, or replies begun by a draft, against the baseline",
        _bench_quality,
    )
    quality.add_argument(
        "--part", choices=("ears", "voice", "relay"), default="ears", help="what is measured; default ears"
    )
    _add_part_ears(quality)
    _add_part_voice(quality)
    quality.add_argument("--device", choices=DEVICES, default="cpu", help="where they run; default cpu")
    quality.add_argument(
        "--manifest",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help='JSON lines {"wav", "text"}, or a folder that holds manifest.jsonl; for ears also several times. Default: '
        'a small synthetic set. For relay: JSON lines {"turns": [{"role", "text"}]} of dialogues not trained on',
    )
    quality.add_argument(
        "--recordings", type=positive, metavar="N", help="or sentences, or dialogues, of each set; default all"
    )
    quality.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")


def _add_part_ears(quality: Parser) -> None:
    """What only ears are asked."""
    quality.add_argument(
        "--ears", action="append", default=[], metavar="ENGINE", help="recogniser, also several times; default all here"
    )
    quality.add_argument(
        "--lookahead-ms", action="append", type=int, default=[], metavar="N", help="also several times; default all"
    )
    quality.add_argument("--align", action="store_true", help="time words by forced alignment, not by each recogniser")
    quality.add_argument("--chunk-ms", type=positive, default=80, metavar="N", help="audio at a time; default 80")
    quality.add_argument(
        "--non-speech-s", type=float, default=30.0, metavar="S", help="of each kind of noise; 0 for none; default 30"
    )
    quality.add_argument("--hour", action="store_true", help="let each recogniser hear an hour of audio in one slot")
    quality.add_argument("--seed", type=int, default=0, help="of the noises; default 0")
    quality.add_argument("--plot", type=Path, metavar="FILE.png", help="draw errors, delays and insertions here")


def _add_part_voice(quality: Parser) -> None:
    """What only voices are asked."""
    quality.add_argument(
        "--voice", action="append", default=[], metavar="ENGINE", help="voice, also several times; default all here"
    )
    quality.add_argument(
        "--voices",
        action="append",
        type=positive,
        default=[],
        metavar="N",
        help="also speak so many replies side by side; also several times",
    )
    quality.add_argument("--page", type=Path, metavar="DIR", help="write a page with players of the sentences there")


def _bench_quality(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if options.part == "voice":
        return _bench_voice(options)
    if options.part == "relay":
        return _bench_relay(options, environ)
    from relay.commands.bench_quality import QualityOptions, bench_quality

    asked = QualityOptions(
        ears=tuple(options.ears),
        lookahead_ms=tuple(options.lookahead_ms),
        device=options.device,
        manifests=tuple(options.manifest),
        align=options.align,
        recordings=options.recordings,
        chunk_ms=options.chunk_ms,
        non_speech_s=options.non_speech_s,
        hour=options.hour,
        seed=options.seed,
        json=options.json,
        plot=options.plot,
        models_dir=models_dir(environ),
    )
    return asyncio.run(bench_quality(asked))


def _bench_relay(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_relay import RelayQualityOptions, bench_relay

    if len(options.manifest) != 1:
        raise UsageError("--part relay needs written dialogues: give one --manifest FILE.jsonl")
    if options.plot is not None:
        raise UsageError("--part relay draws nothing; its curve is in the --json, leave --plot")
    asked = RelayQualityOptions(
        manifest=options.manifest[0],
        dialogues=options.recordings,
        device=options.device,
        seed=options.seed,
        json=options.json,
        models_dir=models_dir(environ),
    )
    return asyncio.run(bench_relay(asked))


def _bench_voice(options: argparse.Namespace) -> int:
    from relay.commands.bench_voice import VoiceQualityOptions, bench_voice

    if len(options.manifest) > 1:
        raise UsageError("voices are held against one speaker: give one --manifest")
    asked = VoiceQualityOptions(
        voices=tuple(options.voice),
        device=options.device,
        manifest=options.manifest[0] if options.manifest else None,
        sentences=options.recordings,
        crowds=tuple(dict.fromkeys(options.voices)),
        json=options.json,
        page=options.page,
    )
    return asyncio.run(bench_voice(asked))


def _add_bench_echo(suites: Commands[Parser]) -> None:
    summary = "measure how often the echo of its own voice interrupts a reply, with and without echo control"
    echo = add_command(suites, "echo", summary, _bench_echo)
    echo.add_argument(
        "--control",
        action="append",
        choices=("off", "guard", "cancel"),
        default=[],
        help="echo control, also several times; default all here",
    )
    echo.add_argument(
        "--echo-db",
        action="append",
        type=float,
        default=[],
        metavar="DB",
        help="level of the echo, relative to the reply; also several times; default -20 and -30",
    )
    echo.add_argument("--replies", type=positive, default=200, metavar="N", help="in each condition; default 200")
    echo.add_argument("--seed", type=int, default=0, help="of the rooms, times and noise; default 0")
    echo.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")


def _bench_echo(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_echo import EchoOptions, bench_echo

    asked = EchoOptions(
        controls=tuple(dict.fromkeys(options.control)),
        echo_db=tuple(options.echo_db) or EchoOptions().echo_db,
        replies=options.replies,
        seed=options.seed,
        json=options.json,
    )
    return bench_echo(asked)


def _add_bench_page(suites: Commands[Parser]) -> None:
    summary = "measure how fast the page of a server with the settings of `relay serve` falls silent when interrupted"
    page = add_command(suites, "page", summary, _bench_page)
    page.add_argument("--interruptions", type=positive, default=20, metavar="N", help="to try; default 20")
    page.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")


def _bench_page(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_page import PageOptions, bench_page

    asked = PageOptions(options.interruptions, options.json, own_server(environ))
    return asyncio.run(bench_page(asked))


def _add_bench_streaming(suites: Commands[Parser]) -> None:
    from relay_benchmarks.streaming_options import add_arguments

    summary = "measure how many streams of a full-size encoder one device carries in time"
    add_arguments(add_command(suites, "streaming", summary, _bench_streaming))


def _bench_streaming(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_streaming import bench_streaming
    from relay_benchmarks.streaming_options import options_of

    return bench_streaming(options_of(options), options.json, options.plot)


def _add_bench_runners(suites: Commands[Parser]) -> None:
    runners = add_command(suites, "runners", "measure what steps of the torch runners take", _bench_runners)
    runners.add_argument("--device", choices=DEVICES, default="auto", help="where they run; default auto")
    runners.add_argument(
        "--streams", type=positive, nargs="+", default=[64, 256], metavar="N", help="of the recogniser; default 64 256"
    )
    runners.add_argument(
        "--rows", type=positive, default=64, metavar="N", help="of the recogniser, encoded at once; default 64"
    )
    runners.add_argument(
        "--batches",
        type=positive,
        nargs="+",
        default=[1, 8, 32],
        metavar="N",
        help="dialogues of the language model and sessions of the draft model, stepped at once; default 1 8 32",
    )
    runners.add_argument("--steps", type=positive, default=40, metavar="N", help="timed of each; default 40")
    runners.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")


def _bench_runners(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_runners import bench_runners

    sizes = (tuple(options.streams), options.rows, tuple(options.batches), options.steps)
    return bench_runners(options.device, *sizes, options.json)
