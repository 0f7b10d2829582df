"""The models that sessions are held with, by the server's settings: in this process, or in others."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.audio import EARS_RATE_HZ
from relay.brains import Brain
from relay.brains import catalog as brains
from relay.config import ServerConfig
from relay.engine import catalog
from relay.engine import device as devices
from relay.engine.catalog import EarsOptions
from relay.engine.denoise import DenoiseRunner
from relay.engine.ears import EarsInput
from relay.engine.engine import Engine, Steps
from relay.engine.fast import NoVerifier, insisted, open_fast, why_cascade
from relay.engine.load import Load
from relay.engine.remote import Links
from relay.engine.verifier import EngineVerifier
from relay.engine.voice import VoiceInput
from relay.errors import EngineUnavailable, WeightsError
from relay.metrics import Metrics
from relay.services import Fast, Services

log = logging.getLogger(__name__)

PARTS = ("ears", "voice", "brain", "draft")
"""What can have a process of its own: noise suppression goes with the ears, the verifier with the draft model."""
_LABELS = {"denoise": "noise suppression", "draft": "draft model"}
# Sessions beyond these are answered by the cascade. On the CPU each, quiet or not, takes 9 to 12 ms of every 160 ms
# of the one core that steps the draft model: with more it would fall behind, and nobody else be let in. On a GPU a row
# of state costs 2 MB, used or not.
_FAST_SESSIONS: dict[str, int] = {"cpu": 8, "cuda": 512}


@dataclass(frozen=True, slots=True)
class Started:
    """What runs in this process.

    Attributes:
        engines: By their names in `relay.engine.remote_wire.KINDS`.
        capacity: How many sessions they are for; 0: they set no bound.
        brain: What answers, where it is one of the parts.
        fast: The fast path, where it is one of the parts and can run.
        denoiser_delay_s: By how much noise suppression is late.
    """

    engines: Mapping[str, Steps[Any, Any]]
    capacity: int = 0
    brain: Brain | None = None
    fast: Fast | None = None
    denoiser_delay_s: float = 0.0

    @property
    def loads(self) -> dict[str, Load]:
        """What the engines' steps took, by what people call them."""
        return {label(name): each.load for name, each in self.engines.items() if isinstance(each, Engine)}


@dataclass(frozen=True, slots=True)
class Models:
    """What is loaded.

    Attributes:
        services: The engines, and what else sessions share.
        capacity: How many sessions they are for.
        denoiser_delay_s: By how much noise suppression is late.
        loads: Of the engines that run here, by name.
    """

    services: Services
    capacity: int
    denoiser_delay_s: float = 0.0
    loads: Mapping[str, Load] = field(default_factory=dict)


def groups(config: ServerConfig) -> list[tuple[str, ...]]:
    """Which parts there are, and which of them share a process: for `--gateways`."""
    absent = {"brain"} if config.llm_url is not None else set()
    absent |= {"draft"} if config.path == "cascade" else set()
    parts = tuple(part for part in PARTS if part not in absent)
    return [parts] if config.engine_processes == "one" else [(part,) for part in parts]


def label(name: str) -> str:
    """What people are told of an engine."""
    return _LABELS.get(name, name)


async def start(config: ServerConfig, parts: Collection[str], stack: contextlib.AsyncExitStack) -> Started:
    """Runs the engines of some of `PARTS` here, until the stack is closed.

    Raises:
        EngineUnavailable, WeightsError: A model cannot run here.
    """
    engines: dict[str, Steps[Any, Any]] = {}
    asked = EarsOptions(lookahead_ms=config.lookahead_ms, device=config.device)
    ears_runner = catalog.ears(config.ears, asked, models_dir=config.models_dir) if "ears" in parts else None
    voice_runner = catalog.voice(config.voice, device=config.device) if "voice" in parts else None
    brain, fast, capacity, delay_s = None, None, 0, 0.0
    if "brain" in parts:
        brain = await stack.enter_async_context(brains.make(config))
        if (embedded := brains.engine_of(brain)) is not None:
            engines["brain"] = embedded
    if ears_runner is not None:
        capacity = min(config.max_sessions or ears_runner.max_slots, ears_runner.max_slots)
        engines["ears"] = await stack.enter_async_context(Engine(ears_runner, name="ears", urgent=_ends_turn))
        if config.noise_suppression is not None:
            denoise_runner = DenoiseRunner(config.noise_suppression, max_slots=ears_runner.max_slots)
            denoiser = Engine(denoise_runner, name="denoise", urgent=_ends_turn)
            engines["denoise"] = await stack.enter_async_context(denoiser)
            delay_s = denoise_runner.delay_samples / EARS_RATE_HZ
    if voice_runner is not None:
        engines["voice"] = await stack.enter_async_context(Engine(voice_runner, name="voice", urgent=_begins_reply))
    if "draft" in parts and (fast := await _fast(config, stack)) is not None:
        engines["draft"] = fast.engine
        if isinstance(fast.verifier, EngineVerifier):
            engines["verifier"] = fast.verifier.engine
    return Started(engines, capacity, brain, fast, delay_s)


async def _fast(config: ServerConfig, stack: contextlib.AsyncExitStack) -> Fast | None:
    """The fast path; None on the cascade, and where nobody asked for a path and its models cannot be loaded.

    Raises:
        EngineUnavailable, WeightsError: They cannot be loaded, and the path was asked for.
    """
    if config.path == "cascade":
        return None
    path = config.path or "relay"
    sessions = _FAST_SESSIONS[devices.resolve(config.device)]
    try:
        opened = open_fast(path, config.device, config.models_dir, max_slots=sessions)
        return Fast(*await stack.enter_async_context(opened), path)
    except (EngineUnavailable, WeightsError) as error:
        if config.path is not None:
            raise insisted(error) from error
        log.warning("%s", why_cascade(error))
        return None


async def load(config: ServerConfig, metrics: Metrics, stack: contextlib.AsyncExitStack) -> Models:
    """All models, loaded here, until the stack is closed.

    Raises:
        EngineUnavailable, WeightsError: A model cannot run here.
    """
    started = await start(config, PARTS, stack)
    assert started.brain is not None
    engines = started.engines
    services = Services(
        engines["ears"],
        engines["voice"],
        started.brain,
        metrics,
        config.limits,
        engines.get("denoise"),
        speculate=config.speculates,
        fast=started.fast,
    )
    return Models(services, started.capacity, started.denoiser_delay_s, started.loads)


async def reach(config: ServerConfig, links: Links, metrics: Metrics, stack: contextlib.AsyncExitStack) -> Models:
    """The models of other processes; a language model server is asked from here.

    Raises:
        WeightsError: The embedded brain's vocabulary is missing.
    """
    names = links.names
    brain: Brain = brains.make(config, links.engine("brain") if "brain" in names else None)
    await stack.enter_async_context(brain)
    denoiser = links.engine("denoise") if "denoise" in names else None
    fast = None
    if "draft" in names:
        judged = "verifier" in names
        verifier = EngineVerifier(links.engine("verifier")) if judged else NoVerifier()
        fast = Fast(links.engine("draft"), verifier, "relay" if judged else "draft")
    ears, voice = links.engine("ears"), links.engine("voice")
    services = Services(ears, voice, brain, metrics, config.limits, denoiser, speculate=config.speculates, fast=fast)
    welcome = links.server.welcome
    return Models(services, welcome.capacity, welcome.denoiser_delay_s)


def _ends_turn(x: EarsInput, first: bool) -> bool:
    """The user has finished: nothing is heard until the words are there."""
    return x.final


def _begins_reply(x: VoiceInput, first: bool) -> bool:
    """A voice's slot speaks one reply: its first step makes the first words."""
    return first


def keep_for_good() -> None:
    """What is there now lives as long as the process; to be called once all is loaded.

    Collections of garbage skip it from then on. They would go through dictionaries and modules again and again, 0.1 s
    with torch, in which no thread of the process goes on.
    """
    gc.collect()
    gc.freeze()
