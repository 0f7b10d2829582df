"""What all sessions share, and what a session is given of the outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from relay.audio import Format, Int16Array
from relay.brains import Brain
from relay.config import Limits, Path_
from relay.engine.draft import DraftEngine, Verifier
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.engine import Steps
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.metrics import Metrics

Sender: TypeAlias = Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class Fast:
    """The fast path.

    Attributes:
        engine: The draft model.
        verifier: Judges its drafts.
        path: `relay` hands off to the brain, `draft` lets the draft model answer alone. A session may ask for another.
    """

    engine: DraftEngine
    verifier: Verifier
    path: Literal["relay", "draft"] = "relay"

    @property
    def paths(self) -> tuple[Path_, ...]:
        """What a session may ask for, the server's own first: without a verifier nothing can be handed off."""
        return ("relay", "cascade", "draft") if self.path == "relay" else ("draft", "cascade")


@dataclass(frozen=True, slots=True)
class Services:
    """What all sessions share.

    Attributes:
        ears: The recogniser.
        voice: The voice.
        brain: The language model.
        metrics: Counters.
        limits: What one client may ask.
        denoiser: Noise suppression, where there is one.
        speculate: Whether replies are prepared while the end of a turn is only likely.
        fast: The fast path; None: every reply is the brain's.
    """

    ears: Steps[EarsInput, EarsOutput]
    voice: Steps[VoiceInput, VoiceOutput]
    brain: Brain
    metrics: Metrics
    limits: Limits
    denoiser: Steps[EarsInput, Int16Array] | None = None
    speculate: bool = True
    fast: Fast | None = None

    @property
    def paths(self) -> tuple[Path_, ...]:
        """How replies can be made here, the server's own way first."""
        return ("cascade",) if self.fast is None else self.fast.paths


class Transport(Protocol):
    """A connection as a session sees it: whole messages, in order."""

    async def receive(self) -> str | bytes | None:
        """The next message; None when the client has left."""
        ...

    async def send(self, frame: str | bytes) -> None:
        """Sends a message; waits while the client does not read."""
        ...


class Recorder(Protocol):
    """Keeps what a session hears and says."""

    def heard(self, samples: int, pcm: bytes) -> None:
        """Audio from the client, as it came; `samples` is where it begins on the session's input clock."""
        ...

    def said(self, samples: int, pcm: bytes, form: Format) -> None:
        """Audio to the client; `samples` is the input clock when it was sent."""
        ...

    def event(self, frame: str, sender: Sender) -> None:
        """A text frame to or from the client."""
        ...
