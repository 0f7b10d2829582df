"""The vectors that Python and JavaScript share; `python -m tests.wire.test_vectors` writes them anew."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relay.audio import Format, decode_bytes, encode_bytes
from relay.errors import BadEvent, StageFailed
from relay.events import CallDelta
from relay.wire import client_events, server_events
from relay.wire.binary import AudioFrame, decode_audio, encode_audio
from relay.wire.commands import ResponseParams, Usage
from relay.wire.realtime import RealtimeProtocol

FOLDER = Path(__file__).parent.parent / "vectors"

CLIENT_LINES: dict[str, str] = {
    "ask for relay events": '{"type":"session.update","session":{"type":"realtime","relay":{"playback":true}}}',
    "ask for a path": '{"type":"session.update","session":{"relay":{"path":"cascade"}}}',
    "a path that this server has no models for": (
        '{"type":"session.update","event_id":"e0","session":{"relay":{"path":"relay"}}}'
    ),
    "a path that there is not": '{"type":"session.update","event_id":"e0","session":{"relay":{"path":"shortest"}}}',
    "turn detection off": '{"type":"session.update","session":{"audio":{"input":{"turn_detection":null}}}}',
    "field from before GA": '{"type":"session.update","event_id":"e1","session":{"modalities":["text"]}}',
    "audio": '{"type":"input_audio_buffer.append","audio":"AAABAP//"}',
    "audio with half a sample": '{"type":"input_audio_buffer.append","event_id":"e2","audio":"AAAB"}',
    "audio that is not base64": '{"type":"input_audio_buffer.append","event_id":"e3","audio":"AAA"}',
    "audio that is a number": '{"type":"input_audio_buffer.append","event_id":"e4","audio":7}',
    "commit": '{"type":"input_audio_buffer.commit"}',
    "user's text": (
        '{"type":"conversation.item.create","previous_item_id":"root","item":{"id":"msg_1","type":"message",'
        '"role":"user","content":[{"type":"input_text","text":"Gr\\u00fcezi \\ud83d\\ude42"}]}}'
    ),
    "an image": (
        '{"type":"conversation.item.create","event_id":"e5","item":{"type":"message","role":"user",'
        '"content":[{"type":"input_image","image_url":"data:"}]}}'
    ),
    "retrieve nothing": '{"type":"conversation.item.retrieve","event_id":"e6","item_id":"nobody"}',
    "cancel nothing": '{"type":"response.cancel","event_id":"e7"}',
    "response": '{"type":"response.create","response":{"output_modalities":["text"],"metadata":{"topic":"tea"}}}',
    "playback": '{"type":"relay.playback","response_id":"resp_1","played_samples":4800}',
    "unknown event": '{"type":"response.sing","event_id":"e8"}',
    "no type": '{"event_id":"e9"}',
    "not an object": "[]",
    "not JSON": "{",
}


def make_client_events() -> list[dict[str, Any]]:
    vectors = []
    for name, line in CLIENT_LINES.items():
        protocol = RealtimeProtocol()
        protocol.receive(line)
        answers = [json.loads(frame) for frame in protocol.outgoing()]
        error = next((answer["error"] for answer in answers if answer["type"] == "error"), None)
        shown = error and {key: error[key] for key in ("code", "param", "event_id")}
        vectors.append({"name": name, "line": line, "error": shown})
    return vectors


def make_server_events() -> list[dict[str, Any]]:
    counter = itertools.count(1)
    protocol = RealtimeProtocol(new_id=lambda prefix: f"{prefix}_{next(counter)}")
    protocol.open()
    protocol.receive(
        '{"type":"session.update","session":{"audio":{"input":{"transcription":{}}},"relay":{"duck":true}}}'
    )
    user_id = protocol.speech_started(320)
    protocol.relay_partial(user_id, "what", "tie")
    protocol.speech_stopped(1900, user_id)
    protocol.input_committed(user_id)
    protocol.transcription_delta(user_id, "what time")
    protocol.transcription_completed(user_id, "what time is it", 1.58)
    spoken = protocol.begin_response()
    spoken.draft({"prefix": "It is", "probability": 0.93, "committed": True, "reason": None})
    spoken.transcript("It is noon.")
    spoken.audio(bytes.fromhex("0000ff7f0080"), 0)
    spoken.words([("It", 0, 2), ("is", 2, 3)])
    spoken.ducked(True)
    protocol.speech_started(2500)
    spoken.finish("cancelled", "turn_detected")
    spoken.metrics({"path": "relay", "stages_ms": {"endpointing": 200.0, "ears": 31.5}})
    protocol.output_cleared(spoken.id)
    protocol.item_truncated(spoken.item_id, 0, "It is")
    protocol.receive(json.dumps({"type": "conversation.item.retrieve", "item_id": spoken.item_id}))
    protocol.receive(json.dumps({"type": "conversation.item.delete", "item_id": spoken.item_id}))
    protocol.input_cleared()
    protocol.timeout_triggered(3000, 9000, protocol.new_item_id())
    written = protocol.begin_response(ResponseParams(output_modalities=("text",), metadata={"topic": "tea"}))
    written.transcript("Grüezi")
    written.call(CallDelta(0, "look_up", '{"city":', "call_abc"))
    written.call(CallDelta(0, "look_up", '"Bern"}', "call_abc"))
    written.finish(usage=Usage(input_text_tokens=12, output_text_tokens=3))
    protocol.begin_response().finish(error=StageFailed("voice", "the voice failed: try again"))
    protocol.transcription_failed(user_id, StageFailed("ears", "the ears failed: try again"))
    protocol.receive('{"type":"response.sing","event_id":"mine"}')
    lines = [str(frame) for frame in protocol.outgoing()]
    return [{"name": json.loads(line)["type"], "line": line, "event": json.loads(line)} for line in lines]


def make_binary_frames() -> list[dict[str, Any]]:
    frames = {
        "pcm16": AudioFrame(1, 0, "pcm16", bytes.fromhex("0000ff7f0080")),
        "later": AudioFrame(2, 48_000, "pcm16", bytes.fromhex("0100")),
        "u-law": AudioFrame(3, 8_000, "g711_ulaw", bytes.fromhex("ff7f00")),
        "A-law": AudioFrame(4, 8_000, "g711_alaw", bytes.fromhex("d5552a")),
        "largest numbers": AudioFrame(2**32 - 1, 2**64 - 1, "pcm16", b""),
    }
    whole = [
        {
            "name": name,
            "hex": encode_audio(frame).hex(),
            "frame": {
                "response_index": frame.response_index,
                "first_sample": str(frame.first_sample),
                "form": frame.form,
                "data": frame.data.hex(),
            },
        }
        for name, frame in frames.items()
    ]
    header = "0100000001000000" + "0000000000000000"
    return [
        *whole,
        {"name": "unknown kind", "hex": "02" + header[2:], "frame": None},
        {"name": "empty", "hex": "", "frame": "damaged"},
        {"name": "short header", "hex": header[:-2], "frame": "damaged"},
        {"name": "unknown format", "hex": "0103" + header[4:], "frame": "damaged"},
        {"name": "half a sample", "hex": header + "000000", "frame": "damaged"},
    ]


def make_g711() -> dict[str, Any]:
    values = np.unique([*range(-32768, 32768, 173), -32768, -32767, -33, -32, -8, -1, 0, 1, 4, 8, 33, 32767])
    forms: dict[str, Format] = {"ulaw": "g711_ulaw", "alaw": "g711_alaw"}
    return {
        name: {
            "decode": decode_bytes(bytes(range(256)), form).tolist(),
            "encode": [
                list(pair) for pair in zip(values.tolist(), encode_bytes(values.astype(np.int16), form), strict=True)
            ],
        }
        for name, form in forms.items()
    }


MAKERS = {
    "client_events.json": make_client_events,
    "server_events.json": make_server_events,
    "binary_frames.json": make_binary_frames,
    "g711.json": make_g711,
}


def to_text(vectors: Any) -> str:
    """One vector a line, so that a change shows as one."""
    dump = json.dumps
    if isinstance(vectors, list):
        return "[\n" + ",\n".join(dump(vector, ensure_ascii=False) for vector in vectors) + "\n]\n"
    return "{\n" + ",\n".join(f"{dump(key)}: {dump(value)}" for key, value in vectors.items()) + "\n}\n"


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MAKERS)
def test_the_vectors_are_what_the_server_does(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == to_text(MAKERS[name]())


def test_server_lines_are_read_back() -> None:
    for vector in load("server_events.json"):
        event = server_events.decode(vector["line"])
        assert json.loads(server_events.encode(event)) == vector["event"] == json.loads(vector["line"])


def test_client_lines_are_read_back() -> None:
    for vector in load("client_events.json"):
        if vector["error"] is None:
            event = client_events.decode(vector["line"])
            assert json.loads(client_events.encode(event)) == json.loads(vector["line"])


def test_every_kind_of_shape_error_is_among_the_client_lines() -> None:
    codes = {vector["error"]["code"] for vector in load("client_events.json") if vector["error"]}
    assert {"invalid_json", "invalid_type", "invalid_audio", "unknown_event", "unknown_parameter"} <= codes
    with pytest.raises(BadEvent):
        client_events.decode(CLIENT_LINES["not JSON"])


def test_binary_frames_are_read() -> None:
    for vector in load("binary_frames.json"):
        data, want = bytes.fromhex(vector["hex"]), vector["frame"]
        if want == "damaged":
            with pytest.raises(ValueError):
                decode_audio(data)
        elif want is None:
            assert decode_audio(data) is None
        else:
            frame = AudioFrame(
                want["response_index"], int(want["first_sample"]), want["form"], bytes.fromhex(want["data"])
            )
            assert decode_audio(data) == frame


def test_g711_tables_have_the_known_landmarks() -> None:
    g711 = load("g711.json")
    # ITU-T G.711: the extremes of both laws, and their smallest values.
    assert (g711["ulaw"]["decode"][0x00], g711["ulaw"]["decode"][0x80]) == (-32124, 32124)
    assert (g711["ulaw"]["decode"][0x7F], g711["ulaw"]["decode"][0xFF]) == (0, 0)
    assert (g711["alaw"]["decode"][0x2A], g711["alaw"]["decode"][0xAA]) == (-32256, 32256)
    assert (g711["alaw"]["decode"][0x55], g711["alaw"]["decode"][0xD5]) == (-8, 8)
    for law in g711.values():
        for value, code in law["encode"]:
            assert abs(law["decode"][code] - value) == min(abs(level - value) for level in law["decode"])


if __name__ == "__main__":
    for file_name, make in MAKERS.items():
        (FOLDER / file_name).write_text(to_text(make()), encoding="utf-8")
