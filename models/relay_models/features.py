"""Log-mel features, for whole recordings and for streams.

The front end of NVIDIA NeMo's recognisers (and of transformers' `nemotron_asr_streaming`): pre-emphasis, a 25 ms Hann
window every 10 ms centred on its frame, power spectrum of 512 points, Slaney's mel scale with filters of equal area
(Slaney 1998, Auditory Toolbox), natural logarithm with a small guard. Nothing is normalised, so that a frame depends
on its own 25 ms alone and a stream gives the very features of the whole recording.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.framing import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from relay_models.state import StreamState, valid_positions, write_rows

FFT_SAMPLES = 512
HALF_WINDOW_SAMPLES = WINDOW_SAMPLES // 2
OVERLAP_SAMPLES = WINDOW_SAMPLES - HOP_SAMPLES


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """Settings of the front end.

    Attributes:
        mel_bins: Number of mel filters.
        preemphasis: Share of the previous sample that is taken off; 0 for none.
        log_guard: Added before the logarithm.
        offset, scale: A feature is (logarithm + offset) * scale, the same for all bins and all time.
        constants: Type that filters and window are rounded to (`bfloat16` for checkpoints trained on rounded ones).
    """

    mel_bins: int = 80
    preemphasis: float = 0.97
    log_guard: float = 2.0**-24
    offset: float = 0.0
    scale: float = 1.0
    constants: str = "float32"


def mel_filters(mel_bins: int) -> Tensor:
    """Triangular filters of equal area on Slaney's scale, 0 to 8000 Hz: [FFT_SAMPLES / 2 + 1, mel_bins] float32.

    The scale is linear up to 1000 Hz (66.7 Hz a mel), then logarithmic (a factor 6.4 every 27 mels).
    """
    break_hz, break_mel, log_step = 1000.0, 15.0, math.log(6.4) / 27
    top_mel = break_mel + math.log(SAMPLE_RATE_HZ / 2 / break_hz) / log_step
    mels = torch.linspace(0, top_mel, mel_bins + 2, dtype=torch.float64)
    linear, exponential = mels * break_hz / break_mel, break_hz * torch.exp(log_step * (mels - break_mel))
    edges = torch.where(mels < break_mel, linear, exponential)
    bins = torch.linspace(0, SAMPLE_RATE_HZ / 2, FFT_SAMPLES // 2 + 1, dtype=torch.float64)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


class LogMel(nn.Module):
    """PCM -> log-mel frames. Computes in float32 whatever the surrounding autocast; has no parameters.

    Args:
        config: Settings.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        for name, constant in self._constants().items():
            self.register_buffer(name, constant, persistent=False)

    def _constants(self) -> dict[str, Tensor]:
        """Window and filters, float32."""
        dtype = getattr(torch, self.config.constants)
        window = torch.hann_window(WINDOW_SAMPLES, periodic=False)
        return {"window": window.to(dtype).float(), "filters": mel_filters(self.config.mel_bins).to(dtype).float()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves with the model it is part of, but stays float32 when that is turned into bfloat16."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, constant in self._constants().items():
            setattr(self, name, constant.to(getattr(self, name).device))
        return self

    def forward(self, pcm: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of whole recordings.

        Args:
            pcm: [batch, samples] at 16 kHz, floating, full scale 1; padded at the end by anything.
            lengths: [batch] int64, samples of each recording.

        Returns:
            Features [batch, frames, mel_bins] float32, zero behind each recording's end, and frame counts [batch] =
            lengths // 160. Frame t is the window centred on sample 160 t; what lies outside the recording is silence.
        """
        counts = lengths // HOP_SAMPLES
        frames = pcm.shape[1] // HOP_SAMPLES
        emphasised = self._emphasise(functional.pad(pcm.float(), (1, 0)), lengths)
        padded = functional.pad(emphasised, (HALF_WINDOW_SAMPLES, HALF_WINDOW_SAMPLES))
        # At least one window, of which a recording of less than a hop then keeps none.
        features = self._log_mel(padded[:, : max(frames, 1) * HOP_SAMPLES + OVERLAP_SAMPLES])[:, :frames]
        return features * valid_positions(counts, frames)[:, :, None], counts

    def fresh_tensors(self, rows: int) -> dict[str, Tensor]:
        """State buffers for `rows` streams: the samples that the next window still covers."""
        device = self.window.device
        return {
            "features.overlap": torch.zeros(rows, OVERLAP_SAMPLES, device=device),
            "features.last": torch.zeros(rows, 1, device=device),
        }

    def step(
        self, pcm: Tensor, state: StreamState, active: Tensor, counts: Tensor | None = None
    ) -> tuple[Tensor, StreamState]:
        """Features of a stream, hop by hop: n hops in, n frames out.

        Each frame is the window that ends with its hop. A stream that is fed LEAD_SAMPLES zeros before its recording
        gives the recording's frames -1, 0, 1 ...; frame -1 is of no use.

        Args:
            pcm: [rows, n * 160] floating, full scale 1.
            state: Holds `fresh_tensors`; advanced in place.
            active: [rows] bool; other rows keep their state and give frames of no meaning.
            counts: [rows] int64, samples before the stream's end; the rest is silence. All of them when None.

        Returns:
            [rows, n, mel_bins] float32 and the state.
        """
        if counts is None:
            counts = torch.full_like(active, pcm.shape[1], dtype=torch.int64)
        samples = torch.cat((state["features.last"], pcm.float()), dim=1)
        emphasised = torch.cat((state["features.overlap"], self._emphasise(samples, counts)), dim=1)
        write_rows(state["features.overlap"], emphasised[:, -OVERLAP_SAMPLES:], active)
        write_rows(state["features.last"], samples[:, -1:], active)
        return self._log_mel(emphasised), state

    def _emphasise(self, samples: Tensor, counts: Tensor) -> Tensor:
        """[rows, 1 + n], the first one being the sample before -> [rows, n], zero from each row's count on."""
        emphasised = samples[:, 1:] - self.config.preemphasis * samples[:, :-1]
        return emphasised * valid_positions(counts, emphasised.shape[1])

    def _log_mel(self, samples: Tensor) -> Tensor:
        """[rows, n * 160 + 240] -> [rows, n, mel_bins]."""
        with torch.autocast(samples.device.type, enabled=False):
            windows = samples.unfold(1, WINDOW_SAMPLES, HOP_SAMPLES) * self.window
            spectrum = torch.view_as_real(torch.fft.rfft(windows, FFT_SAMPLES))
            mel = spectrum.square().sum(-1) @ self.filters
            return (torch.log(mel + self.config.log_guard) + self.config.offset) * self.config.scale
