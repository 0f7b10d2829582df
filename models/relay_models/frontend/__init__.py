"""The text front end: what a language model writes, word by word, -> spoken words and their phonemes. No torch."""

from relay_models.frontend.lexicon import Lexicon, load_lexicon
from relay_models.frontend.stream import LONGEST_STRETCH, Frontend, FrontendState, SpokenWord, TextStream

__all__ = ["LONGEST_STRETCH", "Frontend", "FrontendState", "Lexicon", "SpokenWord", "TextStream", "load_lexicon"]
