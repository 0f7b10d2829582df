"""Client events: all that OpenAI's SDK can send is read, all else is refused with a documented code."""

import base64
import json
from typing import Any, get_args, get_type_hints

import openai.types.realtime as sdk
import pytest
from msgspec.structs import fields
from openai.types.realtime import realtime_audio_config_input_param as sdk_input
from openai.types.realtime import realtime_audio_input_turn_detection_param as sdk_turns
from openai.types.realtime import realtime_conversation_item_assistant_message_param as sdk_assistant
from openai.types.realtime import realtime_conversation_item_user_message_param as sdk_user
from openai.types.realtime import realtime_response_create_audio_output_param as sdk_response_output
from openai.types.realtime import realtime_tools_config_union_param as sdk_tools
from openai.types.realtime import realtime_tracing_config_param as sdk_tracing
from openai.types.realtime import realtime_truncation_retention_ratio_param as sdk_truncation
from pydantic import TypeAdapter

from relay.errors import BadEvent
from relay.wire import client_events as cl
from relay.wire import types as t

AUDIO = base64.b64encode(bytes(range(16))).decode()
TOOLS = [
    {"type": "function", "name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}},
    {
        "type": "mcp",
        "server_label": "shop",
        "server_url": "https://shop.example",
        "allowed_tools": ["order"],
        "require_approval": "never",
        "headers": {"X": "y"},
    },
]
SESSION = {
    "type": "realtime",
    "model": "gpt-realtime",
    "output_modalities": ["audio"],
    "instructions": "Be kind.",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.4,
                "prefix_padding_ms": 200,
                "silence_duration_ms": 400,
                "idle_timeout_ms": 6000,
                "create_response": True,
                "interrupt_response": False,
            },
            "transcription": {"model": "whisper-1", "language": "en", "prompt": "names"},
            "noise_reduction": {"type": "near_field", "strength": 0.5},
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin", "speed": 1.25},
    },
    "tools": TOOLS,
    "tool_choice": {"type": "function", "name": "look_up"},
    "parallel_tool_calls": False,
    "max_output_tokens": 512,
    "reasoning": {"effort": "low"},
    "tracing": {"workflow_name": "w", "group_id": "g", "metadata": {"a": [1, None]}},
    "truncation": {"type": "retention_ratio", "retention_ratio": 0.8, "token_limits": {"post_instructions": 5000}},
    "prompt": {"id": "pmpt_1", "variables": {"city": "Bern"}, "version": "2"},
    "include": ["item.input_audio_transcription.logprobs"],
}
USER = {
    "id": "msg_1",
    "object": "realtime.item",
    "type": "message",
    "status": "completed",
    "role": "user",
    "content": [
        {"type": "input_text", "text": "Hello"},
        {"type": "input_audio", "audio": AUDIO, "transcript": "hello"},
        {"type": "input_image", "image_url": "data:image/png;base64,", "detail": "low"},
    ],
}
ASSISTANT = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hi"}, {"type": "output_audio", "audio": AUDIO, "transcript": "hi"}],
}
SYSTEM = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]}
CALL = {"type": "function_call", "name": "look_up", "arguments": '{"q": 1}', "call_id": "call_1"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
RESPONSE = {
    "instructions": "Greet.",
    "output_modalities": ["text"],
    "audio": {"output": {"format": {"type": "audio/pcma"}, "voice": {"id": "voice_1"}}},
    "conversation": "none",
    "input": [USER, CALL, OUTPUT],
    "metadata": {"topic": "x"},
    "max_output_tokens": "inf",
    "tools": TOOLS,
    "tool_choice": "required",
    "parallel_tool_calls": True,
    "prompt": {"id": "pmpt_1"},
    "reasoning": {"effort": "minimal"},
}

EXAMPLES: list[tuple[Any, dict[str, Any]]] = [
    (sdk.SessionUpdateEventParam, {"type": "session.update", "event_id": "e", "session": SESSION}),
    (
        sdk.SessionUpdateEventParam,
        {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}},
    ),
    (
        sdk.SessionUpdateEventParam,
        {
            "type": "session.update",
            "session": {
                "type": "realtime",
                "audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}}},
                "tracing": "auto",
                "truncation": "disabled",
                "tool_choice": "none",
                "max_output_tokens": "inf",
            },
        },
    ),
    (
        sdk.SessionUpdateEventParam,
        {
            "type": "session.update",
            "session": {
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "whisper-1"}}},
                "include": ["item.input_audio_transcription.logprobs"],
            },
        },
    ),
    (sdk.InputAudioBufferAppendEventParam, {"type": "input_audio_buffer.append", "event_id": "e", "audio": AUDIO}),
    (sdk.InputAudioBufferCommitEventParam, {"type": "input_audio_buffer.commit", "event_id": "e"}),
    (sdk.InputAudioBufferClearEventParam, {"type": "input_audio_buffer.clear"}),
    (sdk.OutputAudioBufferClearEventParam, {"type": "output_audio_buffer.clear"}),
    *(
        (sdk.ConversationItemCreateEventParam, {"type": "conversation.item.create", "item": item, **place})
        for item, place in [
            (USER, {}),
            (ASSISTANT, {"previous_item_id": "root"}),
            (SYSTEM, {"previous_item_id": "msg_1"}),
            (CALL, {"event_id": "e"}),
            (OUTPUT, {}),
        ]
    ),
    (sdk.ConversationItemRetrieveEventParam, {"type": "conversation.item.retrieve", "item_id": "i"}),
    (sdk.ConversationItemDeleteEventParam, {"type": "conversation.item.delete", "item_id": "i"}),
    (
        sdk.ConversationItemTruncateEventParam,
        {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 1500},
    ),
    (sdk.ResponseCreateEventParam, {"type": "response.create"}),
    (sdk.ResponseCreateEventParam, {"type": "response.create", "event_id": "e", "response": RESPONSE}),
    (sdk.ResponseCancelEventParam, {"type": "response.cancel", "response_id": "r"}),
]
OURS = [
    {"type": "relay.playback", "response_id": "r", "played_samples": 4800},
    {"type": "session.update", "session": {"relay": {"playback": True, "partials": False}}},
    {"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "msg_1"}]}},
]


@pytest.mark.parametrize(("param", "example"), EXAMPLES, ids=lambda x: x.get("type") if isinstance(x, dict) else "")
def test_every_event_of_the_sdk_survives_a_round_trip(param: Any, example: dict[str, Any]) -> None:
    TypeAdapter(param).validate_python(example)  # the example itself is what the SDK sends
    assert json.loads(cl.encode(cl.decode(json.dumps(example)))) == example


@pytest.mark.parametrize("example", OURS, ids=lambda x: x["type"])
def test_events_of_our_own_survive_a_round_trip(example: dict[str, Any]) -> None:
    assert json.loads(cl.encode(cl.decode(json.dumps(example)))) == example


def test_every_client_event_type_of_the_sdk_is_known() -> None:
    theirs = {get_args(get_type_hints(param)["type"])[0] for param in get_args(sdk.RealtimeClientEventParam)}
    ours = {cls.__struct_config__.tag for cls in get_args(cl.AnyClientEvent)}
    assert ours - theirs == {"relay.playback"}
    assert theirs <= ours
    assert {example["type"] for _, example in EXAMPLES} == theirs


@pytest.mark.parametrize(
    ("param", "ours", "extra"),
    [
        (sdk.RealtimeSessionCreateRequestParam, t.SessionFields, {"id", "object", "relay"}),
        (sdk.RealtimeAudioConfigInputParam, t.AudioInput, set()),
        (sdk.RealtimeAudioConfigOutputParam, t.AudioOutput, set()),
        (sdk_turns.ServerVad, t.ServerVad, set()),
        (sdk_turns.SemanticVad, t.SemanticVad, set()),
        (sdk.AudioTranscriptionParam, t.TranscriptionOptions, set()),
        (sdk_input.NoiseReduction, t.NoiseReduction, set()),
        (sdk.RealtimeFunctionToolParam, t.FunctionTool, set()),
        (sdk_tools.Mcp, t.McpTool, set()),
        (sdk_tracing.TracingConfiguration, t.Tracing, set()),
        (sdk_truncation.RealtimeTruncationRetentionRatioParam, t.RetentionRatio, set()),
        (sdk.RealtimeResponseCreateParamsParam, cl.ResponseSettings, set()),
        (sdk_response_output.Output, cl.ResponseOutputSettings, set()),
        (sdk.RealtimeConversationItemUserMessageParam, t.MessageItem, set()),
        (sdk.RealtimeConversationItemFunctionCallParam, t.FunctionCallItem, set()),
        (sdk.RealtimeConversationItemFunctionCallOutputParam, t.FunctionCallOutputItem, set()),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_no_field_of_the_sdk_is_missing(param: Any, ours: Any, extra: set[str]) -> None:
    theirs = set(get_type_hints(param))
    mine = {field.encode_name for field in fields(ours)} | ({"type"} if ours.__struct_config__.tag else set())
    assert mine - theirs == extra
    assert theirs <= mine


@pytest.mark.parametrize("content", [sdk_user.Content, sdk_assistant.Content])
def test_no_field_of_a_content_part_is_missing(content: Any) -> None:
    mine = {field.encode_name for part in get_args(t.ContentPart) for field in fields(part)} | {"type"}
    assert set(get_type_hints(content)) <= mine


APPEND = '{"type":"input_audio_buffer.append","event_id":"e","audio":%s}'
UPDATE = '{"type":"session.update","event_id":"e","session":%s}'
CREATE = '{"type":"conversation.item.create","event_id":"e","item":%s}'


@pytest.mark.parametrize(
    ("line", "code", "param", "event_id"),
    [
        ("", "invalid_json", None, None),
        ("hello", "invalid_json", None, None),
        ('{"type":"response.create"', "invalid_json", None, None),
        ('{"type":"response.create"} {}', "invalid_json", None, None),
        ('{"type":"response.create","event_id":"\\ud800"}', "invalid_json", None, None),
        ('"\ud800"', "invalid_json", None, None),
        ("[]", "invalid_type", None, None),
        ("null", "invalid_type", None, None),
        ('{"event_id":"e"}', "unknown_event", "type", "e"),
        ('{"type":"response.sing","event_id":"e"}', "unknown_event", "type", "e"),
        ('{"type":7,"event_id":"e"}', "unknown_event", "type", "e"),
        ('{"type":"response.create","event_id":7}', "invalid_type", "event_id", None),
        ('{"type":"response.create","event_id":"%s"}' % ("x" * 513), "invalid_value", "event_id", None),
        ('{"type":"response.create","event_id":"e","color":1}', "unknown_parameter", "color", "e"),
        ('{"type":"response.create","a`b":1}', "unknown_parameter", "a`b", None),
        ('{"type":"input_audio_buffer.append","event_id":"e"}', "missing_required_parameter", "audio", "e"),
        (APPEND % "5", "invalid_type", "audio", "e"),
        (APPEND % '"AAA"', "invalid_audio", "audio", "e"),
        (APPEND % '"A A="', "invalid_audio", "audio", "e"),
        (APPEND % '"not base64!"', "invalid_audio", "audio", "e"),
        (UPDATE % '{"modalities":["text"]}', "unknown_parameter", "session.modalities", "e"),
        (UPDATE % '{"type":"translation"}', "invalid_value", "session.type", "e"),
        (UPDATE % '{"instructions":5}', "invalid_type", "session.instructions", "e"),
        (UPDATE % '{"max_output_tokens":0}', "invalid_value", "session.max_output_tokens", "e"),
        (UPDATE % '{"output_modalities":["smell"]}', "invalid_value", "session.output_modalities[0]", "e"),
        (
            UPDATE % '{"audio":{"input":{"turn_detection":{"type":"psychic"}}}}',
            "invalid_value",
            "session.audio.input.turn_detection.type",
            "e",
        ),
        (
            UPDATE % '{"audio":{"input":{"turn_detection":{}}}}',
            "missing_required_parameter",
            "session.audio.input.turn_detection.type",
            "e",
        ),
        (UPDATE % '{"audio":{"output":{"speed":9}}}', "invalid_value", "session.audio.output.speed", "e"),
        (UPDATE % '{"relay":{"smell":true}}', "unknown_parameter", "session.relay.smell", "e"),
        (CREATE % '{"type":"message","role":"user"}', "missing_required_parameter", "item.content", "e"),
        (CREATE % '{"type":"dance"}', "invalid_value", "item.type", "e"),
        (CREATE % '{"type":"mcp_call","id":"x"}', "invalid_value", "item.type", "e"),
        (
            CREATE % '{"type":"message","role":"user","content":[{"type":"input_text"}]}',
            "missing_required_parameter",
            "item.content[0].text",
            "e",
        ),
        (
            CREATE % ('{"type":"function_call_output","call_id":"c","output":"%s"}' % ("x" * (t.MAX_TEXT_CHARS + 1))),
            "invalid_value",
            "item.output",
            "e",
        ),
        ('{"type":"response.create","x":%s}' % ("[" * 100_000), "unknown_parameter", "x", None),
        (
            '{"type":"session.update","session":{"prompt":{"id":"p","variables":{"a":%s}}}}' % ("[" * 100_000),
            "invalid_value",
            None,
            None,
        ),
        (
            '{"type":"conversation.item.truncate","item_id":"i","content_index":0,"audio_end_ms":-1}',
            "invalid_value",
            "audio_end_ms",
            None,
        ),
        (
            '{"type":"relay.playback","response_id":"r","played_samples":1e400}',
            "invalid_value",
            "played_samples",
            None,
        ),
    ],
)
def test_what_is_not_an_event_is_refused(line: str, code: str, param: str | None, event_id: str | None) -> None:
    with pytest.raises(BadEvent) as caught:
        cl.decode(line)
    error = caught.value
    assert (error.code, error.param, error.event_id) == (code, param, event_id)
    assert code in cl.ERROR_CODES
    assert len(str(error)) < 500
