"""Binary frames of relay.v1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audio import BYTES_PER_SAMPLE, Format
from relay.wire.binary import HEADER_BYTES, KIND_AUDIO, AudioFrame, decode_audio, encode_audio

FORMS: list[Format] = ["pcm16", "g711_ulaw", "g711_alaw"]


@st.composite
def frames(draw: st.DrawFn) -> AudioFrame:
    form = draw(st.sampled_from(FORMS))
    samples = draw(st.integers(0, 64))
    size = samples * BYTES_PER_SAMPLE[form]
    return AudioFrame(
        response_index=draw(st.integers(0, 2**32 - 1)),
        first_sample=draw(st.integers(0, 2**64 - 1)),
        form=form,
        data=draw(st.binary(min_size=size, max_size=size)),
    )


@given(frames())
def test_frames_survive_a_round_trip(frame: AudioFrame) -> None:
    data = encode_audio(frame)
    assert len(data) == HEADER_BYTES + len(frame.data)
    assert decode_audio(data) == frame


@given(st.binary(max_size=64))
def test_any_bytes_are_a_frame_or_an_unknown_kind_or_a_value_error(data: bytes) -> None:
    try:
        frame = decode_audio(data)
    except ValueError:
        return
    if frame is None:
        assert data[0] != KIND_AUDIO
    else:
        assert encode_audio(frame)[4:] == data[4:]


@pytest.mark.parametrize(
    "data",
    [b"", bytes([KIND_AUDIO]) + bytes(14), bytes([KIND_AUDIO, 3]) + bytes(14), bytes([KIND_AUDIO, 0]) + bytes(15)],
    ids=["empty", "short header", "unknown format", "half a sample"],
)
def test_damaged_frames_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_audio(data)


def test_the_header_keeps_samples_aligned() -> None:
    assert HEADER_BYTES % 8 == 0
