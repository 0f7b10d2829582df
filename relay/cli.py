"""The command line: what can be asked for, where defaults come from, and what is said when something fails.

Arguments and environment are read here (and in `relay.__main__`) and nowhere else. Commands are imported when they run,
so that `relay --help` is quick and a missing optional package is only missed by the command that needs it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import relay
from relay.errors import RelayError, UsageError, shown

DEFAULT_URL = "ws://127.0.0.1:8000"
INTERRUPTED = 130
TERMINATED = 143


@dataclass(frozen=True, slots=True)
class ServeFlag:
    """One flag of `relay serve`; `RELAY_` and its name in capitals is its environment variable.

    One with a `negation` is a switch, which that flag turns off; its variable is 1 or 0.
    """

    name: str
    help: str
    metavar: str | None = None
    type: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    default: Any = None
    negation: str | None = None

    @property
    def dest(self) -> str:
        """Name of the parsed value."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"RELAY_{self.dest.upper()}"


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


DEVICES = ("auto", "cpu", "cuda")
PATHS = ("relay", "cascade", "draft")
SERVE_FLAGS = (
    ServeFlag("host", "address to listen on; beyond this machine use --api-key", "ADDRESS", default="127.0.0.1"),
    ServeFlag("port", "port to listen on; 0 picks a free one, named on the ready line", "PORT", int, default=8000),
    ServeFlag("device", "where models run", None, str, DEVICES, "auto"),
    ServeFlag("max-sessions", "callers admitted at once; default: as many as the engines can hold", "N", int),
    ServeFlag("api-key", "key that clients must present", "KEY"),
    ServeFlag("tls-cert", "PEM certificate chain; with --tls-key the server speaks TLS", "FILE", Path),
    ServeFlag("tls-key", "PEM private key", "FILE", Path),
    ServeFlag("llm-url", "OpenAI-compatible language model server; default: the embedded model", "URL"),
    ServeFlag("llm-model", "model to ask it for", "NAME"),
    ServeFlag("llm-key-env", "environment variable that holds its API key", "VAR"),
    ServeFlag("ears", "recogniser: engine or model (relay models list), or folder", "ENGINE", default="auto"),
    ServeFlag("lookahead-ms", "audio the recogniser may wait for before it commits to a word", "N", int),
    ServeFlag("voice", "voice engine (relay models list)", "ENGINE", default="auto"),
    ServeFlag("path", "how replies are made", None, str, PATHS, "cascade"),
    ServeFlag(
        "speculate",
        "prepare replies, unheard, while the end of a turn is only likely; default: with the embedded model, not with "
        "--llm-url, where it costs tokens",
        type=_switch,
        negation="no-speculation",
    ),
    ServeFlag("record", "folder to record sessions into", "DIR", Path),
    ServeFlag(
        "noise-suppression", "DPDFNet ONNX file, for sessions that ask for noise reduction; default: none", "FILE", Path
    ),
)


class Parser(argparse.ArgumentParser):
    """Wrong use gives one line on stderr and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Raises UsageError instead of printing the usage and exiting."""
        raise UsageError(f"{message}; see `{self.prog} --help`")


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name.
        environ: Environment variables.

    Returns:
        Exit status: 0 success, 1 failure, 2 wrong use, 130 interrupted, 143 terminated.
    """
    try:
        options = build_parser(environ).parse_args(argv)
        command: Callable[[argparse.Namespace, Mapping[str, str]], int] = options.run
        return command(options, environ)
    except RelayError as error:
        return _fail(str(error), shown(error).exit_status)
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 1
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)


def build_parser(environ: Mapping[str, str]) -> Parser:
    """The parser of all commands; `environ` gives the defaults of `serve`. Raises UsageError for a bad variable."""
    parser = Parser(prog="relay", description="A real-time voice-dialogue server and its tools.")
    parser.add_argument("--version", action="version", version=f"relay {relay.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands, environ)
    _add_demo(commands)
    _add_talk(commands, environ)
    _add_transcribe(commands)
    _add_say(commands)
    _add_bench(commands, environ)
    _add_models(commands)
    _add_doctor(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse gives what add_subparsers returns no public name


def _command(commands: _Commands[Parser], name: str, summary: str, run_it: Callable[..., int]) -> Parser:
    parser: Parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(run=run_it)
    return parser


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print machine-readable output on stdout")


def _add_url(parser: Parser, environ: Mapping[str, str], *, default: str | None, note: str) -> None:
    parser.add_argument("--url", default=default, help=f"the server; {note}")
    parser.add_argument(
        "--api-key", metavar="KEY", default=environ.get("RELAY_API_KEY"), help="key to present; default: $RELAY_API_KEY"
    )


# ---------------------------------------------------------------------------------------------------------------- serve


def _add_serve(commands: _Commands[Parser], environ: Mapping[str, str]) -> None:
    parser = _command(commands, "serve", "run the server", _serve)
    for flag in SERVE_FLAGS:
        default = "" if flag.default is None else f"; default {flag.default}"
        if flag.negation is not None:
            text = f"{flag.help} [${flag.variable}=1 or 0]"
            parser.add_argument(f"--{flag.name}", action="store_true", default=argparse.SUPPRESS, help=text)
            parser.add_argument(
                f"--{flag.negation}",
                dest=flag.dest,
                action="store_false",
                default=argparse.SUPPRESS,
                help=f"turns --{flag.name} off",
            )
            continue
        parser.add_argument(
            f"--{flag.name}",
            metavar=flag.metavar,
            type=flag.type,
            choices=flag.choices,
            default=argparse.SUPPRESS,
            help=f"{flag.help}{default} [${flag.variable}]",
        )


def serve_settings(options: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Values of all flags of `serve`: the flag, else its environment variable, else its default.

    Raises:
        UsageError: A variable has a value that its flag would not take.
    """
    settings = {}
    for flag in SERVE_FLAGS:
        if hasattr(options, flag.dest):
            settings[flag.dest] = getattr(options, flag.dest)
        elif text := environ.get(flag.variable):
            settings[flag.dest] = _from_variable(flag, text)
        else:
            settings[flag.dest] = flag.default
    return settings


def _from_variable(flag: ServeFlag, text: str) -> Any:
    given = f"{flag.variable}={text!r}"
    try:
        value = flag.type(text)
    except ValueError as error:
        raise UsageError(f"{given} is not a value for --{flag.name}; set another or unset it") from error
    if flag.choices is not None and value not in flag.choices:
        raise UsageError(f"{given} is not one of {', '.join(flag.choices)}; set one of them or unset it")
    return value


def _serve(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.config import ServerConfig
    from relay.server.app import serve

    settings = serve_settings(options, environ)
    settings["record_dir"] = settings.pop("record")
    settings["models_dir"] = models_dir(environ)
    variable = settings.pop("llm_key_env")
    if variable is not None:
        settings["llm_api_key"] = environ.get(variable)
        if not settings["llm_api_key"]:
            raise UsageError(f"--llm-key-env names {variable}, which is not set; export it with the key")
    config = ServerConfig(**settings)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)  # one line a connection is the session's to write
    asyncio.run(serve(config, lambda url: print(f"ready {url}", flush=True)))
    return 0


# ----------------------------------------------------------------------------------------------------------------- demo


def _add_demo(commands: _Commands[Parser]) -> None:
    parser = _command(commands, "demo", "carry one bundled spoken question through a server started for it", _demo)
    parser.add_argument("--output", type=Path, metavar="FILE.wav", help="write the spoken reply here")
    _add_json(parser)


def _demo(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.demo import DemoOptions, demo

    return asyncio.run(demo(DemoOptions(output=options.output, json=options.json, server_environ=own_server(environ))))


def own_server(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment for a server that a command starts for itself: the caller's choice of engines, but no locks."""
    closed = {"RELAY_API_KEY", "RELAY_TLS_CERT", "RELAY_TLS_KEY", "RELAY_HOST", "RELAY_PORT", "RELAY_MAX_SESSIONS"}
    return {name: value for name, value in environ.items() if name not in closed}


# ----------------------------------------------------------------------------------------------------------------- talk


def _add_talk(commands: _Commands[Parser], environ: Mapping[str, str]) -> None:
    parser = _command(
        commands, "talk", "hold a dialogue at the microphone, or with sound files in place of the devices", _talk
    )
    _add_url(parser, environ, default=DEFAULT_URL, note=f"default {DEFAULT_URL}")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="speak this sound file, in real time, instead of the microphone"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.wav",
        help="record the dialogue: stereo, you on the left and the reply on the right, as it was played. With --input, "
        "nothing is played aloud",
    )
    parser.add_argument("--model", default="relay", metavar="NAME", help="model to ask the server for; default relay")
    parser.add_argument("--list-devices", action="store_true", help="list the sound devices, and end")
    parser.add_argument("--device-in", metavar="DEVICE", help="microphone, by number or a part of its name")
    parser.add_argument("--device-out", metavar="DEVICE", help="loudspeaker, by number or a part of its name")
    parser.add_argument(
        "--echo",
        choices=("auto", "cancel", "guard", "off"),
        default="auto",
        help="how the microphone is kept from hearing the reply: cancel the echo, guard the microphone while the reply "
        "sounds, or off (headphones); default: cancel where that is installed, else guard",
    )
    parser.add_argument("--push-to-talk", action="store_true", help="the space bar begins and ends your turn")
    _add_json(parser)


def _talk(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.talk import TalkOptions, list_devices, talk

    if options.list_devices:
        return list_devices(json=options.json)
    return asyncio.run(
        talk(
            TalkOptions(
                url=options.url,
                api_key=options.api_key,
                model=options.model,
                input=options.input,
                output=options.output,
                device_in=options.device_in,
                device_out=options.device_out,
                echo=options.echo,
                push_to_talk=options.push_to_talk,
                json=options.json,
            )
        )
    )


# ------------------------------------------------------------------------------------------------------ transcribe, say


def _add_transcribe(commands: _Commands[Parser]) -> None:
    parser = _command(commands, "transcribe", "recognise speech in sound files, as a stream", _transcribe)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="sound file of any rate and channel count")
    parser.add_argument("--engine", default="auto", help="recogniser or model (relay models list), or folder with one")
    parser.add_argument(
        "--lookahead-ms",
        type=int,
        choices=(0, 80, 480, 1040),
        help="audio the recogniser may wait for before it commits to a word",
    )
    _add_json(parser)


def _transcribe(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.transcribe import TranscribeOptions, transcribe

    return asyncio.run(
        transcribe(
            TranscribeOptions(
                files=tuple(options.files),
                engine=options.engine,
                lookahead_ms=options.lookahead_ms,
                json=options.json,
                models_dir=models_dir(environ),
            )
        )
    )


def _add_say(commands: _Commands[Parser]) -> None:
    parser = _command(commands, "say", "speak a text, as a stream", _say)
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--engine", default="auto", help="voice (relay models list)")
    parser.add_argument("--out", type=Path, metavar="FILE.wav", help="write a WAV file instead of playing")
    _add_json(parser)


def _say(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.say import SayOptions, say

    return asyncio.run(say(SayOptions(text=options.text, engine=options.engine, out=options.out, json=options.json)))


# ---------------------------------------------------------------------------------------------------------------- bench


def _add_bench(commands: _Commands[Parser], environ: Mapping[str, str]) -> None:
    parser = _command(commands, "bench", "measure", _bench_latency)
    suites = parser.add_subparsers(title="suites", metavar="SUITE", required=True)
    summary = "measure the time from the last word to the first sound, and where it goes"
    latency = _command(suites, "latency", summary, _bench_latency)
    latency.add_argument("--path", choices=PATHS, default="cascade", help="how replies are made; default cascade")
    latency.add_argument("--turns", type=_positive, default=20, metavar="N", help="turns to measure; default 20")
    latency.add_argument("--seed", type=int, default=0, help="of the utterances, pauses and noise; default 0")
    _add_url(latency, environ, default=None, note="default: one started for the measurement")
    latency.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")
    latency.add_argument("--plot", type=Path, metavar="FILE.png", help="draw stages and distribution here")
    _add_bench_sessions(suites)
    _add_bench_quality(suites)
    _add_bench_echo(suites)


def _bench_latency(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench import LatencyOptions, bench_latency

    return asyncio.run(
        bench_latency(
            LatencyOptions(
                path=options.path,
                turns=options.turns,
                seed=options.seed,
                url=options.url,
                api_key=options.api_key,
                json=options.json,
                plot=options.plot,
                server_environ=own_server(environ),
            )
        )
    )


def _add_bench_sessions(suites: _Commands[Parser]) -> None:
    sessions = _command(suites, "sessions", "measure what sessions cost the server", _bench_sessions)
    sessions.add_argument("--quiet", type=_positive, default=50, metavar="N", help="quiet callers; default 50")
    sessions.add_argument("--seconds", type=float, default=20.0, help="how long they are measured; default 20")
    sessions.add_argument("--churn", type=_positive, default=1000, metavar="N", help="opened and closed; default 1000")
    sessions.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")


def _bench_sessions(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.bench_sessions import SessionsOptions, bench_sessions

    asked = SessionsOptions(
        quiet=options.quiet,
        seconds=options.seconds,
        churn=options.churn,
        json=options.json,
        server_environ=own_server(environ),
    )
    return asyncio.run(bench_sessions(asked))


def _add_bench_quality(suites: _Commands[Parser]) -> None:
    quality = _command(suites, "quality", "measure how well recordings are heard, against the baseline", _bench_quality)
    quality.add_argument("--part", choices=("ears",), default="ears", help="what is measured; default ears")
    quality.add_argument(
        "--ears", action="append", default=[], metavar="ENGINE", help="recogniser, also several times; default all here"
    )
    quality.add_argument(
        "--lookahead-ms", action="append", type=int, default=[], metavar="N", help="also several times; default all"
    )
    quality.add_argument("--device", choices=DEVICES, default="cpu", help="where they run; default cpu")
    quality.add_argument(
        "--manifest",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help='JSON lines {"wav", "text"}, or a folder that holds manifest.jsonl; also several times. Default: a small '
        "synthetic set",
    )
    quality.add_argument("--align", action="store_true", help="time words by forced alignment, not by each recogniser")
    quality.add_argument("--recordings", type=_positive, metavar="N", help="of each set; default all")
    quality.add_argument("--chunk-ms", type=_positive, default=80, metavar="N", help="audio at a time; default 80")
    quality.add_argument(
        "--non-speech-s", type=float, default=30.0, metavar="S", help="of each kind of noise; 0 for none; default 30"
    )
    quality.add_argument("--hour", action="store_true", help="let each recogniser hear an hour of audio in one slot")
    quality.add_argument("--seed", type=int, default=0, help="of the noises; default 0")
    quality.add_argument("--json", type=Path, metavar="FILE", help="write all results here; - for stdout")
    quality.add_argument("--plot", type=Path, metavar="FILE.png", help="draw errors, delays and insertions here")


def _bench_quality(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
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


def _add_bench_echo(suites: _Commands[Parser]) -> None:
    summary = "measure how often the echo of its own voice interrupts a reply, with and without echo control"
    echo = _command(suites, "echo", summary, _bench_echo)
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
    echo.add_argument("--replies", type=_positive, default=200, metavar="N", help="in each condition; default 200")
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


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


# ------------------------------------------------------------------------------------------------------- models, doctor


def _add_models(commands: _Commands[Parser]) -> None:
    parser = _command(commands, "models", "engines and weights on this machine", _models_list)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_json(_command(verbs, "list", "list engines: what they need and whether they can run here", _models_list))
    _add_json(_command(verbs, "verify", "check all weights against their checksums", _models_verify))
    pull = _command(verbs, "pull", "download a published checkpoint from a hub", _models_pull)
    pull.add_argument("model", metavar="NAME", help="nemotron, or a hub's OWNER/MODEL")
    bring = _command(verbs, "import", "copy a folder with a checkpoint to the other models", _models_import)
    bring.add_argument("folder", type=Path, metavar="FOLDER")
    for parser in (pull, bring):
        parser.add_argument("--as", dest="as_name", metavar="NAME", help="name to give it; default: its own")
        _add_json(parser)


def models_dir(environ: Mapping[str, str]) -> Path:
    """Where models of the user's own are: in $RELAY_HOME, else where the platform keeps data of applications."""
    if home := environ.get("RELAY_HOME"):
        return Path(home) / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "relay" / "models"
    data = environ.get("LOCALAPPDATA") if sys.platform == "win32" else environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "relay" / "models"


def _models_list(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.models import list_models

    return list_models(models_dir(environ), json=options.json)


def _models_verify(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.models import verify

    return verify(models_dir(environ), json=options.json)


def _models_pull(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.models import pull

    return pull(models_dir(environ), options.model, as_name=options.as_name, json=options.json)


def _models_import(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.models import import_folder

    return import_folder(models_dir(environ), options.folder, as_name=options.as_name, json=options.json)


def _add_doctor(commands: _Commands[Parser]) -> None:
    parser = _command(commands, "doctor", "say what works here and what to do about the rest", _doctor)
    parser.add_argument("--port", type=int, default=8000, help="port that should be free; default 8000")
    _add_json(parser)


def _doctor(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.doctor import DoctorOptions, doctor

    return doctor(DoctorOptions(port=options.port, json=options.json))


def _fail(message: str, status: int) -> int:
    print(f"relay: error: {' '.join(message.split())}", file=sys.stderr)
    return status
