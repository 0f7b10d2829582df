"""Words of one spelling and two pronunciations, told apart by the words beside them.

Yarowsky 1997, "Homograph disambiguation in text-to-speech synthesis", shows how far neighbours carry; the rules here
are the few that carry furthest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay_models.frontend.context import Around
from relay_models.frontend.lexicon import Phonemes
from relay_models.frontend.tables import word_set

_HAVE: Final = word_set(
    """have has had having 've i've you've we've they've he's she's was were be been being is are get got gets already
    hadn't haven't hasn't never i'd widely"""
)
_VERB_BEFORE: Final = word_set(
    """to will would can could should may might must shall i you we they please don't doesn't didn't won't can't
    couldn't wouldn't shouldn't cannot let's do did does not never always i'll you'll we'll they'll it'll he'll
    she'll who that helps help us and then or just also you'd they'd we'd i'd"""
)
_CLEAR_VERB_BEFORE: Final = _VERB_BEFORE - {"that", "and", "or", "not", "us", "help", "also", "just", "then"}
_NOUN_BEFORE: Final = word_set(
    """the a an of in its no for any my your our their his her this that these those some each every another much make
    more general public personal daily everyday commercial common good great best full heavy wide limited proper 's
    with by into such one is are"""
)
_OBJECT_AFTER: Final = word_set(
    """the a an your my our their his her its this that these those it them me us him all any each some another every
    multiple both what how only from with"""
)


def _say(phonemes: str) -> Phonemes:
    return tuple(phonemes.split())


def _by_neighbours(
    usual: str, other: str, *, before: frozenset[str] = frozenset(), after: frozenset[str] = frozenset()
) -> Callable[[Around], Phonemes]:
    """The other pronunciation beside certain words, else the usual one."""
    usually, otherwise = _say(usual), _say(other)

    def choose(around: Around) -> Phonemes:
        if around.previous().lower() in before or (after and around.follower().lower() in after):
            return otherwise
        return usually

    return choose


def _noun_or_verb(noun: str, verb: str) -> Callable[[Around], Phonemes]:
    """A noun or adjective, unless a word before it or, where a sentence begins, an object after it makes it a verb."""
    as_noun, as_verb = _say(noun), _say(verb)

    def choose(around: Around) -> Phonemes:
        if around.previous().lower() in _CLEAR_VERB_BEFORE:
            return as_verb
        if around.first or around.previous().lower() in ("and", "or", "then", "also", "just", "not"):
            return as_verb if around.follower().lower() in _OBJECT_AFTER else as_noun
        return as_noun

    return choose


def _verb_or_noun(verb: str, noun: str) -> Callable[[Around], Phonemes]:
    """A verb unless a word before it makes it a noun."""
    as_verb, as_noun = _say(verb), _say(noun)

    def choose(around: Around) -> Phonemes:
        return as_noun if around.previous().lower() in _NOUN_BEFORE else as_verb

    return choose


def _read(around: Around) -> Phonemes:
    earlier = (around.previous().lower(), around.previous(2).lower())
    past = earlier[0] in _HAVE | {"he", "she", "it", "who"} or (
        earlier[1] in _HAVE
        and earlier[0] in ("you", "i", "we", "they", "not", "just", "also", "only", "already", "ever")
    )
    return _say("R EH1 D") if past else _say("R IY1 D")


def _polish(around: Around) -> Phonemes:
    nation = around.words[0].core[:1].isupper() and not (around.first and around.follower().lower() in _OBJECT_AFTER)
    return _say("P OW1 L IH0 SH") if nation else _say("P AA1 L IH0 SH")


_RULES: Final[dict[str, Callable[[Around], Phonemes]]] = {
    "read": _read,
    "polish": _polish,
    "lead": _by_neighbours(
        "L IY1 D",
        "L EH1 D",
        before=word_set("molten leaded contains containing"),
        after=word_set(
            """pipe pipes paint poisoning acid bullet bullets levels exposure pencil pencils shielding ions content"""
        ),
    ),
    "live": _by_neighbours(
        "L IH1 V",
        "L AY1 V",
        before=word_set("go goes going went streaming broadcast stream is it's we're the a via now watch watched"),
        after=word_set(
            """music show shows stream streams streaming concert concerts event events audio video tv broadcast
            broadcasts demo demos chat coverage data updates performance performances animals wire session sessions
            transcription captions feed audience recording band version sports scores site website system server
            entertainment"""
        ),
    ),
    "lives": _by_neighbours(
        "L IH1 V Z",
        "L AY1 V Z",
        before=word_set(
            """our their your my his her many people's of save saved saving saves human the daily past these those nine
            everyday personal private two three own millions' changed change whose both all several some"""
        ),
    ),
    "wind": _by_neighbours(
        "W IH1 N D",
        "W AY1 N D",
        before=word_set("to will i'll you'll can you they rivers roads"),
        after=word_set("up down your through"),
    ),
    "winds": _by_neighbours("W IH1 N D Z", "W AY1 N D Z", before=word_set("road path river it trail which that")),
    "close": _by_neighbours(
        "K L OW1 Z",
        "K L OW1 S",
        before=word_set(
            """very so too pretty really quite how stay get gets getting got come comes came keep keeps as fairly"""
        ),
        after=word_set(
            """to by enough friend friends call proximity together attention range look family relationship second"""
        ),
    ),
    "use": _verb_or_noun("Y UW1 Z", "Y UW1 S"),
    "abuse": _verb_or_noun("AH0 B Y UW1 Z", "AH0 B Y UW1 S"),
    "misuse": _verb_or_noun("M IH0 S Y UW1 Z", "M IH0 S Y UW1 S"),
    "excuse": _verb_or_noun("IH0 K S K Y UW1 Z", "IH0 K S K Y UW1 S"),
    "house": _noun_or_verb("HH AW1 S", "HH AW1 Z"),
    "uses": _by_neighbours(
        "Y UW1 Z AH0 Z", "Y UW1 S AH0 Z", before=word_set("many its the other of common several these practical their")
    ),
    "tear": _by_neighbours(
        "T IH1 R", "T EH1 R", before=_CLEAR_VERB_BEFORE, after=word_set("down apart up off it into")
    ),
    "tears": _by_neighbours(
        "T IH1 R Z", "T EH1 R Z", before=word_set("it he she"), after=word_set("down apart up off")
    ),
    "bow": _by_neighbours("B OW1", "B AW1", before=_CLEAR_VERB_BEFORE, after=word_set("down to before out")),
    "bass": _by_neighbours(
        "B EY1 S", "B AE1 S", before=word_set("sea largemouth smallmouth striped black"), after=word_set("fishing fish")
    ),
    "minute": _by_neighbours(
        "M IH1 N AH0 T",
        "M AY0 N UW1 T",
        after=word_set("details detail amounts amount differences difference particles"),
    ),
    "dove": _by_neighbours("D AH1 V", "D OW1 V", after=word_set("into in deep deeper")),
    "wound": _by_neighbours("W UW1 N D", "W AW1 N D", after=word_set("up down around tightly")),
    "desert": _noun_or_verb("D EH1 Z ER0 T", "D IH0 Z ER1 T"),
    "resume": _by_neighbours(
        "R IH0 Z UW1 M", "R EH1 Z AH0 M EY2", before=word_set("a your my the his her their our strong good")
    ),
    "sow": _by_neighbours("S OW1", "S AW1", before=word_set("the a")),
    "console": _noun_or_verb("K AA1 N S OW0 L", "K AH0 N S OW1 L"),
    "record": _noun_or_verb("R EH1 K ER0 D", "R IH0 K AO1 R D"),
    "records": _by_neighbours("R EH1 K ER0 D Z", "R IH0 K AO1 R D Z", before=word_set("it he she which that")),
    "present": _noun_or_verb("P R EH1 Z AH0 N T", "P R IY0 Z EH1 N T"),
    "object": _noun_or_verb("AA1 B JH EH0 K T", "AH0 B JH EH1 K T"),
    "project": _noun_or_verb("P R AA1 JH EH0 K T", "P R AH0 JH EH1 K T"),
    "subject": _noun_or_verb("S AH1 B JH IH0 K T", "S AH0 B JH EH1 K T"),
    "content": _by_neighbours(
        "K AA1 N T EH0 N T",
        "K AH0 N T EH1 N T",
        before=word_set("be being was were feel feels feeling perfectly am i'm"),
    ),
    "conduct": _noun_or_verb("K AA1 N D AH0 K T", "K AH0 N D AH1 K T"),
    "conflict": _noun_or_verb("K AA1 N F L IH0 K T", "K AH0 N F L IH1 K T"),
    "contract": _noun_or_verb("K AA1 N T R AE2 K T", "K AH0 N T R AE1 K T"),
    "contrast": _noun_or_verb("K AA1 N T R AE0 S T", "K AH0 N T R AE1 S T"),
    "convert": _by_neighbours("K AH0 N V ER1 T", "K AA1 N V ER0 T", before=word_set("a the new recent")),
    "convict": _noun_or_verb("K AA1 N V IH0 K T", "K AH0 N V IH1 K T"),
    "defect": _noun_or_verb("D IY1 F EH0 K T", "D IH0 F EH1 K T"),
    "export": _noun_or_verb("EH1 K S P AO0 R T", "IH0 K S P AO1 R T"),
    "import": _noun_or_verb("IH1 M P AO2 R T", "IH2 M P AO1 R T"),
    "extract": _by_neighbours(
        "IH0 K S T R AE1 K T", "EH1 K S T R AE2 K T", before=word_set("vanilla an the of almond malt")
    ),
    "increase": _noun_or_verb("IH1 N K R IY2 S", "IH0 N K R IY1 S"),
    "decrease": _noun_or_verb("D IY1 K R IY2 S", "D IH0 K R IY1 S"),
    "insert": _by_neighbours("IH0 N S ER1 T", "IH1 N S ER2 T", before=word_set("an the this")),
    "insult": _noun_or_verb("IH1 N S AH2 L T", "IH2 N S AH1 L T"),
    "permit": _noun_or_verb("P ER1 M IH2 T", "P ER0 M IH1 T"),
    "produce": _by_neighbours(
        "P R AH0 D UW1 S",
        "P R OW1 D UW0 S",
        before=word_set("fresh the local organic of and some"),
        after=word_set("aisle section"),
    ),
    "progress": _noun_or_verb("P R AA1 G R EH2 S", "P R AH0 G R EH1 S"),
    "protest": _noun_or_verb("P R OW1 T EH2 S T", "P R AH0 T EH1 S T"),
    "rebel": _noun_or_verb("R EH1 B AH0 L", "R IH0 B EH1 L"),
    "refund": _noun_or_verb("R IY1 F AH2 N D", "R IH0 F AH1 N D"),
    "refuse": _by_neighbours("R AH0 F Y UW1 Z", "R EH1 F Y UW2 Z", before=word_set("the of household")),
    "reject": _by_neighbours("R IH0 JH EH1 K T", "R IY1 JH EH0 K T", before=word_set("a the")),
    "suspect": _by_neighbours(
        "S AH0 S P EH1 K T", "S AH1 S P EH2 K T", before=word_set("the a prime this that murder")
    ),
    "transfer": _noun_or_verb("T R AE1 N S F ER0", "T R AE0 N S F ER1"),
    "transport": _noun_or_verb("T R AE1 N S P AO0 R T", "T R AE0 N S P AO1 R T"),
    "upset": _by_neighbours("AH0 P S EH1 T", "AH1 P S EH2 T", before=word_set("an the major stomach")),
    "address": _noun_or_verb("AE1 D R EH2 S", "AH0 D R EH1 S"),
    "attribute": _noun_or_verb("AE1 T R AH0 B Y UW2 T", "AH0 T R IH1 B Y UW0 T"),
    "digest": _by_neighbours("D AY0 JH EH1 S T", "D AY1 JH EH0 S T", before=word_set("a the daily weekly this")),
    "discount": _noun_or_verb("D IH1 S K AW0 N T", "D IH0 S K AW1 N T"),
    "perfect": _noun_or_verb("P ER1 F IH2 K T", "P ER0 F EH1 K T"),
    "separate": _noun_or_verb("S EH1 P ER0 AH0 T", "S EH1 P ER0 EY2 T"),
    "estimate": _noun_or_verb("EH1 S T AH0 M AH0 T", "EH1 S T AH0 M EY2 T"),
    "graduate": _noun_or_verb("G R AE1 JH AH0 W AH0 T", "G R AE1 JH AH0 W EY2 T"),
    "duplicate": _noun_or_verb("D UW1 P L AH0 K AH0 T", "D UW1 P L AH0 K EY2 T"),
    "alternate": _noun_or_verb("AO1 L T ER0 N AH0 T", "AO1 L T ER0 N EY2 T"),
    "approximate": _noun_or_verb("AH0 P R AA1 K S AH0 M AH0 T", "AH0 P R AA1 K S AH0 M EY2 T"),
    "advocate": _noun_or_verb("AE1 D V AH0 K AH0 T", "AE1 D V AH0 K EY2 T"),
    "associate": _noun_or_verb("AH0 S OW1 SH IY0 AH0 T", "AH0 S OW1 SH IY0 EY2 T"),
    "coordinate": _noun_or_verb("K OW0 AO1 R D AH0 N AH0 T", "K OW0 AO1 R D AH0 N EY2 T"),
    "delegate": _noun_or_verb("D EH1 L AH0 G AH0 T", "D EH1 L AH0 G EY2 T"),
    "deliberate": _noun_or_verb("D IH0 L IH1 B ER0 AH0 T", "D IH0 L IH1 B ER0 EY2 T"),
    "elaborate": _noun_or_verb("IH0 L AE1 B R AH0 T", "IH0 L AE1 B ER0 EY2 T"),
    "moderate": _noun_or_verb("M AA1 D ER0 AH0 T", "M AA1 D ER0 EY2 T"),
    "appropriate": _noun_or_verb("AH0 P R OW1 P R IY0 AH0 T", "AH0 P R OW1 P R IY0 EY2 T"),
    "animate": _noun_or_verb("AE1 N AH0 M AH0 T", "AE1 N AH0 M EY2 T"),
}


def heteronym(word: str, around: Around) -> Phonemes | None:
    """Phonemes of a heteronym where it stands; None: the word is none.

    Raises:
        NotYet: The word after it decides, and has not come.
    """
    rule = _RULES.get(word)
    return rule(around) if rule else None
