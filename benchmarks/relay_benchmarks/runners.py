"""What steps of the torch runners take, host and device together, by how many are stepped.

The recogniser and the language model are those that ship; the draft model and its verifier have their size and random
weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch

from relay.audio import EARS_RATE_HZ, Int16Array
from relay.client.files import load
from relay.engine.brain import BrainInput, Sampling
from relay.engine.draft import DRAFT_FRAME_SAMPLES, DraftInput, DraftOutput
from relay.engine.draft_torch import TorchDraftRunner
from relay.engine.ears import EarsInput
from relay.engine.ears_torch import TorchEarsRunner
from relay.engine.torch_runner import PREFILL_TOKENS, TorchBrainRunner
from relay.engine.verifier import Judged, VerifierRunner
from relay_benchmarks.streaming_measure import machine, percentiles, times_ms
from relay_models import loading
from relay_models.draft import DraftConfig, DraftModel, save_draft
from relay_models.framing import chunk_samples
from relay_models.verifier import Verifier, VerifierConfig, save_verifier

Device = Literal["cpu", "cuda"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunnersOptions:
    """What `relay bench runners` was asked.

    Attributes:
        device: Where they run.
        streams: Of the recogniser, all of them speaking.
        rows: Of the recogniser, encoded at once.
        batches: How many dialogues and sessions the language and the draft model step at once.
        steps: How many are timed.
    """

    device: Device = "cuda"
    streams: Sequence[int] = (64, 256)
    rows: int = 64
    batches: Sequence[int] = (1, 8, 32)
    steps: int = 40


_WARM_UP = 5
_LOOKAHEAD_MS, _RIGHT = 80, 1


def ears(device: Device, streams: int, max_batch: int, rows: int, *, steps: int) -> dict[str, Any]:
    """A chunk of every stream, all of them speaking."""
    runner = TorchEarsRunner(
        device=device, lookahead_ms=_LOOKAHEAD_MS, max_slots=streams, max_batch=max_batch, rows=rows, static=True
    )
    runner.load()
    samples, sound = chunk_samples(_RIGHT), _question()
    for slot in range(streams):
        runner.open(slot)
    at = count()

    def step() -> None:
        turn = next(at)
        for first in range(0, streams, max_batch):
            slots = range(first, min(first + max_batch, streams))
            begins = [((slot * 31 + turn) * samples) % (len(sound) - samples) for slot in slots]
            _checked(runner.step(slots, [EarsInput(sound[begin : begin + samples]) for begin in begins]))

    times = times_ms(step, device, steps=steps, warm_up=_WARM_UP)
    runner.unload()
    sizes = {"streams": streams, "max_batch": max_batch, "rows": rows, "chunk_ms": 1000 * samples / EARS_RATE_HZ}
    return {**sizes, **percentiles(times)}


def brain(device: Device, batches: Sequence[int], *, steps: int) -> list[dict[str, Any]]:
    """A read of `PREFILL_TOKENS` and a token for each of so many dialogues."""
    runner = TorchBrainRunner(device=device, cache_rows=2 * max(batches), max_batch=max(batches))
    runner.load()
    rng = np.random.default_rng(0)
    found = []
    for rows in batches:
        said = [rng.integers(300, 8000, PREFILL_TOKENS + 2).tolist() for _ in range(rows)]
        lengths = count(PREFILL_TOKENS + 1)

        def read(said: list[list[int]] = said) -> None:
            for tokens in said:
                tokens[0] = 300 + (tokens[0] - 299) % 7000  # another first token: all is read anew
            inputs = [BrainInput(tokens[:PREFILL_TOKENS], Sampling()) for tokens in said]
            _checked(runner.step(range(len(said)), inputs))

        def token(said: list[list[int]] = said, lengths: count[int] = lengths) -> None:
            length = next(lengths)
            inputs = [BrainInput([*tokens, *[500] * length][:length], Sampling()) for tokens in said]
            _checked(runner.step(range(len(said)), inputs))

        for what, step in (("read", read), ("token", token)):
            times = times_ms(step, device, steps=steps, warm_up=_WARM_UP)
            found.append({"what": what, "dialogues": rows, **percentiles(times)})
    runner.unload()
    return found


def draft(device: Device, batches: Sequence[int], *, steps: int) -> list[dict[str, Any]]:
    """A frame of 160 ms, and a draft of seven words, for each of so many sessions.

    Drafts also with the verdict on each: by the verifier on the host after they were fetched, and in the same step.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        sizes = DraftConfig()
        model, judge = Path(folder) / "draft", Path(folder) / "verifier"
        save_draft(DraftModel(sizes).eval(), model)
        save_verifier(Verifier(VerifierConfig(hidden_size=sizes.decoder.hidden_size)), judge)
        host = VerifierRunner(judge)
        host.load()
        sound = _question()[:DRAFT_FRAME_SAMPLES]
        asked = DraftInput(sound[:0], draft_words=7, confidence=0.5)
        for verifier in (None, judge):
            runner = TorchDraftRunner(
                *(loading.locate("ears"), model, loading.locate("brain") / "tokenizer.json"),
                device=device,
                max_slots=max(batches),
                static=True,
                verifier=verifier,
            )
            runner.load()
            for slot in range(max(batches)):
                runner.open(slot)
            for rows in batches:
                make = partial(_step_all, runner, range(rows), asked)
                steps_of: dict[str, Callable[[], object]] = {"draft, judged in the step": make}
                if verifier is None:
                    steps_of = {
                        "frame": partial(_step_all, runner, range(rows), DraftInput(sound)),
                        "draft": make,
                        "draft, judged on the host": partial(_judge_all, make, host),
                    }
                for what, step in steps_of.items():
                    times = times_ms(step, device, steps=steps, warm_up=_WARM_UP)
                    found.append({"what": what, "sessions": rows, **percentiles(times)})
            runner.unload()
    return found


def _step_all(runner: TorchDraftRunner, slots: Sequence[int], x: DraftInput) -> Sequence[DraftOutput]:
    return _checked(runner.step(slots, [x] * len(slots)))


def _judge_all(make: Callable[[], Sequence[DraftOutput]], host: VerifierRunner) -> None:
    drafts = [output.draft for output in make() if output.draft is not None]
    _checked(host.step(range(len(drafts)), [Judged(one, 0.5) for one in drafts]))


def _checked(outputs: Sequence[T | BaseException]) -> Sequence[T]:
    for output in outputs:
        if isinstance(output, BaseException):
            raise output
    return cast("Sequence[T]", outputs)


def _question() -> Int16Array:
    with resources.as_file(resources.files("relay") / "assets" / "question.wav") as path:
        return load(path, EARS_RATE_HZ)


def run(asked: RunnersOptions, note: Callable[[str], None]) -> dict[str, Any]:
    """Measures all; the report's times are in ms.

    Args:
        asked: What is measured.
        note: Told what comes next.
    """
    rounds = []
    for streams in asked.streams:
        note(f"{streams} streams of the recogniser ...")
        for max_batch in (asked.rows, 4 * asked.rows):
            rounds.append(ears(asked.device, streams, max_batch, asked.rows, steps=asked.steps))
    note("the language model ...")
    tokens = brain(asked.device, asked.batches, steps=asked.steps)
    note("the draft model ...")
    drafts = draft(asked.device, asked.batches, steps=asked.steps)
    return {"machine": machine(asked.device), "ears": rounds, "brain": tokens, "draft": drafts}


def table(report: Mapping[str, Any]) -> list[str]:
    """The report as lines."""
    lines = [
        f"ears   {one['streams']:5} streams, {one['max_batch']} stepped and {one['rows']} encoded at once: "
        f"P50 {one['p50_ms']:.2f} ms, P99 {one['p99_ms']:.2f} ms of every {one['chunk_ms']:.0f} ms"
        for one in report["ears"]
    ]
    for part, sizes in (("brain", "dialogues"), ("draft", "sessions")):
        lines += [
            f"{part:6} {one[sizes]:5} {sizes}, a {one['what']}: P50 {one['p50_ms']:.2f} ms, P99 {one['p99_ms']:.2f} ms"
            for one in report[part]
        ]
    return lines
