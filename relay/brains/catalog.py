"""Which brain answers, by the server's settings."""

from __future__ import annotations

from relay.brains import Brain
from relay.brains.delayed import DelayedBrain
from relay.config import ServerConfig
from relay.engine.brain import BrainInput, BrainOutput
from relay.engine.device import resolve
from relay.engine.engine import Steps


def make(config: ServerConfig, engine: Steps[BrainInput, BrainOutput] | None = None) -> Brain:
    """The language model server at `llm_url`, or the embedded model when there is none; slowed if that is asked for.

    Args:
        config: The server's settings.
        engine: Where the embedded model runs already; None: it is loaded here.
    """
    brain = _make(config, engine)
    return DelayedBrain(brain, config.brain_delay_ms / 1000) if config.brain_delay_ms else brain


def engine_of(brain: Brain) -> Steps[BrainInput, BrainOutput] | None:
    """The engine of an embedded brain that was entered; None for any other brain."""
    if isinstance(brain, DelayedBrain):
        return engine_of(brain.brain)
    from relay.brains.embedded import EmbeddedBrain

    return brain.engine if isinstance(brain, EmbeddedBrain) else None


def _make(config: ServerConfig, engine: Steps[BrainInput, BrainOutput] | None) -> Brain:
    if config.llm_url is not None:
        from relay.brains.openai_chat import OpenAIChatBrain

        return OpenAIChatBrain(config.llm_url, model=config.llm_model, api_key=config.llm_api_key)
    from relay.brains.embedded import EmbeddedBrain

    if engine is not None:
        return EmbeddedBrain(engine=engine)
    return EmbeddedBrain(device=resolve(config.device))
