from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from relay_models import loading
from relay_models.frontend.exceptions import EXCEPTIONS
from relay_models.frontend.g2p import LONGEST, OUTSIDE, REACH, LettersToSounds, history_rows, letter_ids, window_rows
from relay_models.frontend.lexicon import Lexicon, PackedDictionary, inflected, load_lexicon, spelled
from relay_models.phonemes import PHONEMES, is_vowel
from relay_models.training import g2p as training
from relay_models.training.g2p_alignment import align
from tests.models.voice.small_lexicon import CHUNKS, WORDS, random_tensors, small_frontend

SPELLINGS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz'", min_size=1, max_size=9)
SOUNDS = st.lists(st.sampled_from(PHONEMES), min_size=1, max_size=8).map(tuple)


@given(st.dictionaries(SPELLINGS, SOUNDS, min_size=1, max_size=300), st.lists(SPELLINGS, max_size=20))
@settings(max_examples=25)
def test_the_packed_dictionary_is_the_dictionary(words: dict[str, tuple[str, ...]], others: list[str]) -> None:
    packed = PackedDictionary(PackedDictionary.pack(words))
    assert len(packed) == len(words)
    for word, phonemes in words.items():
        assert packed.get(word) == phonemes
    for word in [*others, "", "é", "~", "zzzzzzzzzzzz"]:
        assert packed.get(word) == words.get(word)


def test_the_packed_dictionary_reaches_across_its_stretches() -> None:
    words = {f"w{chr(97 + i % 26)}{chr(97 + i // 26)}": (PHONEMES[i % 60],) for i in range(500)}
    packed = PackedDictionary(PackedDictionary.pack(words))
    assert {word: packed.get(word) for word in words} == words
    assert packed.get("w") is packed.get("wa") is packed.get("a") is packed.get("x") is None


@pytest.mark.parametrize(
    ("word", "phonemes"),
    [
        ("cats", "K AE1 T S"),
        ("cat's", "K AE1 T S"),
        ("plays", "P L EY1 Z"),
        ("churches", "CH ER1 CH AH0 Z"),
        ("churches'", "CH ER1 CH AH0 Z"),
        ("played", "P L EY1 D"),
        ("wanted", "W AA1 N T AH0 D"),
        ("baked", "B EY1 K T"),
        ("baking", "B EY1 K IH0 NG"),
        ("stopped", "S T AA1 P T"),
        ("stopping", "S T AA1 P IH0 NG"),
        ("carries", "K EH1 R IY0 Z"),
        ("carried", "K EH1 R IY0 D"),
        ("cat'll", "K AE1 T AH0 L"),
        ("quickly", "K W IH1 K L IY0"),
    ],
)
def test_inflections_follow_from_their_word(word: str, phonemes: str) -> None:
    packed = PackedDictionary(PackedDictionary.pack(WORDS))
    assert packed.get(word) is None
    assert Lexicon(packed, LettersToSounds(random_tensors(), CHUNKS)).find(word) == tuple(phonemes.split())


@pytest.mark.parametrize(
    "word", ["dogs", "as", "bed", "sing", "'s", "s'", "ss", "fly", "n't", "ing", "ed", "es", "ies"]
)
def test_what_only_looks_inflected_is_not_derived(word: str) -> None:
    assert inflected(word, PackedDictionary(PackedDictionary.pack(WORDS)).get) is None


def test_letters_are_spelled_with_the_stress_on_the_last() -> None:
    assert spelled("API") == ("EY2", "P", "IY2", "AY1")
    assert spelled("GPU's")[-1] == "Z"
    assert spelled("W") == ("D", "AH1", "B", "AH0", "L", "Y", "UW0")
    assert spelled("") == spelled("7") == ()


def test_own_pronunciations_are_arpabet_with_one_main_stress() -> None:
    for word, phonemes in EXCEPTIONS.items():
        assert set(phonemes) <= set(PHONEMES), word
        vowels = [p for p in phonemes if is_vowel(p)]
        assert not vowels or any(p.endswith("1") for p in vowels), word


@given(st.text(max_size=90))
def test_the_model_reads_any_text(word: str) -> None:
    phonemes = LettersToSounds(random_tensors(), CHUNKS)(word)
    assert set(phonemes) <= {p for chunk in CHUNKS for p in chunk}
    if not len(letter_ids(word)):
        assert phonemes == ()


def test_the_search_finds_the_likeliest_chunks() -> None:
    """A beam as wide as all sequences is exhaustive: it finds the greatest sum of log-probabilities."""
    tensors = random_tensors(seed=3)
    model = LettersToSounds(tensors, CHUNKS, beam=len(CHUNKS) ** 3)
    ids = letter_ids("cab")
    windows = window_rows(ids)
    weights = {
        n: tensors[n].astype(np.float64) * tensors[f"{n}.scale"] for n in ("letters", "history", "inner", "outer")
    }
    best = -np.inf
    likeliest: tuple[int, ...] = ()
    for sequence in np.ndindex((len(CHUNKS),) * 3):
        score, state = 0.0, 0
        for i, chunk in enumerate(sequence):
            hidden = weights["letters"][windows[i]].sum(0) + tensors["letters.bias"]
            hidden += weights["history"][history_rows(sequence[:i][-3:], state, len(CHUNKS))].sum(0)
            hidden = np.maximum(np.maximum(hidden, 0) @ weights["inner"] + tensors["inner.bias"], 0)
            logits = hidden @ weights["outer"] + tensors["outer.bias"]
            score += logits[chunk] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            for phoneme in CHUNKS[chunk]:
                state = 2 if phoneme.endswith("1") else max(state, int(is_vowel(phoneme)))
        if score > best:
            best, likeliest = score, sequence
    assert model("cab") == tuple(p for chunk in likeliest for p in CHUNKS[chunk])


def test_windows_show_the_letters_around() -> None:
    rows = window_rows(letter_ids("ab"))
    letters = rows - np.arange(2 * REACH + 1) * (OUTSIDE + 1)
    assert letters[0].tolist() == [OUTSIDE] * REACH + [0, 1] + [OUTSIDE] * (REACH - 1)
    assert letters[1].tolist() == [OUTSIDE] * (REACH - 1) + [0, 1] + [OUTSIDE] * REACH


def test_very_long_words_are_read_in_parts() -> None:
    model = LettersToSounds(random_tensors(), CHUNKS)
    assert model("ba" * LONGEST) == model("ba" * (LONGEST // 2)) * 2


def test_a_new_word_keeps_its_sounds_in_the_possessive() -> None:
    lexicon = small_frontend()._lexicon
    for word in ("dodo", "kitty", "xylo"):
        assert lexicon.find(word) is None
        base = lexicon.say(word)
        assert lexicon.say(f"{word}'s")[: len(base)] == base
        assert len(lexicon.say(f"{word}'s")) > len(base)


def test_a_word_without_sound_is_spelled() -> None:
    lexicon = small_frontend()._lexicon
    silent = [word for word in ("bb", "cc", "dd", "ff", "gg", "mm") if not lexicon._model(word)]
    for word in silent:
        assert lexicon.say(word) == spelled(word.upper())
    assert lexicon.say("") == ()


def test_letters_are_aligned_with_their_sounds() -> None:
    words = {
        "cat": "K AE1 T", "cab": "K AE1 B", "tab": "T AE1 B", "bat": "B AE1 T", "back": "B AE1 K", "tack": "T AE1 K",
        "tax": "T AE1 K S", "axe": "AE1 K S", "bee": "B IY1", "tee": "T IY1", "cake": "K EY1 K", "bake": "B EY1 K",
        "take": "T EY1 K",
    }  # fmt: skip
    found = align({word: tuple(sounds.split()) for word, sounds in words.items()})
    assert set(found) == set(words)
    for word, chunks in found.items():
        assert len(chunks) == len(word)
        assert " ".join(p for chunk in chunks for p in chunk) == words[word]
    assert found["tax"] == (("T",), ("AE1",), ("K", "S"))
    assert found["bake"] == (("B",), ("EY1",), ("K",), ())


def test_what_cannot_be_aligned_is_left_out() -> None:
    assert align({"ab": ("AA1", "B"), "b": ("D", "AH1", "B"), "c": ()}).keys() == {"ab"}


@given(st.lists(st.sampled_from("ab"), max_size=6), st.lists(st.sampled_from("ab"), max_size=6))
def test_edit_distance(one: list[str], other: list[str]) -> None:
    distance = training.edit_distance(one, other)
    assert distance == training.edit_distance(other, one)
    assert (distance == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))
    assert training.edit_distance([*one, "a"], one) == 1


def test_accuracy_counts_the_nearest_pronunciation() -> None:
    found = training.measure({"cat": ("K", "AE1", "T"), "axe": ("AE2", "K")}.__getitem__, {
        "cat": [("K", "AA1", "T", "S"), ("K", "AE1", "T")], "axe": [("AE1", "K", "S")],
    })  # fmt: skip
    assert found == training.Accuracy(
        words=2, word_error=1 / 2, phoneme_error=2 / 6, word_error_bare=1 / 2, phoneme_error_bare=1 / 6
    )


def test_the_recipe_makes_what_the_front_end_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = {
        "cat": "K AE1 T",
        "cab": "K AE1 B",
        "bat": "B AE1 T",
        "tab": "T AE1 B",
        "dab": "D AE1 B",
        "dabb": "T AE1 B",
    }
    lines = [f"{word} {said}" for word, said in bases.items()]
    lines += [f"{word}s {said} {'S' if said.endswith('T') else 'Z'}" for word, said in bases.items()]
    lines += ["cat(2) K AA1 T # another", "o'tab OW0 T AE1 B", "a.b. EY1 B IY1"]
    dictionary = tmp_path / "small.dict"
    dictionary.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(training, "WIDTH", training.Width(hidden=16, inner=8, dropout=0.1))
    monkeypatch.setattr(training, "RAREST_CHUNK", 1)
    out = tmp_path / "weights" / "frontend"
    monkeypatch.setattr(sys, "argv", ["g2p", str(dictionary), str(out), "--minutes", "0.01", "--ship"])
    training.main()
    assert loading.locate("frontend", tmp_path / "weights") == out
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["held_out"]["words"] == sum(
        training.is_held_out(word) for word in [*bases, *(f"{w}s" for w in bases)]
    )
    lexicon = load_lexicon(out)
    assert len(lexicon._dictionary) == len(bases) + 1  # plurals follow from their singulars
    assert lexicon.find("cat") == ("K", "AE1", "T")
    assert lexicon.find("cats") == ("K", "AE1", "T", "S")
    assert lexicon.find("a") is None
    assert lexicon.say("tabcat")


@pytest.mark.parametrize("damage", ["no tensors", "other tensors", "no dictionary", "text"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / damage
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"beam": 2, "chunks": CHUNKS}), encoding="utf-8")
    tensors = {**random_tensors(), "dictionary": PackedDictionary.pack(WORDS)}
    if damage == "other tensors":
        del tensors["inner"]
    if damage == "no dictionary":
        tensors["dictionary"] = tensors["dictionary"][5:]
    if damage == "text":
        (folder / "model.safetensors").write_text("nothing", encoding="utf-8")
    elif damage != "no tensors":
        save_file(tensors, folder / "model.safetensors")
    with pytest.raises(loading.WeightsError, match="install Relay again"):
        load_lexicon(folder)


@pytest.mark.parametrize(
    ("word", "phonemes"),
    [
        ("hello", "HH AH0 L OW1"),
        ("python", "P AY1 TH AA2 N"),
        ("github", "G IH1 T HH AH2 B"),
        ("json", "JH EY1 S AH0 N"),
        ("kilohertz", "K IH1 L AH0 HH ER2 T S"),
        ("possibilities", "P AA2 S AH0 B IH1 L AH0 T IY0 Z"),
        ("dictionary's", "D IH1 K SH AH0 N EH2 R IY0 Z"),
    ],
)
def test_the_shipped_dictionary(word: str, phonemes: str) -> None:
    assert load_lexicon().find(word) == tuple(phonemes.split())


def test_the_shipped_model_reads_new_words() -> None:
    lexicon = load_lexicon()
    for word, phonemes in {
        "snackle": "S N AE1 K AH0 L",
        "brimp": "B R IH1 M P",
        "plonkish": "P L AA1 NG K IH0 SH",
    }.items():
        assert lexicon.find(word) is None
        assert lexicon.say(word) == tuple(phonemes.split())
