"""What is measured: stage times of every reply, and the counters that `/metrics` shows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

STAGES = ("endpointing", "ears", "draft", "verify", "llm_first", "voice_first")


@dataclass(slots=True)
class StageClock:
    """Times of one reply, from the last speech sample to the first audio sent.

    `endpointing` is read on the sample clock of the input; the later stages, which follow one another, on a wall clock
    that starts when the turn's end is decided. So the stages add up to the onset as the server sees it.

    Attributes:
        speech_end_ms: Where the user's speech ended, on the session's input clock; None for a reply to text.
        decided_ms: How much input had been received when that was decided.
        stages_ms: Time taken by each stage that ran.
    """

    speech_end_ms: float | None = None
    decided_ms: float | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    _last_s: float = field(default_factory=time.perf_counter)

    @classmethod
    def at_turn_end(cls, speech_end_ms: float, decided_ms: float) -> StageClock:
        """Starts the clock when the end of the user's turn is decided."""
        return cls(speech_end_ms, decided_ms, {"endpointing": decided_ms - speech_end_ms})

    def lap(self, stage: str) -> None:
        """The stage is done; it took the time since the one before. Only its first lap counts."""
        if stage in self.stages_ms:
            return
        now_s = time.perf_counter()
        self.stages_ms[stage] = (now_s - self._last_s) * 1000.0
        self._last_s = now_s

    def report(self, *, path: str, heard: bool = True) -> dict[str, object]:
        """The fields of the `relay.metrics` event; a reply of which nothing is heard has stages, and no onset."""
        return {
            "path": path,
            "onset_ms": round(sum(self.stages_ms.values()), 3) if heard else None,
            "speech_end_ms": self.speech_end_ms,
            "decided_ms": self.decided_ms,
            "stages_ms": {stage: round(ms, 3) for stage, ms in self.stages_ms.items()},
        }


class Metrics:
    """The server's counters, in a registry of its own so that two servers can live in one process.

    Args:
        shared_dir: Folder in which all processes of one server keep theirs (prometheus_client's multiprocess mode);
            `exposition` then adds them up. None: this process is all there is.
    """

    def __init__(self, shared_dir: Path | None = None) -> None:
        self._shared_dir = shared_dir
        self.registry = CollectorRegistry()
        buckets = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
        self.tasks = Gauge("relay_tasks", "asyncio tasks alive.", registry=self.registry, multiprocess_mode="livesum")
        self.sessions = Gauge(
            "relay_sessions", "Sessions open now.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.sessions_total = Counter("relay_sessions_opened", "Sessions opened.", registry=self.registry)
        self.refused = Counter("relay_refused", "Connections refused.", ["reason"], registry=self.registry)
        self.load = Gauge(
            "relay_load",
            "Part of its time that an engine, or the event loop with the sockets, is used; callers are refused near 1.",
            ["part"],
            registry=self.registry,
            multiprocess_mode="livemostrecent",
        )
        self._steps = Counter("relay_steps", "Steps of each part (see relay_load).", ["part"], registry=self.registry)
        self._step_seconds = Counter(
            "relay_step_seconds", "Time that steps of each part took.", ["part"], registry=self.registry
        )
        self._stepped: dict[str, tuple[int, float]] = {}
        self.device_memory = Gauge(
            "relay_device_memory_bytes",
            "GPU memory that the models and their state take; 0 without a GPU.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.errors = Counter("relay_errors", "Errors shown to clients.", ["code"], registry=self.registry)
        self.replies = Counter("relay_replies", "Replies by how they ended.", ["status"], registry=self.registry)
        self.barge_ins = Counter("relay_barge_ins", "Replies stopped by the user's voice.", registry=self.registry)
        self.backchannels = Counter(
            "relay_backchannels", "What was said under a reply and did not stop it.", registry=self.registry
        )
        self.speculations = Counter(
            "relay_speculations",
            "Replies prepared before the turn's end was certain: committed, stale (something else was to be answered, "
            "or it failed), or continued (the user spoke on).",
            ["outcome"],
            registry=self.registry,
        )
        self.drafts = Counter(
            "relay_drafts",
            "Drafts by what became of them: committed, late (the brain was sooner), doubtful, empty or failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.audio_in = Counter("relay_audio_in_seconds", "Audio received.", registry=self.registry)
        self.audio_out = Counter("relay_audio_out_seconds", "Audio sent.", registry=self.registry)
        self.denoiser_delay = Gauge(
            "relay_noise_suppression_delay_seconds",
            "By how much partial transcripts are later where a session asks for noise reduction; 0 without a model.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.onset = Histogram(
            "relay_onset_seconds",
            "Last speech sample received to first audio sent.",
            registry=self.registry,
            buckets=buckets,
        )
        self.stages = Histogram(
            "relay_stage_seconds", "Time of each stage.", ["stage"], registry=self.registry, buckets=buckets
        )

    def observe(self, clock: StageClock) -> None:
        """Counts a reply that was heard."""
        self.onset.observe(sum(clock.stages_ms.values()) / 1000.0)
        for stage, ms in clock.stages_ms.items():
            self.stages.labels(stage).observe(ms / 1000.0)

    def stepped(self, part: str, steps: int, seconds: float) -> None:
        """There have been so many steps of a part, ever, and they took so long."""
        steps_before, seconds_before = self._stepped.get(part, (0, 0.0))
        self._steps.labels(part).inc(steps - steps_before)
        self._step_seconds.labels(part).inc(max(seconds - seconds_before, 0.0))  # not below 0 by rounding
        self._stepped[part] = steps, seconds

    def exposition(self) -> bytes:
        """All counters in Prometheus' text format."""
        if self._shared_dir is None:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._shared_dir))  # type: ignore[no-untyped-call]
        return generate_latest(registry)
