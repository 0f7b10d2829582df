"""Scripted users for looking at what the embedded language model says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from relay_models.decoder import Decoder
from relay_models.tokenizer import ChatTokenizer

SCRIPTS = tuple(
    tuple(line.split(" / "))
    for line in (Path(__file__).parent / "brain_scripts.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)
"""What the user says, turn by turn."""


@torch.no_grad()
def converse(
    model: Decoder,
    tokenizer: ChatTokenizer,
    users: Sequence[str],
    *,
    seed: int,
    temperature: float = 0.7,
    top_p: float = 0.9,
) -> str:
    """A dialogue with a scripted user, as lines of text."""
    device = model.model.embed_tokens.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    state = model.fresh_state(1)
    lines = []
    for text in users:
        tokens = [*tokenizer.turn("user", text), tokenizer.assistant]
        reply: list[int] = []
        while len(reply) < 60 and int(state["lengths"]) + len(tokens) < model.config.max_position_embeddings:
            logits, state = model.step(
                torch.tensor([tokens], device=device), state, torch.tensor([len(tokens)], device=device)
            )
            probabilities, order = (logits[0].float() / temperature).softmax(0).sort(descending=True)
            probabilities[probabilities.cumsum(0) - probabilities > top_p] = 0
            token = int(order[torch.multinomial(probabilities, 1, generator=generator)])
            tokens = [token]
            if token == tokenizer.end:
                break
            reply.append(token)
        if tokens != [tokenizer.end]:
            tokens = [tokenizer.end]
        model.step(torch.tensor([tokens], device=device), state, torch.tensor([1], device=device))
        lines += [f"  user: {text}", f"  relay: {tokenizer.decode(reply)}"]
    return "\n".join([*lines, ""])
