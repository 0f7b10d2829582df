from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_models.training.ears_data import (
    SHARED_WORDS,
    Clips,
    Guard,
    held_out_prompt,
    held_out_sentence,
    sayable,
    sentences,
    train_pieces,
    words,
)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Mr. Smith paid $3.50 at 7:05.", "mister smith paid three dollars and fifty cents at seven oh five"),
        ("Author of the danger trail, etc.", "author of the danger trail et cetera"),
        ("“It’s a 5-star hotel” — really!", "it's a five star hotel really"),
        ("St. Ives is a col away", "saint ives is a col away"),
        ("Café at 7 PM?", "cafe at seven pm"),
    ],
)
def test_label_is_what_is_said(written: str, said: str) -> None:
    spoken = sayable(written)
    assert spoken is not None
    assert words(spoken) == said


@pytest.mark.parametrize("text", ["the U.S. ARMY came", "one", "a 50% <b>cut</b>", "word " * 40])
def test_doubtful_sentences_are_refused(text: str) -> None:
    assert sayable(text) is None


@given(st.text())
def test_labels_are_plain_and_stable(text: str) -> None:
    label = words(text)
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyz' ")
    assert words(label) == label
    assert "  " not in label
    assert not any(word.startswith("'") or word.endswith("'") for word in label.split())


def test_titles_and_initials_end_no_sentence() -> None:
    text = 'Mr. J. Brown went. "Did he?" Yes! He did. "Oh!" she cried.'
    assert list(sentences(text)) == ["Mr. J. Brown went.", '"Did he?"', "Yes!", "He did.", '"Oh!" she cried.']


def test_guard_refuses_overlap_with_what_is_held_out() -> None:
    guard = Guard(["One two three four five six seven.", "Short one"])
    assert guard.refuses("short one")
    assert guard.refuses("zero one two three four five six")
    assert not guard.refuses("one two three four five")
    assert not guard.refuses(" ".join(["six"] * SHARED_WORDS))


def test_the_held_out_tenth_stays_what_it_is() -> None:
    ids = [f"arctic_{part}{number:04}" for part in "ab" for number in range(1, 540)]
    held = [name for name in ids if held_out_prompt(name)]
    assert 80 < len(held) < 140
    assert held[:3] == ["arctic_a0010", "arctic_a0011", "arctic_a0012"]
    assert sum(held_out_sentence(f"sentence {number}") for number in range(3000)) in range(3, 20)


def test_pieces_give_every_label_back() -> None:
    tokenizer = train_pieces(["the cat sat on the mat", "that's the hat"] * 9, 40)
    for label in ("the cat sat", "a zebra's quiz", "jinx"):
        assert tokenizer.decode(tokenizer.encode(label).ids) == label


def test_clips_come_back_with_their_texts(tmp_path: Path) -> None:
    tone = (8000 * np.sin(np.arange(16_000) / 9)).astype(np.int16)
    clips = Clips.join([(tone, "one", "a"), (tone[:8000], "", "b")])
    clips.save(tmp_path / "set", compression=0.5)
    read = Clips.load(tmp_path / "set")
    assert (read.lengths, read.texts, read.names) == ([16_000, 8000], ["one", ""], ["a", "b"])
    assert [len(audio) for audio, _ in read] == [16_000, 8000]
    assert np.corrcoef(read.audio[2000:14_000], clips.audio[2000:14_000])[0, 1] > 0.9


def test_clips_that_do_not_fit_their_index_are_refused(tmp_path: Path) -> None:
    Clips.join([(np.zeros(16_000, np.int16), "x", "a")]).save(tmp_path / "set", compression=0.9)
    index = tmp_path / "set.json"
    index.write_text(index.read_text().replace("16000", "15000"))
    with pytest.raises(ValueError, match="does not fit"):
        Clips.load(tmp_path / "set")
