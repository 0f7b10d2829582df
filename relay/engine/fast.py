"""The fast path of a server, by its settings: which weights it needs, and what to do when they are not there."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from relay.engine import device as devices
from relay.engine.draft import Draft, DraftEngine, Judgement, Verifier
from relay.engine.draft_torch import EngineVerifier, TorchDraftRunner, TorchVerifierRunner
from relay.engine.engine import Engine
from relay.errors import EngineUnavailable, WeightsError
from relay_models import loading

FastPathName = Literal["relay", "draft"]
_NEEDS = {"relay": ("draft", "verifier", "ears"), "draft": ("draft", "ears")}


def folders(path: FastPathName, models_dir: Path | None) -> dict[str, Path]:
    """Folders of the models that a path needs: one of that name in `models_dir`, else the one that ships.

    Raises:
        WeightsError: Some are in neither place, or damaged; the missing ones are named.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in _NEEDS[path]:
        own = None if models_dir is None else models_dir / name
        if own is not None and (own / "config.json").exists():
            found[name] = own
            continue
        try:
            if name in loading.read_manifest():
                found[name] = loading.locate(name)
            else:
                missing.append(name)
        except loading.WeightsError as error:
            raise WeightsError(str(error)) from error
    if missing:
        place = "in the folder of --models-dir" if models_dir is None else f"in {models_dir}"
        models = f"{' and '.join(missing)} model{'s' if len(missing) > 1 else ''}"
        raise WeightsError(
            f"--path {path} needs the weights of the {models}, which this version does not ship and which are not "
            f"{place}; use --path cascade"
        )
    return found


def check(path: FastPathName, models_dir: Path | None) -> dict[str, Path]:
    """`folders`, where all else that a path needs is here too.

    Raises:
        WeightsError: Weights are missing or damaged.
        EngineUnavailable: torch is missing.
    """
    found = folders(path, models_dir)
    if importlib.util.find_spec("torch") is None:
        raise EngineUnavailable(f"--path {path} needs torch: pip install 'relay-dialogue[gpu]', or use --path cascade")
    return found


class NoVerifier:
    """Stands where no draft is judged: on the path `draft`."""

    async def judge(self, draft: Draft, confidence: float) -> Judgement:
        """Keeps every word."""
        return Judgement(1.0, len(draft.words))


@contextlib.asynccontextmanager
async def open_fast(
    path: FastPathName, device: Literal["auto", "cpu", "cuda"], models_dir: Path | None, *, max_slots: int
) -> AsyncIterator[tuple[DraftEngine, Verifier]]:
    """Loads the draft model and its verifier for as long as the block runs.

    Raises:
        WeightsError: Weights are missing or damaged.
        EngineUnavailable: torch is missing.
    """
    found = check(path, models_dir)
    try:
        tokenizer = loading.locate("brain") / "tokenizer.json"
    except loading.WeightsError as error:
        raise WeightsError(str(error)) from error
    runner = TorchDraftRunner(
        found["ears"], found["draft"], tokenizer, device=devices.resolve(device), max_slots=max_slots
    )
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine(runner, name="draft"))
        verifier: Verifier = NoVerifier()
        if path == "relay":
            judge = TorchVerifierRunner(found["verifier"])
            verifier = EngineVerifier(await stack.enter_async_context(Engine(judge, name="verifier")))
        yield engine, verifier
