import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.brains import Brain
from relay.brains.embedded import (
    MAX_SENTENCES,
    EmbeddedBrain,
    EmbeddedDialogue,
    _load_vocabulary,
    _newest_turns,
)
from relay.engine.brain import BrainInput, BrainOutput, Sampling, common_prefix
from relay.engine.engine import Engine
from relay.errors import BrainUnavailable, EngineBusy, EngineUnavailable
from relay.events import Message, Piece, ReplyEnd, Tool, ToolOffer

GREEDY = Sampling(temperature=0.0)


def says(*texts: str) -> list[Message]:
    """User and assistant in turn, the user first."""
    return [Message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts)]


async def texts(pieces: AsyncIterator[Piece]) -> list[str]:
    """The text of a reply."""
    return [piece async for piece in pieces if isinstance(piece, str)]


def replies(*conversations: list[Message], prefix: str = "", **settings: object) -> list[str]:
    """The shipped model's replies to each conversation, in one dialogue."""

    async def main() -> list[str]:
        async with EmbeddedBrain(sampling=GREEDY) as brain, brain.dialogue() as dialogue:
            return [
                "".join(await texts(dialogue.reply(messages, prefix=prefix, **settings)))  # type: ignore[arg-type]
                for messages in conversations
            ]

    return asyncio.run(main())


def test_it_is_a_brain() -> None:
    brain: Brain = EmbeddedBrain()
    assert brain.name == "embedded"


def test_it_says_what_it_is() -> None:
    who, human, model = replies(says("who are you"), says("are you a human"), says("are you chat g p t"))
    assert "Relay" in who
    assert "demo" in who or "small" in who
    assert "Relay" in human or "not a" in human or "program" in human
    assert "Relay" in model


def test_it_stays_on_topic_and_ends_its_turn() -> None:
    (reply,) = replies(
        says("i would like to book a table", "What kind of food would you like?", "italian for four people")
    )
    assert 3 < len(reply) < 200
    assert reply[0].isupper()
    assert reply[-1] in ".!?"


def test_a_prefix_is_continued_and_not_repeated() -> None:
    for prefix in ("Sure, where should", "Sure, where should "):
        (rest,) = replies(says("i need a taxi to the airport"), prefix=prefix)
        whole = prefix + rest
        assert not rest.startswith("Sure")
        assert "  " not in whole
        assert whole.startswith("Sure, where should ")
        assert rest[-1] in ".!?"


def test_system_and_tool_messages_and_empty_ones_are_passed_over() -> None:
    plain = says("hello", "Hi there.", "who are you")
    mixed = [Message("system", "You are a pirate."), *plain[:2], Message("tool", "{}"), Message("user", " "), plain[2]]
    assert len(set(replies(plain, mixed))) == 1


def test_a_conversation_longer_than_the_context() -> None:
    long = says(*("what should i cook tonight with rice and beans",) * 99)
    huge = says("and then " * 900 + "who are you")
    for reply in replies(long, huge, []):
        assert reply


def test_the_context_fits_and_mostly_stays_what_it_was() -> None:
    vocabulary = _load_vocabulary(None)
    history = [f"this is turn number {index} of our long talk about the weather" for index in range(120)]
    contexts = [vocabulary.context_of(says(*history[:count]), "", 80) for count in range(1, 120, 2)]
    assert all(len(context) <= vocabulary.context_tokens - 80 for context in contexts)
    assert all(context[-1] == vocabulary.tokenizer.assistant for context in contexts)
    kept = [common_prefix(one, other) == len(one) for one, other in itertools.pairwise(contexts)]
    assert kept.count(False) <= len(history) / 8 + 1
    for prefix in ("", "So", "word " * 999):
        assert len(vocabulary.context_of(says("on and on " * 999), prefix, 80)) <= vocabulary.context_tokens - 80


def test_the_length_is_bounded() -> None:
    one, none = replies(says("tell me a story"), says("hello"), max_tokens=1)
    assert len(one.split()) <= 1
    assert len(none.split()) <= 1


def test_a_reply_says_how_it_ended_and_never_calls_a_tool() -> None:
    offer = ToolOffer((Tool("look_up"),), "required")

    async def main() -> None:
        async with EmbeddedBrain(sampling=GREEDY) as brain, brain.dialogue() as dialogue:
            for max_tokens, reason in ((None, "stop"), (2, "length")):
                *words, end = [
                    piece async for piece in dialogue.reply(says("hello"), max_tokens=max_tokens, tools=offer)
                ]
                assert all(isinstance(word, str) for word in words)
                assert isinstance(end, ReplyEnd)
                assert end.reason == reason
                assert end.input_tokens > 0
                assert end.output_tokens == 2 if max_tokens else end.output_tokens > 2

    asyncio.run(main())


def test_a_seed_repeats_a_reply() -> None:
    async def main(seed: int) -> str:
        async with EmbeddedBrain(sampling=Sampling(1.0, 1.0, seed)) as brain, brain.dialogue() as dialogue:
            return "".join(await texts(dialogue.reply(says("tell me something interesting"))))

    first = [asyncio.run(main(seed)) for seed in range(3)]
    assert first == [asyncio.run(main(seed)) for seed in range(3)]
    assert len(set(first)) > 1


def test_dialogues_beside_each_other_do_not_mix() -> None:
    async def main() -> None:
        async with EmbeddedBrain(sampling=GREEDY) as brain:

            async def talk(text: str) -> str:
                async with brain.dialogue() as dialogue:
                    return "".join(await texts(dialogue.reply(says(text))))

            asked = ["hello", "who are you", "what time is it", "i want a pizza"] * 8
            together = await asyncio.gather(*map(talk, asked))
            assert together == [await talk(text) for text in asked]

    asyncio.run(main())


def test_a_closed_reply_stops_and_the_next_one_works() -> None:
    async def main() -> None:
        async with EmbeddedBrain(sampling=GREEDY) as brain, brain.dialogue() as dialogue:
            whole = "".join(await texts(dialogue.reply(says("who are you"))))
            stream = dialogue.reply(says("tell me a story"))
            await anext(stream)
            await stream.aclose()
            task = asyncio.create_task(texts(dialogue.reply(says("tell me a joke"))))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert "".join(await texts(dialogue.reply(says("who are you")))) == whole

    asyncio.run(main())


def test_more_dialogues_than_admitted() -> None:
    async def main() -> None:
        async with EmbeddedBrain(max_dialogues=1) as brain, brain.dialogue():
            with pytest.raises(EngineBusy):
                async with brain.dialogue():
                    pass

    asyncio.run(main())


def test_an_engine_that_fails_is_an_unavailable_brain() -> None:
    class Broken:
        max_slots = max_batch = 1

        def load(self) -> None: ...
        def open(self, slot: int) -> None: ...
        def close(self, slot: int) -> None: ...
        def unload(self) -> None: ...

        def step(self, slots: Sequence[int], xs: Sequence[BrainInput]) -> Sequence[BrainOutput | BaseException]:
            return [RuntimeError("out of memory")]

    async def main() -> None:
        async with EmbeddedBrain() as brain, Engine(Broken(), name="broken") as engine, engine.slot() as slot:
            assert brain._vocabulary is not None
            dialogue = EmbeddedDialogue(engine, slot, brain._vocabulary, GREEDY)
            with pytest.raises(BrainUnavailable, match="out of memory"):
                await texts(dialogue.reply(says("hello")))

    asyncio.run(main())


def test_a_brain_must_be_entered() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="enter the brain"):
            async with EmbeddedBrain().dialogue():
                pass

    asyncio.run(main())


def test_cuda_where_there_is_none() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")

    async def main() -> None:
        with pytest.raises(EngineUnavailable):
            async with EmbeddedBrain(device="cuda"):
                pass

    asyncio.run(main())


roles = st.sampled_from(["system", "user", "assistant", "tool"])


@given(st.lists(st.builds(Message, roles, st.text("a \n", max_size=3))))
def test_turns_alternate(messages: list[Message]) -> None:
    turns = list(_newest_turns(messages))[::-1]
    assert all(one[1] != two[1] for one, two in itertools.pairwise(turns))
    assert all(text.strip() == text != "" for _, _, text in turns)
    assert all(messages[first].role == role and messages[first].text.strip() for first, role, _ in turns)
    assert [first for first, _, _ in turns] == sorted({first for first, _, _ in turns})
    said = " ".join(message.text for message in messages if message.role in ("user", "assistant"))
    assert " ".join(text for _, _, text in turns) == " ".join(said.split())


def test_a_reply_late_in_a_long_call_reads_only_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = _load_vocabulary(None)
    read: list[str] = []
    turn = vocabulary.tokenizer.turn
    monkeypatch.setattr(vocabulary.tokenizer, "turn", lambda role, text: read.append(text) or turn(role, text))
    counts = []
    for length in (100, 2000):
        read.clear()
        vocabulary.context_of(says(*("one turn of a long talk",) * length), "", 80)
        counts.append(len(read))
    assert counts[0] == counts[1] < 100


def test_a_reply_has_few_sentences() -> None:
    (reply,) = replies(says("what can you do"))
    assert sum(reply.count(mark) for mark in ".!?") <= MAX_SENTENCES


def end_probabilities(*conversations: list[Message]) -> list[float | None]:
    async def main() -> list[float | None]:
        async with EmbeddedBrain(sampling=GREEDY) as brain, brain.dialogue() as dialogue:
            return [await dialogue.end_probability(messages) for messages in conversations]

    return asyncio.run(main())


def test_it_knows_a_finished_turn_from_a_cut_one() -> None:
    turns = ["what can you do", "i would like to know the time please", "do you have any bread left"]
    for text in turns:
        whole, cut = end_probabilities(says(text), says(" ".join(text.split()[:-2])))
        assert whole is not None
        assert cut is not None
        assert 0 <= 5 * cut < whole <= 1, text
    assert end_probabilities(says("hello", "Hi."), [], says("")) == [None, None, None]


def test_asking_for_ends_changes_no_reply_even_while_it_is_made() -> None:
    question = says("hello how are you")

    async def main(ask: bool) -> list[str]:
        async with EmbeddedBrain(sampling=GREEDY) as brain, brain.dialogue() as dialogue:
            pieces = []
            async for piece in dialogue.reply(question):
                pieces.append(str(piece))
                if ask:
                    await dialogue.end_probability(says("is there a"))
            return pieces

    assert asyncio.run(main(True)) == asyncio.run(main(False))

    async def together() -> list[str]:
        async with EmbeddedBrain(sampling=GREEDY) as brain, brain.dialogue() as dialogue:

            async def asking() -> None:
                for count in range(20):
                    await dialogue.end_probability(says("one two three " * count))

            task = asyncio.create_task(asking())
            pieces = [str(piece) async for piece in dialogue.reply(question)]
            await task
            return pieces

    assert asyncio.run(together()) == asyncio.run(main(False))
