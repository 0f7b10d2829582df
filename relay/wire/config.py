"""The session's configuration: immutable, merged from `session.update`, shown in `session.updated`.

A field absent from an update stays as it is; null turns a setting off, or back to the server's default where it cannot
be off.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from relay.audio import RATE_HZ, Format
from relay.config import Path_
from relay.errors import BadEvent
from relay.wire.tools import check_choice, check_tools
from relay.wire.types import (
    AudioFormat,
    AudioInput,
    AudioOutput,
    CustomVoice,
    Modality,
    Prompt,
    Reasoning,
    RelaySettings,
    RetentionRatio,
    ServerVad,
    SessionAudio,
    SessionFields,
    Tool,
    ToolChoice,
    Tracing,
)

DEFAULT_INSTRUCTIONS = "You are a helpful voice assistant. Answer in one or two short spoken sentences."

MAX_DEPTH = 32
"""Nesting of JSON that is kept and echoed, such as the schema of a tool."""

_FORMAT_OF: dict[str, Format] = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
_OF_TRANSCRIPTION = {"type", "object", "id", "audio", "include", "relay"}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """How the end of the caller's turn is found.

    Attributes:
        type: `server_vad` (voice activity and a pause) or `semantic_vad` (also what was said).
        threshold: Activation of the voice activity detector, 0 to 1.
        prefix_padding_ms: Audio kept before the detected start of speech.
        silence_duration_ms: Pause that ends a turn.
        create_response: Whether the end of a turn asks for a response.
        interrupt_response: Whether the start of speech cancels the response in progress.
        idle_timeout_ms: Silence after a reply that triggers another response, or None.
        eagerness: How soon `semantic_vad` takes the turn.
    """

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"


@dataclass(frozen=True, slots=True)
class Transcription:
    """Transcription of the caller's speech for the client. Only `language` and `prompt` are hints to the recogniser."""

    model: str = "relay"
    language: str | None = None
    prompt: str | None = None
    languages: tuple[str, ...] | None = None
    keywords: tuple[str, ...] | None = None
    delay: str | None = None


@dataclass(frozen=True, slots=True)
class NoiseReduction:
    """Noise reduction of the caller's audio.

    Attributes:
        type: `near_field` for a microphone at the mouth, `far_field` for one in the room.
        strength: How much is suppressed, 0 to 1.
    """

    type: Literal["near_field", "far_field"] = "near_field"
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """What a client asked for with `session.relay`.

    Attributes:
        playback: The client reports what it has played with `relay.playback`.
        partials: Send `relay.partial`.
        words: Send `relay.words`.
        metrics: Send `relay.metrics`.
        draft: Send `relay.draft`.
        duck: The client falls silent on `relay.duck`, and plays on when told.
        path: How its replies are made; None: as the server makes them by itself.
    """

    playback: bool = False
    partials: bool = True
    words: bool = True
    metrics: bool = True
    draft: bool = True
    duck: bool = False
    path: Path_ | None = None


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Everything a client can set for its session. `turn_detection` None means that the client commits by hand.

    A session of type `transcription` gives transcripts and no responses. `model`, `voice`, `reasoning` and `tracing`
    are kept and shown, and change nothing. `paths` is the server's alone: the paths that it has models for, its own
    first.
    """

    type: Literal["realtime", "transcription"] = "realtime"
    model: str = "relay"
    instructions: str = DEFAULT_INSTRUCTIONS
    output_modalities: tuple[Modality, ...] = ("audio",)
    input_format: Format = "pcm16"
    output_format: Format = "pcm16"
    voice: str = "relay"
    speed: float = 1.0
    turn_detection: TurnDetection | None = TurnDetection()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    max_output_tokens: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str | ToolChoice = "auto"
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    tracing: str | Tracing | None = None
    truncation: str | RetentionRatio = "auto"
    include: tuple[str, ...] | None = None
    relay: RelayOptions | None = None
    paths: tuple[Path_, ...] = ("cascade",)

    @property
    def path(self) -> Path_:
        """How replies are made: as the client asked, else as the server does by itself."""
        return (self.relay and self.relay.path) or self.paths[0]


def updated(config: SessionConfig, defaults: SessionConfig, fields: SessionFields) -> SessionConfig:
    """The configuration after a client's update.

    Args:
        config: The configuration now.
        defaults: The server's own, for fields set to null.
        fields: What the client sent.

    Raises:
        BadEvent: A value is not one that this server can follow.
    """
    check_depth(fields, "session")
    check_prompt(fields.prompt, "session.prompt")
    changes = _echoed_changes(defaults, fields)
    kind = config.type if fields.type is UNSET else fields.type
    if kind == "transcription":
        _check_transcription(fields)
    if kind != config.type:
        changes |= {"type": kind}
        if kind == "transcription" and config.transcription is None:
            changes |= {"transcription": Transcription()}
    if isinstance(fields.tools, list):
        check_tools(fields.tools, "session.tools")
    if fields.tool_choice is not UNSET and fields.tool_choice is not None:
        check_choice(fields.tool_choice, changes.get("tools", config.tools), "session.tool_choice")
    if fields.output_modalities is not UNSET:
        changes["output_modalities"] = (
            parse_modalities(fields.output_modalities, "session.output_modalities") or defaults.output_modalities
        )
    if fields.max_output_tokens is not UNSET:
        changes["max_output_tokens"] = parse_max_output_tokens(fields.max_output_tokens)
    if fields.relay is not UNSET:
        changes["relay"] = None if fields.relay is None else _relay_options(config, fields.relay)
    if fields.audio is not UNSET:
        if fields.audio.input is not UNSET:
            changes |= _input_changes(config, defaults, fields.audio.input)
        if fields.audio.output is not UNSET:
            changes |= _output_changes(defaults, fields.audio.output)
    return dataclasses.replace(config, **changes)


def changed(before: SessionConfig, after: SessionConfig) -> frozenset[str]:
    """Names of the fields that differ."""
    return frozenset(f.name for f in dataclasses.fields(before) if getattr(before, f.name) != getattr(after, f.name))


def _echoed_changes(defaults: SessionConfig, fields: SessionFields) -> dict[str, Any]:
    """Changes of the fields that are taken as they come; lists become tuples."""
    changes: dict[str, Any] = {}
    names = (
        "model",
        "instructions",
        "tool_choice",
        "parallel_tool_calls",
        "reasoning",
        "tracing",
        "truncation",
    )
    for name in (*names, "tools", "include"):
        value = getattr(fields, name)
        if value is None:
            changes[name] = getattr(defaults, name)
        elif value is not UNSET:
            changes[name] = tuple(value) if isinstance(value, list) else value
    return changes


def _relay_options(config: SessionConfig, wire: RelaySettings) -> RelayOptions:
    """Raises BadEvent for a path that the server has no models for."""
    if isinstance(wire.path, str) and wire.path not in config.paths:
        offered = " or ".join(f"'{path}'" for path in config.paths)
        raise BadEvent(
            f"This server has no models for the path '{wire.path}': ask for {offered}, or start it with "
            f"--path {wire.path}",
            code="unsupported_value",
            param="session.relay.path",
        )
    return _overlay(config.relay or RelayOptions(), msgspec.structs.replace(wire, paths=UNSET))


def _input_changes(config: SessionConfig, defaults: SessionConfig, wire: AudioInput) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if wire.format is not UNSET:
        changes["input_format"] = parse_format(wire.format, "session.audio.input.format") or defaults.input_format
    if wire.turn_detection is None:
        changes["turn_detection"] = None
    elif wire.turn_detection is not UNSET:
        kind: Literal["server_vad", "semantic_vad"] = (
            "server_vad" if isinstance(wire.turn_detection, ServerVad) else "semantic_vad"
        )
        now = config.turn_detection
        base = now if now is not None and now.type == kind else TurnDetection(type=kind)
        changes["turn_detection"] = _overlay(base, wire.turn_detection)
    if wire.transcription is None:
        changes["transcription"] = None
    elif wire.transcription is not UNSET:
        changes["transcription"] = _overlay(config.transcription or Transcription(), wire.transcription)
    if wire.noise_reduction is None:
        changes["noise_reduction"] = None
    elif wire.noise_reduction is not UNSET:
        changes["noise_reduction"] = _overlay(config.noise_reduction or NoiseReduction(), wire.noise_reduction)
    return changes


def _output_changes(defaults: SessionConfig, wire: AudioOutput) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if wire.format is not UNSET:
        changes["output_format"] = parse_format(wire.format, "session.audio.output.format") or defaults.output_format
    if wire.voice is not UNSET:
        changes["voice"] = parse_voice(wire.voice) or defaults.voice
    if wire.speed is not UNSET:
        changes["speed"] = defaults.speed if wire.speed is None else wire.speed
    return changes


def _check_transcription(fields: SessionFields) -> None:
    """Raises BadEvent for what only a session with responses has."""
    output = fields.audio.output if isinstance(fields.audio, SessionAudio) else UNSET
    strange = [name for name in _given(fields) if name not in _OF_TRANSCRIPTION] + ["audio.output"] * (
        output is not UNSET
    )
    if strange:
        raise BadEvent(
            f"A transcription session gives no responses and has no '{strange[0]}'",
            code="unknown_parameter",
            param=f"session.{strange[0]}",
        )


def check_prompt(prompt: Prompt | UnsetType | None, param: str) -> None:
    """Raises BadEvent for a stored prompt: there are none here."""
    if isinstance(prompt, Prompt):
        raise BadEvent(
            "This server stores no prompts: send their text as instructions", code="unsupported_value", param=param
        )


def parse_format(wire: AudioFormat | None, param: str) -> Format | None:
    """The format of audio; None for null. Raises BadEvent for a rate that the format does not have."""
    if wire is None:
        return None
    form = _FORMAT_OF[wire.type]
    if wire.rate is not None and wire.rate is not UNSET and wire.rate != RATE_HZ[form]:
        raise BadEvent(f"{wire.type} has {RATE_HZ[form]} Hz here: resample, and send that", param=f"{param}.rate")
    return form


def parse_voice(wire: str | CustomVoice | None) -> str | None:
    """The name of a voice; None for null."""
    return wire.id if isinstance(wire, CustomVoice) else wire


def parse_modalities(wire: list[Modality] | None, param: str) -> tuple[Modality, ...] | None:
    """What a response is made of; None for null. Raises BadEvent unless it is exactly one of text and audio."""
    if wire is None:
        return None
    if len(wire) != 1:
        raise BadEvent("Ask for ['audio'], which brings its transcript, or for ['text']", param=param)
    return tuple(wire)


def parse_max_output_tokens(wire: int | Literal["inf"] | None) -> int | None:
    """The limit, or None for `inf` and null."""
    return wire if isinstance(wire, int) else None


def _given(wire: msgspec.Struct) -> dict[str, Any]:
    """The fields that the client sent."""
    return {name: value for name, value in msgspec.structs.asdict(wire).items() if value is not UNSET}


def _overlay(base: _T, wire: msgspec.Struct) -> _T:
    """A dataclass with the fields that the client sent; null gives the dataclass's own default."""
    fresh = type(base)()
    changes = {name: getattr(fresh, name) if value is None else value for name, value in _given(wire).items()}
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]


def check_depth(value: object, param: str) -> None:
    """Raises BadEvent for JSON nested so deep that writing it could exhaust the stack."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, msgspec.Struct):
                below.extend(msgspec.structs.asdict(value).values())
            elif isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        level = below
        if not level:
            return
    raise BadEvent(f"Nest values at most {MAX_DEPTH} levels deep", param=param)
