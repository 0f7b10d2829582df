"""session.update: what is absent stays, null is null, what cannot be followed is refused by name."""

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import BadEvent
from relay.wire.config import (
    MAX_DEPTH,
    NoiseReduction,
    RelayOptions,
    SessionConfig,
    Transcription,
    TurnDetection,
    changed,
    updated,
)
from relay.wire.session_object import to_wire
from relay.wire.types import RelaySettings, SessionFields

FAR_FIELD = NoiseReduction("far_field")
DEFAULTS = SessionConfig(instructions="Be kind.", voice="house")


def update(config: SessionConfig, fields: dict[str, Any]) -> SessionConfig:
    return updated(config, DEFAULTS, msgspec.convert(fields, SessionFields))


def test_what_is_absent_stays() -> None:
    config = update(DEFAULTS, {"audio": {"output": {"speed": 1.2}}})
    assert config == dataclasses.replace(DEFAULTS, speed=1.2)
    assert changed(DEFAULTS, config) == {"speed"}
    assert update(config, {}) == config


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"instructions": "Hm."}, "instructions", "Hm."),
        ({"output_modalities": ["text"]}, "output_modalities", ("text",)),
        ({"max_output_tokens": 7}, "max_output_tokens", 7),
        ({"audio": {"input": {"format": {"type": "audio/pcmu"}}}}, "input_format", "g711_ulaw"),
        ({"audio": {"output": {"format": {"type": "audio/pcma", "rate": 8000}}}}, "output_format", "g711_alaw"),
        ({"audio": {"output": {"voice": {"id": "v"}}}}, "voice", "v"),
        ({"audio": {"input": {"transcription": {"language": "de"}}}}, "transcription", Transcription(language="de")),
        (
            {"audio": {"input": {"noise_reduction": {"type": "far_field"}}}},
            "noise_reduction",
            NoiseReduction("far_field"),
        ),
        ({"relay": {"words": False}}, "relay", RelayOptions(words=False)),
        ({"relay": {"path": "cascade"}}, "relay", RelayOptions(path="cascade")),
        ({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}, "turn_detection", TurnDetection()),
    ],
)
def test_a_given_field_changes(fields: dict[str, Any], name: str, value: object) -> None:
    config = update(DEFAULTS, fields)
    assert getattr(config, name) == value
    assert changed(DEFAULTS, config) <= {name}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"audio": {"input": {"turn_detection": None}}}, "turn_detection"),
        ({"audio": {"input": {"transcription": None}}}, "transcription"),
        ({"audio": {"input": {"noise_reduction": None}}}, "noise_reduction"),
        ({"tracing": None}, "tracing"),
        ({"relay": None}, "relay"),
    ],
)
def test_null_turns_off(fields: dict[str, Any], name: str) -> None:
    everything = update(
        DEFAULTS,
        {
            "audio": {
                "input": {
                    "turn_detection": {"type": "semantic_vad"},
                    "transcription": {},
                    "noise_reduction": {"type": "far_field"},
                }
            },
            "tracing": "auto",
            "relay": {},
        },
    )
    assert getattr(everything, name) is not None
    config = update(everything, fields)
    assert getattr(config, name) is None
    assert changed(everything, config) == {name}


def test_null_brings_back_the_servers_default() -> None:
    config = update(
        DEFAULTS,
        {
            "instructions": "Hm.",
            "output_modalities": ["text"],
            "max_output_tokens": 7,
            "audio": {
                "input": {"format": {"type": "audio/pcmu"}},
                "output": {"format": {"type": "audio/pcmu"}, "voice": "v", "speed": 1.5},
            },
            "tools": [{"type": "function", "name": "f"}],
        },
    )
    nothing = {
        "instructions": None,
        "output_modalities": None,
        "max_output_tokens": None,
        "audio": {"input": {"format": None}, "output": {"format": None, "voice": None, "speed": None}},
        "tools": None,
    }
    assert update(config, nothing) == DEFAULTS


def test_turn_detection_merges_within_its_type_and_starts_afresh_across_types() -> None:
    config = update(DEFAULTS, {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.3}}}})
    config = update(
        config, {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}}}
    )
    assert config.turn_detection == TurnDetection(threshold=0.3, silence_duration_ms=300)
    config = update(config, {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": None}}}})
    assert config.turn_detection == TurnDetection(silence_duration_ms=300)
    config = update(config, {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}}})
    assert config.turn_detection == TurnDetection(type="semantic_vad", eagerness="low")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, "session.audio.input.format.rate"),
        ({"audio": {"output": {"format": {"type": "audio/pcmu", "rate": 24000}}}}, "session.audio.output.format.rate"),
        ({"output_modalities": ["text", "audio"]}, "session.output_modalities"),
        ({"output_modalities": []}, "session.output_modalities"),
        ({"prompt": {"id": "p"}}, "session.prompt"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_label": "x"}]}, "session.tools[1].type"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "f"}]}, "session.tools[1].name"),
        ({"tools": [{"type": "function", "name": "look up"}]}, "session.tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "parameters": [1]}]}, "session.tools[0].parameters"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "session.tool_choice.name"),
        ({"tool_choice": {"type": "function"}}, "session.tool_choice.name"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "session.tool_choice.type"),
        ({"type": "transcription", "instructions": "Hm."}, "session.instructions"),
        ({"type": "transcription", "audio": {"output": {"voice": "v"}}}, "session.audio.output"),
    ],
)
def test_what_cannot_be_followed_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadEvent) as caught:
        update(DEFAULTS, fields)
    assert caught.value.param == param


def test_what_is_echoed_is_not_deep() -> None:
    def schema(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = {"items": [value]}
        return {"tools": [{"type": "function", "name": "f", "parameters": value}]}

    config = update(DEFAULTS, schema(10))
    assert to_wire(config, "s").tools == list(config.tools)
    with pytest.raises(BadEvent):
        update(DEFAULTS, schema(MAX_DEPTH))


def test_what_is_shown_is_an_update_that_changes_nothing() -> None:
    fields = {
        "audio": {
            "input": {"turn_detection": {"type": "semantic_vad"}, "transcription": {"keywords": ["Relay"]}},
            "output": {"voice": "v", "speed": 0.5},
        },
        "tools": [{"type": "function", "name": "look_up", "parameters": {"type": "object"}}],
        "tool_choice": {"type": "function", "name": "look_up"},
        "max_output_tokens": 12,
        "tracing": {"workflow_name": "w"},
        "include": ["item.input_audio_transcription.logprobs"],
        "relay": {"playback": True, "path": "cascade"},
    }
    config = update(DEFAULTS, fields)
    shown = msgspec.json.decode(msgspec.json.encode(to_wire(config, "sess_1")), type=SessionFields)
    assert updated(SessionConfig(), DEFAULTS, shown) == config


@given(
    st.permutations(["relay", "cascade", "draft"]),
    st.integers(1, 3),
    st.lists(st.one_of(st.none(), st.sampled_from(["relay", "cascade", "draft"]), st.just("off")), max_size=6),
)
def test_the_path_is_one_that_the_server_has_the_last_that_was_asked_for(
    order: list[Any], count: int, asked: list[Any]
) -> None:
    own = order[:count]
    defaults = SessionConfig(paths=tuple(own))
    config, wanted = defaults, own[0]
    for path in asked:
        if path not in (None, "off", *own):
            with pytest.raises(BadEvent) as caught:
                updated(config, defaults, msgspec.convert({"relay": {"path": path}}, SessionFields))
            assert (caught.value.code, caught.value.param) == ("unsupported_value", "session.relay.path")
            assert all(f"'{each}'" in str(caught.value) for each in own), "it says what can be asked for"
            continue
        fields = {"relay": None if path == "off" else {"path": path, "paths": ["draft"]}}
        config = updated(config, defaults, msgspec.convert(fields, SessionFields))
        wanted = own[0] if path in (None, "off") else path
        shown = to_wire(config, "sess_1").relay
        if path == "off":
            assert shown is msgspec.UNSET
        else:
            assert isinstance(shown, RelaySettings)
            assert (shown.path, shown.paths) == (path, own), "what a client says of the paths is not read"
    assert config.path == wanted


def test_a_transcription_session_shows_only_what_it_has() -> None:
    config = update(DEFAULTS, {"type": "transcription", "include": ["item.input_audio_transcription.logprobs"]})
    assert changed(DEFAULTS, config) == {"type", "transcription", "include"}
    assert config.transcription == Transcription()
    shown = msgspec.json.decode(msgspec.json.encode(to_wire(config, "sess_1")))
    assert shown["type"] == "transcription"
    assert shown["object"] == "realtime.transcription_session"
    assert shown.keys() == {"type", "object", "id", "audio", "include"}
    assert shown["audio"].keys() == {"input"}
    with pytest.raises(BadEvent):
        update(config, {"tools": []})
    assert update(config, {"type": "realtime"}).instructions == "Be kind."


def test_noise_reduction_keeps_its_strength_until_it_is_turned_off() -> None:
    def noise(config: SessionConfig, value: Any) -> SessionConfig:
        return update(config, {"audio": {"input": {"noise_reduction": value}}})

    config = noise(DEFAULTS, {"type": "near_field", "strength": 0.3})
    config = noise(config, {"type": "far_field"})
    assert config.noise_reduction == NoiseReduction("far_field", 0.3)
    assert noise(noise(config, None), {"type": "far_field"}).noise_reduction == NoiseReduction("far_field", 1.0)


def test_a_choice_is_checked_against_the_tools_of_the_same_update() -> None:
    tool = {"type": "function", "name": "f"}
    config = update(DEFAULTS, {"tools": [tool], "tool_choice": {"type": "function", "name": "f"}})
    assert update(config, {"tools": []}).tools == ()
