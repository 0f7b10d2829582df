from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models.loading import WeightsError
from relay_models.tokenizer import SPECIAL, ChatTokenizer, StreamDecoder, train_bpe

TOKENIZER = ChatTokenizer(
    train_bpe(["hello there, how are you?", "Grüße aus Köln, 東京 and 12 more"] * 3, vocabulary=400)
)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text.encode("utf-8", "replace").decode()


@given(st.lists(st.sampled_from([*SPECIAL, "<", "<|", "|>", "hello", " "])).map("".join))
def test_text_cannot_forge_a_turn(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    assert not {TOKENIZER.end, TOKENIZER.system, TOKENIZER.user, TOKENIZER.assistant} & set(tokens)
    assert TOKENIZER.decode(tokens) == text


@given(st.text())
def test_a_stream_never_shows_half_a_character(text: str) -> None:
    decoder = StreamDecoder(TOKENIZER)
    pieces = [decoder.push(token) for token in TOKENIZER.encode(text)]
    assert "".join(pieces) == text
    assert text.startswith(pieces[0] if pieces else "")


def test_a_turn_is_its_role_its_text_and_an_end() -> None:
    turn = TOKENIZER.turn("user", "hello")
    assert turn[0] == TOKENIZER.user
    assert turn[-1] == TOKENIZER.end
    assert TOKENIZER.decode(turn) == "hello"


def test_digits_stand_alone() -> None:
    assert len(TOKENIZER.encode("2024")) == 4


def test_starts_of_words() -> None:
    words = TOKENIZER.starting(word=True)
    assert TOKENIZER.encode("hello")[0] in words
    assert TOKENIZER.encode(" hello")[0] not in words
    assert TOKENIZER.encode("?")[0] not in words
    assert TOKENIZER.end not in words
    assert TOKENIZER.encode("?")[0] in TOKENIZER.starting(word=False)
    assert TOKENIZER.encode(" hello")[0] not in TOKENIZER.starting(word=False)


def test_it_reads_what_it_wrote(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    again = ChatTokenizer.load(tmp_path / "tokenizer.json")
    assert again.encode("how are you, 東京?") == TOKENIZER.encode("how are you, 東京?")


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_a_damaged_file_is_reported(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(WeightsError, match=r"tokenizer\.json cannot be read"):
        ChatTokenizer.load(path)
