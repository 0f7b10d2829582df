"""The language model that ships with Relay: small, on this machine, no network."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Literal

from relay.engine.brain import BrainInput, BrainOutput, Sampling
from relay.engine.engine import Engine, Runner, Steps
from relay.engine.onnx_runner import OnnxBrainRunner
from relay.errors import BrainUnavailable, EngineUnavailable, RelayError, WeightsError
from relay.events import Message, Piece, ReplyEnd, ToolOffer
from relay_models import loading
from relay_models.tokenizer import ChatTokenizer, StreamDecoder

MAX_TOKENS = 80
MAX_SENTENCES = 3
TOKEN_S = 0.1
"""A token takes at least so long to be said."""
_NO_REPEAT = 3
_DROPPED_MESSAGES = 8
_SENTENCE_END = re.compile(r"[.!?][\"')]*(?=\s)")


class EmbeddedBrain:
    """The shipped model behind one engine, shared by all sessions.

    Args:
        device: `cpu` runs the ONNX graph on one core; `cuda` runs the same weights in torch.
        sampling: How tokens are drawn.
        max_dialogues: How many sessions may be open at once. Their caches share a bounded pool.
        folder: Folder with model.safetensors, model.onnx, tokenizer.json and config.json; None takes the shipped one.
        engine: Where it runs already, in another process; None: it is loaded here.

    Attributes:
        engine: What steps it, once it is loaded.
    """

    name = "embedded"
    knows_ends = True

    def __init__(
        self,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        sampling: Sampling | None = None,
        max_dialogues: int = 1024,
        folder: Path | None = None,
        engine: Steps[BrainInput, BrainOutput] | None = None,
    ) -> None:
        self.engine = engine
        self._device = device
        self._sampling = sampling or Sampling()
        self._max_dialogues = max_dialogues
        self._folder = folder
        self._stack = contextlib.AsyncExitStack()
        self._vocabulary: _Vocabulary | None = None

    async def __aenter__(self) -> EmbeddedBrain:
        """Loads the model. Raises EngineUnavailable or WeightsError."""
        self._vocabulary = await asyncio.to_thread(_load_vocabulary, self._folder)
        if self.engine is None:
            self.engine = await self._stack.enter_async_context(Engine(self._runner(), name="brain"))
        return self

    def _runner(self) -> Runner[BrainInput, BrainOutput]:
        if self._device == "cpu":
            return OnnxBrainRunner(self._folder, max_slots=self._max_dialogues)
        try:
            from relay.engine.torch_runner import TorchBrainRunner
        except ImportError as error:
            raise EngineUnavailable("device cuda needs torch: pip install 'relay-dialogue[gpu]'") from error
        return TorchBrainRunner(self._folder, device=self._device, max_slots=self._max_dialogues)

    async def __aexit__(self, *exc: object) -> None:
        """Frees the model."""
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def dialogue(self) -> AsyncIterator[EmbeddedDialogue]:
        """A new session's side of it. Raises EngineBusy when `max_dialogues` are open."""
        if self.engine is None or self._vocabulary is None:
            raise RuntimeError("enter the brain before you ask it for a dialogue")
        async with self.engine.slot() as slot:
            dialogue = EmbeddedDialogue(self.engine, slot, self._vocabulary, self._sampling)
            try:
                yield dialogue
            finally:
                await dialogue.settle()


class EmbeddedDialogue:
    """One session's replies; made by `EmbeddedBrain.dialogue`."""

    def __init__(
        self, engine: Steps[BrainInput, BrainOutput], slot: int, vocabulary: _Vocabulary, sampling: Sampling
    ) -> None:
        self._engine = engine
        self._slot = slot
        self._vocabulary = vocabulary
        self._sampling = sampling
        self._pending: asyncio.Future[BrainOutput] | None = None
        self._one_step = asyncio.Lock()  # a reply and `end_probability` may ask at once

    async def reply(
        self,
        messages: Sequence[Message],
        *,
        prefix: str = "",
        max_tokens: int | None = None,
        tools: ToolOffer | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Streams the assistant's next turn: one or two sentences.

        The model is too small to follow instructions, call tools or read their results: it never calls one, and only
        what user and assistant said is shown to it, as many of the latest turns as fit.

        Args:
            messages: The conversation so far, oldest first.
            prefix: Words of this turn that were spoken already; the stream continues them and does not repeat them.
            max_tokens: Upper bound of the reply's length; the model's own is 80.
            tools: Not called.

        Raises:
            BrainUnavailable: The engine failed or was closed.
        """
        vocabulary = self._vocabulary
        bound = min(max_tokens or MAX_TOKENS, MAX_TOKENS)
        context = vocabulary.context_of(messages, prefix, bound)
        opened = len(context)
        decoder = StreamDecoder(vocabulary.tokenizer)
        text = prefix  # of the whole turn, for its sentences
        spaced = prefix != prefix.rstrip()
        reason: Literal["stop", "length"] = "stop"
        now_s = asyncio.get_running_loop().time
        due_s = now_s()
        while len(context) - opened < bound:
            banned: Sequence[int] = vocabulary.no_repeat(context[opened:])
            if len(context) == opened and prefix.strip():
                banned = vocabulary.after_space if spaced else vocabulary.after_word(prefix)
            # The first token is due soon; the others no sooner than they can be said.
            due_s = max(due_s, now_s()) + TOKEN_S
            output = await self._step(BrainInput(context, self._sampling, banned), due_s)
            assert output.token is not None
            if output.token in vocabulary.stops:
                break
            context.append(output.token)
            piece = decoder.push(output.token)
            if not text.strip() or (spaced and len(context) == opened + 1):
                piece = piece.lstrip()
            finished = _finished(text + piece)
            if finished is not None:
                piece = (text + piece)[len(text) : finished]
            text += piece
            if piece:
                yield piece
            if finished is not None:
                break
        else:
            if max_tokens is not None and bound == max_tokens:  # the model's own bound is no news to the caller
                reason = "length"
        yield ReplyEnd(reason, input_tokens=opened, output_tokens=len(context) - opened)

    async def end_probability(self, messages: Sequence[Message]) -> float | None:
        """How likely the last turn, the user's, ends with its last word: the model predicts both sides of a dialogue.

        A turn is over where the next speaker's is likely (TurnGPT, Ekstedt and Skantze 2020, arXiv 2010.10874); end
        marks count, since some of the model's users write them. What is read for it, a reply need not read again.

        Args:
            messages: The conversation so far, oldest first.

        Returns:
            0 to 1; None if the last turn is not the user's.

        Raises:
            BrainUnavailable: The engine failed or was closed.
        """
        if next((role for _, role, _ in _newest_turns(messages)), None) != "user":
            return None
        context = self._vocabulary.context_of(messages, "", MAX_TOKENS)
        opened = context[:-2]  # without the end of the user's turn, and the role of the next
        due_s = asyncio.get_running_loop().time() + TOKEN_S
        x = BrainInput(opened, self._sampling, watched=self._vocabulary.turn_ends)
        return (await self._step(x, due_s)).watched

    async def _step(self, x: BrainInput, due_s: float) -> BrainOutput:
        """Steps until the context is read and a token drawn."""
        async with self._one_step:
            return await self._step_alone(x, due_s)

    async def _step_alone(self, x: BrainInput, due_s: float) -> BrainOutput:
        await self.settle()
        while True:
            self._pending = asyncio.ensure_future(self._engine.step(self._slot, x, deadline_s=due_s))
            try:
                output = await asyncio.shield(self._pending)
            except RelayError as error:
                raise BrainUnavailable(f"the embedded language model stopped: {error}") from error
            except Exception as error:
                raise BrainUnavailable(f"the embedded language model failed: {error!r}; ask again") from error
            self._pending = None
            if output.token is not None:
                return output

    async def settle(self) -> None:
        """Waits for the step that a cancelled reply may have left on the engine's thread."""
        if self._pending is not None:
            await asyncio.wait([self._pending])
            self._pending = None


def _finished(text: str) -> int | None:
    """Where the turn ends when it has as many sentences as a spoken reply should have; None while it may go on."""
    ends = list(_SENTENCE_END.finditer(text))
    return ends[MAX_SENTENCES - 1].end() if len(ends) >= MAX_SENTENCES else None


class _Vocabulary:
    """What a reply needs to know of the tokens: the context of a conversation, and what may not come next."""

    def __init__(self, tokenizer: ChatTokenizer, context_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.context_tokens = context_tokens
        self.stops = frozenset((tokenizer.end, tokenizer.system, tokenizer.user, tokenizer.assistant))
        self.turn_ends = (tokenizer.end, *(token for mark in ".?!" for token in tokenizer.encode(mark)))
        self.after_space = tokenizer.starting(word=False)
        self._word_starts = tokenizer.starting(word=True)

    def after_word(self, prefix: str) -> Sequence[int]:
        """Tokens that would grow the spoken word at the end of `prefix`."""
        return self._word_starts if prefix[-1].isalnum() else ()

    def context_of(self, messages: Sequence[Message], prefix: str, reply_tokens: int) -> list[int]:
        """Tokens of the latest turns that fit, and of the reply's beginning; room for the reply is left.

        What does not fit is dropped several messages at a time: the tokens that stay are then mostly those of the reply
        before, which the engine has in its cache.
        """
        room = self.context_tokens - reply_tokens
        ending = [self.tokenizer.assistant, *self.tokenizer.encode(prefix.strip())][:room]
        kept: deque[tuple[int, list[int]]] = deque()
        used = len(ending)
        for first, role, text in _newest_turns(messages):
            turn = self.tokenizer.turn(role, text)
            if used + len(turn) > room:
                if not kept and used < room - 1:  # the last turn alone is too long: its end matters most
                    kept.append((first, [turn[0], *turn[used + 1 - room :]]))
                oldest = kept[0][0] if kept else 0
                while len(kept) > 1 and kept[0][0] < oldest + -oldest % _DROPPED_MESSAGES:
                    kept.popleft()
                break
            kept.appendleft((first, turn))
            used += len(turn)
        return [token for _, turn in kept for token in turn] + ending

    def no_repeat(self, reply: Sequence[int]) -> list[int]:
        """Tokens that would say the same three in a row a second time within the reply."""
        if len(reply) < _NO_REPEAT:
            return []
        tail = tuple(reply[1 - _NO_REPEAT :])
        starts = range(len(reply) - _NO_REPEAT + 1)
        return [reply[i + _NO_REPEAT - 1] for i in starts if tuple(reply[i : i + _NO_REPEAT - 1]) == tail]


def _newest_turns(messages: Sequence[Message]) -> Iterator[tuple[int, str, str]]:
    """User and assistant turns, the newest first, neighbours of one role joined, empty ones left out.

    From behind, so that a reply late in a long call reads no more than one early in it.

    Yields:
        The number of its first message, who speaks, and what is said.
    """
    first, speaker, texts = 0, "", list[str]()
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if _is_turn(message):
            if message.role != speaker and texts:
                yield first, speaker, " ".join(reversed(texts))
                texts = []
            first, speaker = at, message.role
            texts.append(" ".join(message.text.split()))
    if texts:
        yield first, speaker, " ".join(reversed(texts))


def _is_turn(message: Message) -> bool:
    return message.role in ("user", "assistant") and bool(message.text) and not message.text.isspace()


def _load_vocabulary(folder: Path | None) -> _Vocabulary:
    try:
        folder = folder or loading.locate("brain")
        tokenizer = ChatTokenizer.load(folder / "tokenizer.json")
        return _Vocabulary(tokenizer, loading.read_config(folder)["max_position_embeddings"])
    except loading.WeightsError as error:
        raise WeightsError(str(error)) from error
