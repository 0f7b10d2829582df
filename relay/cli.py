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
from typing import Any

import relay
from relay.arguments import (
    DEVICES,
    ENGINE_PROCESSES,
    PATHS,
    Commands,
    Parser,
    add_command,
    add_json,
    add_url,
    models_dir,
    own_server,
)
from relay.cli_bench import add_bench
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


SERVE_FLAGS = (
    ServeFlag("host", "address to listen on; beyond this machine use --api-key", "ADDRESS", default="127.0.0.1"),
    ServeFlag("port", "port to listen on; 0 picks a free one, named on the ready line", "PORT", int, default=8000),
    ServeFlag("device", "where models run", None, str, DEVICES, "auto"),
    ServeFlag("max-sessions", "callers admitted at once; default: as many as the engines can hold", "N", int),
    ServeFlag(
        "max-load-percent",
        "part of its time that any model may be used, as measured, before newcomers are refused; 0: refuse nobody",
        "N",
        int,
        default=80,
    ),
    ServeFlag("api-key", "key that clients must present", "KEY"),
    ServeFlag("tls-cert", "PEM certificate chain; with --tls-key the server speaks TLS", "FILE", Path),
    ServeFlag("tls-key", "PEM private key", "FILE", Path),
    ServeFlag("llm-url", "OpenAI-compatible language model server; default: the embedded model", "URL"),
    ServeFlag("llm-model", "model to ask it for", "NAME"),
    ServeFlag("llm-key-env", "environment variable that holds its API key", "VAR"),
    ServeFlag(
        "brain-delay-ms",
        "for measurements: let every reply of the language model begin so much later",
        "N",
        int,
        default=0,
    ),
    ServeFlag("ears", "recogniser: engine or model (relay models list), or folder", "ENGINE", default="auto"),
    ServeFlag("lookahead-ms", "audio the recogniser may wait for before it commits to a word", "N", int),
    ServeFlag("voice", "voice engine (relay models list)", "ENGINE", default="auto"),
    ServeFlag(
        "path",
        "how replies are made: begun by the draft model where its verifier agrees, and continued by the language model "
        "(relay); by the language model alone (cascade); by the draft model alone (draft); default: relay where its "
        "models can run, else cascade",
        choices=PATHS,
    ),
    ServeFlag(
        "speculate",
        "prepare replies, unheard, while the end of a turn is only likely; default: with the embedded model, not with "
        "--llm-url, where it costs tokens",
        type=_switch,
        negation="no-speculation",
    ),
    ServeFlag(
        "gateways",
        "processes for sockets and sessions, before those that run the models; 0: one for all",
        "N",
        int,
        default=0,
    ),
    ServeFlag(
        "engine-processes",
        "with --gateways: a process for each model, so that none waits for another, or one for all, in less memory",
        choices=ENGINE_PROCESSES,
        default="each",
    ),
    ServeFlag("record", "folder to record sessions into", "DIR", Path),
    ServeFlag(
        "noise-suppression", "DPDFNet ONNX file, for sessions that ask for noise reduction; default: none", "FILE", Path
    ),
)


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
    add_bench(commands, environ)
    _add_models(commands)
    _add_doctor(commands)
    return parser


# ---------------------------------------------------------------------------------------------------------------- serve


def _add_serve(commands: Commands[Parser], environ: Mapping[str, str]) -> None:
    parser = add_command(commands, "serve", "run the server", _serve)
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

    def on_ready(url: str) -> None:
        print(f"ready {url}", flush=True)

    if config.gateways:
        from relay.server.gateways import serve_with_gateways

        asyncio.run(serve_with_gateways(config, environ, on_ready))
    else:
        asyncio.run(serve(config, on_ready))
    return 0


# ----------------------------------------------------------------------------------------------------------------- demo


def _add_demo(commands: Commands[Parser]) -> None:
    summary = "carry one bundled spoken question through a server started for it, with the settings of `relay serve`"
    parser = add_command(commands, "demo", summary, _demo)
    parser.add_argument("--output", type=Path, metavar="FILE.wav", help="write the spoken reply here")
    add_json(parser)


def _demo(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.demo import DemoOptions, demo

    return asyncio.run(demo(DemoOptions(output=options.output, json=options.json, server_environ=own_server(environ))))


# ----------------------------------------------------------------------------------------------------------------- talk


def _add_talk(commands: Commands[Parser], environ: Mapping[str, str]) -> None:
    parser = add_command(
        commands, "talk", "hold a dialogue at the microphone, or with sound files in place of the devices", _talk
    )
    add_url(parser, environ, default=DEFAULT_URL, note=f"default {DEFAULT_URL}. How it replies, its own --path says")
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
    add_json(parser)


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


def _add_transcribe(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "transcribe", "recognise speech in sound files, as a stream", _transcribe)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="sound file of any rate and channel count")
    parser.add_argument("--engine", default="auto", help="recogniser or model (relay models list), or folder with one")
    parser.add_argument(
        "--lookahead-ms",
        type=int,
        choices=(0, 80, 480, 1040),
        help="audio the recogniser may wait for before it commits to a word",
    )
    add_json(parser)


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


def _add_say(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "say", "speak a text, as a stream", _say)
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--engine", default="auto", help="voice (relay models list)")
    parser.add_argument("--out", type=Path, metavar="FILE.wav", help="write a WAV file instead of playing")
    add_json(parser)


def _say(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.say import SayOptions, say

    return asyncio.run(say(SayOptions(text=options.text, engine=options.engine, out=options.out, json=options.json)))


# ------------------------------------------------------------------------------------------------------- models, doctor


def _add_models(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "models", "engines and weights on this machine", _models_list)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    add_json(add_command(verbs, "list", "list engines: what they need and whether they can run here", _models_list))
    add_json(add_command(verbs, "verify", "check all weights against their checksums", _models_verify))
    pull = add_command(verbs, "pull", "download a published checkpoint from a hub", _models_pull)
    pull.add_argument("model", metavar="NAME", help="nemotron, or a hub's OWNER/MODEL")
    bring = add_command(verbs, "import", "copy a folder with a checkpoint to the other models", _models_import)
    bring.add_argument("folder", type=Path, metavar="FOLDER")
    for parser in (pull, bring):
        parser.add_argument("--as", dest="as_name", metavar="NAME", help="name to give it; default: its own")
        add_json(parser)


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


def _add_doctor(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "doctor", "say what works here and what to do about the rest", _doctor)
    parser.add_argument("--port", type=int, default=8000, help="port that should be free; default 8000")
    add_json(parser)


def _doctor(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from relay.commands.doctor import DoctorOptions, doctor

    return doctor(DoctorOptions(options.port, models_dir(environ), json=options.json))


def _fail(message: str, status: int) -> int:
    print(f"relay: error: {' '.join(message.split())}", file=sys.stderr)
    return status
