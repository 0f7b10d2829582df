"""Settings of the server: frozen data, validated once. The command line and the environment are read in `relay.cli`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from relay.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Path_ = Literal["relay", "cascade", "draft"]
EngineProcesses = Literal["each", "one"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of the server.

    Attributes:
        max_frame_bytes: Largest websocket message; a larger one closes the connection with 1009.
        max_audio_ahead_s: How much more audio than real time a client may have sent; beyond it: close 1008.
        max_utterance_s: A turn is ended when it gets this long.
        send_timeout_s: How long one message may wait to be sent; beyond it: close 1008. Meanwhile the client is not
            read either, so that little piles up for it.
        playout_lead_s: How far the audio sent may run ahead of the audio played.
    """

    max_frame_bytes: int = 4 * 1024 * 1024
    max_audio_ahead_s: float = 60.0
    max_utterance_s: float = 60.0
    send_timeout_s: float = 15.0
    playout_lead_s: float = 2.0


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything `relay serve` can be told.

    Attributes:
        host: Address to listen on; loopback unless asked otherwise.
        port: Port; 0 picks a free one.
        device: Where models run.
        max_sessions: Sessions admitted at once; None: as many as the engines have slots for.
        max_load_percent: Part of its time that any engine may be used before newcomers are refused; 0: never refuse.
        api_key: Clients must present it when it is set.
        tls_cert: PEM certificate chain; with `tls_key`, the server speaks TLS.
        tls_key: PEM private key.
        llm_url: Base URL of an OpenAI-compatible language model server; None: the embedded model.
        llm_model: Model name to ask it for.
        llm_api_key: Key for it.
        brain_delay_ms: For measurements: every reply of the language model begins so much later.
        ears: Recogniser engine by name, or folder with a checkpoint.
        lookahead_ms: Audio that the recogniser may wait for; None: its own choice.
        models_dir: Where models of the user's own are; None: there are none.
        voice: Voice engine by name.
        path: How replies are made: `cascade` by the language model alone; `relay` begins them with what the draft model
            says at once, where the verifier agrees; `draft` lets the draft model answer alone. None: `relay` where its
            models can be loaded, else `cascade`; one that is named and cannot run keeps the server from starting.
        speculate: Whether replies are prepared while the end of a turn is only likely; None: with the embedded model,
            but not with a server at `llm_url`, where tokens that come to nothing may cost money.
        gateways: Processes that hold sockets and sessions, before those that run the models; 0: one process for all.
        engine_processes: Behind gateways: a process for each of ears, voice, language and draft model, or one for all.
        record_dir: Where sessions are recorded; None: nowhere.
        noise_suppression: DPDFNet ONNX file for the sessions that ask for noise reduction; None: they go without.
        limits: See `Limits`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    device: Device = "auto"
    max_sessions: int | None = None
    max_load_percent: int = 80
    api_key: str | None = field(default=None, repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    llm_url: str | None = None
    llm_model: str | None = None
    llm_api_key: str | None = field(default=None, repr=False)
    brain_delay_ms: int = 0
    ears: str = "auto"
    lookahead_ms: int | None = None
    models_dir: Path | None = None
    voice: str = "auto"
    path: Path_ | None = None
    speculate: bool | None = None
    gateways: int = 0
    engine_processes: EngineProcesses = "each"
    record_dir: Path | None = None
    noise_suppression: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Raises ConfigError for a value that cannot work, saying what to do."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port} is not a port; choose 0 to 65535")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together; give both or neither")
        if self.llm_url is not None and not self.llm_url.startswith(("http://", "https://")):
            raise ConfigError(f"--llm-url {self.llm_url!r} must begin with http:// or https://")
        if self.llm_url is None and self.llm_model is not None:
            raise ConfigError("--llm-model needs --llm-url; without a URL the embedded model answers")
        if self.max_sessions is not None and self.max_sessions < 1:
            raise ConfigError("--max-sessions must be at least 1")
        if not 0 <= self.max_load_percent <= 100:
            raise ConfigError("--max-load-percent must be 0 to 100; 0 refuses nobody for want of time")
        if not 0 <= self.gateways <= 64:
            raise ConfigError("--gateways must be 0 to 64; a core of its own for each is plenty")
        if self.lookahead_ms is not None and self.lookahead_ms < 0:
            raise ConfigError("--lookahead-ms must be at least 0")
        if self.brain_delay_ms < 0:
            raise ConfigError("--brain-delay-ms must be at least 0")

    @property
    def speculates(self) -> bool:
        """Whether replies are prepared early."""
        return self.llm_url is None if self.speculate is None else self.speculate

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
