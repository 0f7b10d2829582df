"""The models that sessions are held with, by the server's settings: in this process, or in an engine process."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.audio import EARS_RATE_HZ
from relay.brains import Brain
from relay.brains import catalog as brains
from relay.config import ServerConfig
from relay.engine import catalog
from relay.engine import device as devices
from relay.engine.catalog import EarsOptions
from relay.engine.denoise import DenoiseRunner
from relay.engine.ears import EarsInput
from relay.engine.engine import Engine
from relay.engine.fast import NoVerifier, open_fast
from relay.engine.load import Load
from relay.engine.remote import EngineLink
from relay.engine.verifier import EngineVerifier
from relay.engine.voice import VoiceInput
from relay.metrics import Metrics
from relay.services import Fast, Services

# Sessions beyond these are answered by the cascade: a row of state costs 2 MB, used or not.
_FAST_SESSIONS: dict[str, int] = {"cpu": 64, "cuda": 512}


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


async def load(config: ServerConfig, metrics: Metrics, stack: contextlib.AsyncExitStack) -> Models:
    """Loads the models here, until the stack is closed.

    Raises:
        EngineUnavailable, WeightsError: A model cannot run here.
    """
    asked = EarsOptions(lookahead_ms=config.lookahead_ms, device=config.device)
    ears_runner = catalog.ears(config.ears, asked, models_dir=config.models_dir)
    voice_runner = catalog.voice(config.voice, device=config.device)
    brain = await stack.enter_async_context(brains.make(config))
    ears = await stack.enter_async_context(Engine(ears_runner, name="ears", urgent=_ends_turn))
    voice = await stack.enter_async_context(Engine(voice_runner, name="voice", urgent=_begins_reply))
    denoiser, delay_s = None, 0.0
    if config.noise_suppression is not None:
        denoise_runner = DenoiseRunner(config.noise_suppression, max_slots=ears_runner.max_slots)
        denoiser = await stack.enter_async_context(Engine(denoise_runner, name="denoise", urgent=_ends_turn))
        delay_s = denoise_runner.delay_samples / EARS_RATE_HZ
    fast = None
    if config.path != "cascade":
        sessions = _FAST_SESSIONS[devices.resolve(config.device)]
        opened = open_fast(config.path, config.device, config.models_dir, max_slots=sessions)
        fast = Fast(*await stack.enter_async_context(opened), config.path)
    services = Services(ears, voice, brain, metrics, config.limits, denoiser, speculate=config.speculates, fast=fast)
    engines = {
        "ears": ears,
        "voice": voice,
        "brain": brains.engine_of(brain),
        "noise suppression": denoiser,
        "draft model": None if fast is None else fast.engine,
    }
    loads = {name: engine.load for name, engine in engines.items() if isinstance(engine, Engine)}
    capacity = min(config.max_sessions or ears_runner.max_slots, ears_runner.max_slots)
    return Models(services, capacity, delay_s, loads)


async def reach(config: ServerConfig, link: EngineLink, metrics: Metrics, stack: contextlib.AsyncExitStack) -> Models:
    """The models of an engine process; a language model server is asked from here.

    Raises:
        WeightsError: The embedded brain's vocabulary is missing.
    """
    names = link.welcome.engines
    brain: Brain = brains.make(config, link.engine("brain") if "brain" in names else None)
    await stack.enter_async_context(brain)
    denoiser = link.engine("denoise") if "denoise" in names else None
    fast = None
    if config.path != "cascade":
        verifier = EngineVerifier(link.engine("verifier")) if "verifier" in names else NoVerifier()
        fast = Fast(link.engine("draft"), verifier, config.path)
    ears, voice = link.engine("ears"), link.engine("voice")
    services = Services(ears, voice, brain, metrics, config.limits, denoiser, speculate=config.speculates, fast=fast)
    return Models(services, link.welcome.capacity, link.welcome.denoiser_delay_s)


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
