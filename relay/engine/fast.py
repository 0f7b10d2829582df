"""The fast path of a server, by its settings: which weights it needs, and what to do when they are not there."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal, TypeAlias

from relay.config import Device
from relay.engine import device as devices
from relay.engine.draft import Draft, DraftEngine, DraftInput, Judgement, Verifier
from relay.engine.draft_onnx import OnnxDraftRunner
from relay.engine.draft_torch import TorchDraftRunner
from relay.engine.engine import Engine
from relay.engine.learned_draft import LearnedDraft
from relay.engine.verifier import EngineVerifier, VerifierRunner
from relay.errors import EngineUnavailable, WeightsError
from relay_models import loading
from relay_models.draft_config import DRAFT, LISTEN, RIGHT
from relay_models.ears_folder import graph_name

FastPathName = Literal["relay", "draft"]
Lacking: TypeAlias = WeightsError | EngineUnavailable
"""Why a path cannot run here. What to do instead depends on who asked for it: `insisted`, `why_cascade`."""
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
        place = "in $RELAY_HOME/models" if models_dir is None else f"in {models_dir}"
        models = f"{' and '.join(missing)} model{'s' if len(missing) > 1 else ''}"
        raise WeightsError(
            f"the path {path} needs the weights of the {models}, which this version does not ship and which are not "
            f"{place}"
        )
    return found


def check(path: FastPathName, models_dir: Path | None, device: Device) -> dict[str, Path]:
    """`folders`, where the models that a path needs can run here too.

    Raises:
        WeightsError: Weights are missing or damaged.
        EngineUnavailable: The draft model has no graphs, or they are of no use on this device, and torch is missing.
    """
    found = folders(path, models_dir)
    _runs_as_graphs(found["ears"], found["draft"], devices.resolve(device))
    return found


def insisted(error: Lacking) -> Lacking:
    """What people are told who asked for a path whose models cannot be loaded, as `error` says."""
    return type(error)(f"{error}; or use --path cascade")


def why_cascade(error: Lacking) -> str:
    """What people are told where nobody asked for a path, and the relay's models cannot be loaded, as `error` says."""
    return f"replies are made by the language model alone (--path cascade): {error}"


def _runs_as_graphs(ears: Path, draft: Path, device: Literal["cpu", "cuda"]) -> bool:
    """Whether the draft model runs without torch. Raises EngineUnavailable where it needs torch, which is missing."""
    graphs = (draft / LISTEN, draft / DRAFT, ears / graph_name(RIGHT))
    if device == "cpu" and all(graph.exists() for graph in graphs):
        return True
    if importlib.util.find_spec("torch") is None:
        missing = ", ".join(f"{graph.parent.name}/{graph.name}" for graph in graphs if not graph.exists())
        raise EngineUnavailable(
            f"the draft model has no graphs to run without torch ({missing}): export them with "
            f"`relay_models.draft_export`, or pip install 'relay-dialogue[gpu]'"
        )
    return False


def _drafts(x: DraftInput, first: bool) -> bool:
    """Somebody waits in silence for the draft."""
    return x.draft_words > 0


class NoVerifier:
    """Stands where no draft is judged: on the path `draft`."""

    async def judge(self, draft: Draft, confidence: float) -> Judgement:
        """Keeps every word."""
        return Judgement(1.0, len(draft.words))


def make_runner(
    ears: Path,
    draft: Path,
    tokenizer: Path,
    device: Literal["cpu", "cuda"],
    *,
    max_slots: int,
    verifier: Path | None = None,
) -> LearnedDraft:
    """The draft model's runner: torch on a GPU; on the CPU its graphs, or torch where it has none.

    On a GPU the verifier, if there is one, judges in the draft's step; on the CPU it is asked by itself.

    Raises:
        EngineUnavailable: There are no graphs, and no torch.
    """
    if _runs_as_graphs(ears, draft, device):
        return OnnxDraftRunner(ears, draft, tokenizer, max_slots=max_slots)
    return TorchDraftRunner(ears, draft, tokenizer, device=device, max_slots=max_slots, verifier=verifier)


@contextlib.asynccontextmanager
async def open_fast(
    path: FastPathName, device: Device, models_dir: Path | None, *, max_slots: int
) -> AsyncIterator[tuple[DraftEngine, Verifier]]:
    """Loads the draft model and its verifier for as long as the block runs.

    Raises:
        WeightsError: Weights are missing or damaged.
        EngineUnavailable: What the models run in is missing.
    """
    found = check(path, models_dir, device)
    try:
        tokenizer = loading.locate("brain") / "tokenizer.json"
    except loading.WeightsError as error:
        raise WeightsError(str(error)) from error
    where = devices.resolve(device)
    runner = make_runner(
        found["ears"], found["draft"], tokenizer, where, max_slots=max_slots, verifier=found.get("verifier")
    )
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine(runner, name="draft", urgent=_drafts))
        verifier: Verifier = NoVerifier()
        if path == "relay":
            judge = VerifierRunner(found["verifier"])
            verifier = EngineVerifier(await stack.enter_async_context(Engine(judge, name="verifier")))
        yield engine, verifier
