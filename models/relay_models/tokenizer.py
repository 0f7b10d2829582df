"""Byte-level BPE of our own, the chat template, and decoding that never shows half a character.

Text is split as GPT-2 does (Radford et al. 2019): a word carries the space before it, and 256 byte symbols cover
whatever the vocabulary lacks, so that no text is unknown.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from relay_models.loading import WeightsError

END = "<|end|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SPECIAL = (END, SYSTEM, USER, ASSISTANT)


def train_bpe(texts: Iterable[str], *, vocabulary: int, seed_limit: int = 2) -> Tokenizer:
    """A byte-level BPE of `vocabulary` tokens, the special ones first; digits stand alone.

    Args:
        texts: Training text, in any portions.
        vocabulary: Size with special tokens and byte symbols.
        seed_limit: Pairs rarer than this are not merged.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=seed_limit,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _symbol_bytes() -> dict[str, int]:
    """The printable character that stands for each byte in a byte-level vocabulary, reversed.

    Printable Latin-1 stands for itself; the other bytes take the code points from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    symbols.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return symbols


class ChatTokenizer:
    """Text <-> tokens, and dialogues -> tokens.

    A turn is one role token, the text, and the end token: `<|user|>hello<|end|><|assistant|>Hi there.<|end|>`.

    Attributes:
        end, system, user, assistant: Ids of the special tokens.
        size: Number of tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()
        ids = [id_ for token in SPECIAL if (id_ := tokenizer.token_to_id(token)) is not None]
        if len(ids) < len(SPECIAL):
            raise WeightsError(f"the tokenizer lacks one of the special tokens {', '.join(SPECIAL)}")
        self.end, self.system, self.user, self.assistant = ids
        symbols = _symbol_bytes()
        special = set(ids)
        self._bytes = [
            b"" if token in special else bytes(symbols[c] for c in tokenizer.id_to_token(token) or "")
            for token in range(self.size)
        ]

    @classmethod
    def load(cls, path: Path) -> ChatTokenizer:
        """Reads a tokenizer.json. Raises WeightsError when it is missing or damaged."""
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise WeightsError(f"{path.name} cannot be read as a tokenizer ({error}); install Relay again") from error

    def save(self, path: Path) -> None:
        """Writes a tokenizer.json."""
        self._tokenizer.save(str(path), pretty=False)

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text. A special token's name in the text is spelled out, never obeyed."""
        ids: list[int] = []
        start = 0
        while (cut := text.find("<|", start)) >= 0:  # "<" and "|" never meet in one encoded piece
            ids += self._tokenizer.encode(text[start : cut + 1]).ids
            start = cut + 1
        return ids + self._tokenizer.encode(text[start:]).ids

    def turn(self, role: str, text: str) -> list[int]:
        """Tokens of one whole turn; `role` is `system`, `user` or `assistant`."""
        opener = {"system": self.system, "user": self.user, "assistant": self.assistant}[role]
        return [opener, *self.encode(text), self.end]

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; none for a special token."""
        return self._bytes[token]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens; special ones vanish, and bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, tokens)).decode("utf-8", errors="replace")

    def starting(self, *, word: bool) -> list[int]:
        """Tokens that begin with a letter or digit (`word`), or with anything but a space (`not word`)."""
        return [
            token
            for token, data in enumerate(self._bytes)
            if data and (data[0] >= 0x80 or chr(data[0]).isalnum() if word else data[0] != 0x20)
        ]


class StreamDecoder:
    """Tokens in, text out: a character is given only when all its bytes have come."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Text that this token completes; may be empty."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))
