"""Which brain answers, by the server's settings."""

from __future__ import annotations

from relay.brains import Brain
from relay.brains.delayed import DelayedBrain
from relay.config import ServerConfig
from relay.engine.device import resolve


def make(config: ServerConfig) -> Brain:
    """The language model server at `llm_url`, or the embedded model when there is none; slowed if that is asked for."""
    brain = _make(config)
    return DelayedBrain(brain, config.brain_delay_ms / 1000) if config.brain_delay_ms else brain


def _make(config: ServerConfig) -> Brain:
    if config.llm_url is not None:
        from relay.brains.openai_chat import OpenAIChatBrain

        return OpenAIChatBrain(config.llm_url, model=config.llm_model, api_key=config.llm_api_key)
    from relay.brains.embedded import EmbeddedBrain

    return EmbeddedBrain(device=resolve(config.device))
