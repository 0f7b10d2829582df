"""The relay with a learned draft model, small and random, in real time: real threads, a brain that takes its time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import torch

from relay.engine.draft_torch import TorchDraftRunner
from relay.engine.engine import Engine
from relay.services import Fast
from relay_models.draft import save_draft
from relay_models.ears import save_ears
from tests.drafters import ScriptedVerifier
from tests.fakes import FakeBrain, FakeEars, FakeVoice
from tests.models.draft.tiny_draft import TOKENIZER, draft_model
from tests.models.ears.tiny import ears
from tests.test_session import Stand
from tests.test_session_relay import RELAY, drafts, paths, said


def test_a_learned_draft_is_spoken_and_continued(tmp_path: Path) -> None:
    recogniser = ears()
    model = draft_model(23, window=64, speech_size=recogniser.config.encoder.size)
    torch.nn.init.zeros_(
        model.adapter.outer.weight
    )  # what is heard does not count: the draft has words, whatever it is
    torch.nn.init.zeros_(model.adapter.outer.bias)
    save_ears(recogniser, tmp_path / "ears")
    save_draft(model, tmp_path / "draft")
    TOKENIZER.save(tmp_path / "tokenizer.json")
    runner = TorchDraftRunner(tmp_path / "ears", tmp_path / "draft", tmp_path / "tokenizer.json", max_slots=2)

    async def main() -> None:
        async with Engine(runner, name="draft") as engine:
            # The brain is far slower than any machine's draft: which path wins is no matter of luck.
            brain = FakeBrain([[30.0, "Never."], [0.2, "and that is all."]])
            fast = Fast(engine, ScriptedVerifier())
            stand = Stand(FakeEars(["hello"]), brain, FakeVoice(), fast=fast, speculate=False)
            async with stand.call(relay=RELAY) as caller:
                await caller.say_one_turn()
                done = await caller.done()
                assert done["status"] == "completed"
                (report,) = drafts(caller)
                assert report["committed"], report
                assert said(done) == f"{report['prefix']} and that is all."
                assert paths(caller) == ["relay"]
            await asyncio.sleep(0)
            assert engine.slots_in_use == 0

    asyncio.run(main())
