"""The session object as `session.created` and `session.updated` show it."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from relay.audio import Format
from relay.wire.config import NoiseReduction, SessionConfig, Transcription, TurnDetection
from relay.wire.types import (
    AudioFormat,
    AudioInput,
    AudioOutput,
    RelaySettings,
    SemanticVad,
    ServerVad,
    SessionAudio,
    SessionFields,
    TranscriptionOptions,
)
from relay.wire.types import NoiseReduction as WireNoiseReduction

_WIRE_OF: dict[Format, AudioFormat] = {
    "pcm16": AudioFormat(type="audio/pcm", rate=24_000),
    "g711_ulaw": AudioFormat(type="audio/pcmu"),
    "g711_alaw": AudioFormat(type="audio/pcma"),
}

_T = TypeVar("_T")


def to_wire(config: SessionConfig, session_id: str) -> SessionFields:
    """The session object as clients see it; `relay` only for a client that asked."""
    relay: RelaySettings | UnsetType = UNSET
    if config.relay is not None:
        relay = RelaySettings(**dataclasses.asdict(config.relay), paths=list(config.paths))
    include = None if config.include is None else list(config.include)
    heard = AudioInput(
        format=_WIRE_OF[config.input_format],
        turn_detection=_turn_detection_to_wire(config.turn_detection),
        transcription=_transcription_to_wire(config.transcription),
        noise_reduction=_noise_reduction_to_wire(config.noise_reduction),
    )
    if config.type == "transcription":
        return SessionFields(
            type="transcription",
            object="realtime.transcription_session",
            id=session_id,
            audio=SessionAudio(input=heard),
            include=include,  # type: ignore[arg-type]  # literals: they came from the wire
            relay=relay,
        )
    return SessionFields(
        type="realtime",
        object="realtime.session",
        id=session_id,
        model=config.model,
        output_modalities=list(config.output_modalities),
        instructions=config.instructions,
        audio=SessionAudio(
            input=heard,
            output=AudioOutput(format=_WIRE_OF[config.output_format], voice=config.voice, speed=config.speed),
        ),
        tools=list(config.tools),
        tool_choice=config.tool_choice,  # type: ignore[arg-type]  # one of the literals: it came from the wire
        parallel_tool_calls=_or_unset(config.parallel_tool_calls),
        max_output_tokens=config.max_output_tokens or "inf",
        reasoning=_or_unset(config.reasoning),
        tracing=config.tracing,  # type: ignore[arg-type]
        truncation=config.truncation,  # type: ignore[arg-type]
        include=include,  # type: ignore[arg-type]
        relay=relay,
    )


def format_to_wire(form: Format) -> AudioFormat:
    """The format as clients see it."""
    return _WIRE_OF[form]


def _or_unset(value: _T | None) -> _T | UnsetType:
    return UNSET if value is None else value


def _turn_detection_to_wire(turn: TurnDetection | None) -> ServerVad | SemanticVad | None:
    if turn is None:
        return None
    if turn.type == "semantic_vad":
        return SemanticVad(
            eagerness=turn.eagerness,
            create_response=turn.create_response,
            interrupt_response=turn.interrupt_response,
        )
    return ServerVad(
        threshold=turn.threshold,
        prefix_padding_ms=turn.prefix_padding_ms,
        silence_duration_ms=turn.silence_duration_ms,
        idle_timeout_ms=turn.idle_timeout_ms,
        create_response=turn.create_response,
        interrupt_response=turn.interrupt_response,
    )


def _transcription_to_wire(transcription: Transcription | None) -> TranscriptionOptions | None:
    if transcription is None:
        return None
    given = {name: value for name, value in dataclasses.asdict(transcription).items() if value is not None}
    return msgspec.convert(given, TranscriptionOptions)


def _noise_reduction_to_wire(noise: NoiseReduction | None) -> WireNoiseReduction | None:
    return None if noise is None else WireNoiseReduction(type=noise.type, strength=noise.strength)
