from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.textnorm import break_after, speakable


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("plain", "plain"),
        ("don't", "don't"),
        ("**bold**", "bold"),
        ("_so_", "so"),
        ("`code`,", "code,"),
        ("snake_case", "snake case"),
        ("3*4", "3 times 4"),
        ("##", ""),
        ("#1", "number 1"),
        ("#tag", "tag"),
        ("C#", "C#"),
        ("-", ""),
        (">", ""),
        ("~5", "about 5"),
        ("~~gone~~", "gone"),
        ("[the", "the"),
        ("page](https://example.com/x)", "page"),
        ("[page](https://example.com/x).", "page."),
        ("![logo](a.png)", "logo"),
        ("https://www.example.com/a/b?c=d#e", "example.com"),
        ("http://localhost:8000/,", "localhost,"),
        ("(www.example.org).", "(example.org)."),
        ("a@example.com", "a@example.com"),
        ("<b>big</b>", "big"),
        ("|", ""),
        ("😀", ""),
        ("hi👋🏽!", "hi!"),
        ("👩‍👩‍👧", ""),
        ("🇫🇷", ""),
        ("20°C", "20°C"),
        ("→", ""),
        ("$5", "$5"),
        ("100%", "100%"),
        ("&", "&"),
        ("\x07bell", "bell"),
        ("...", ""),
        ("你好", "你好"),
    ],
)
def test_speakable(word: str, said: str) -> None:
    assert speakable(word) == said


@given(st.text())
def test_any_word_gives_clean_text(word: str) -> None:
    said = speakable(word)
    assert said == " ".join(said.split())
    assert not set("*`|\\") & set(said)
    assert said.isprintable()


@pytest.mark.parametrize(
    ("word", "pause"),
    [
        ("word", ""),
        ("word,", "clause"),
        ("word:", "clause"),
        ("—", "clause"),
        ("-", "clause"),
        ("--", "clause"),
        ("well-known", ""),
        ("end.", "sentence"),
        ('end."', "sentence"),
        ("**end!**", "sentence"),
        ("(end?)", "sentence"),
        ("wait…", "sentence"),
        ("Dr.", ""),
        ("**Mrs.", ""),
        ("e.g.", ""),
        ("J.", ""),
        ("No.", "sentence"),
        ("1990.", "sentence"),
        ("3.5", ""),
        ("", ""),
    ],
)
def test_break_after(word: str, pause: str) -> None:
    assert break_after(word) == pause
