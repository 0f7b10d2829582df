"""What stages say to each other: plain frozen data with a turn id and positions on the sample clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation as the language model sees it."""

    role: Role
    text: str
