"""What the vocoder is trained against: discriminators, and distances between spectra.

Discriminators over periods (HiFi-GAN, Kong et al. 2020, arXiv 2010.05646, section 2.3) and over spectrograms of
several resolutions (UnivNet, Jang et al. 2021, arXiv 2106.07889), hinge losses and feature matching as in Vocos (arXiv
2306.00814, section 3.3), log-mel distances at several resolutions (Kumar et al. 2023, arXiv 2306.06546, section 3.4).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from relay_models.training.voice_features import mel_filters

PERIODS = (2, 3, 5, 7, 11)
RESOLUTIONS = ((1024, 256), (2048, 512), (512, 128))
"""Window and hop of each spectrogram that is judged, in samples."""
MEL_RESOLUTIONS = ((2048, 160), (1024, 80), (512, 40), (256, 20))
"""Window in samples (the hop is a quarter of it) and mel filters of each distance."""
_SLOPE = 0.1
_GUARD = 1e-4


class PeriodJudge(nn.Module):
    """Looks at every p-th sample.

    Args:
        period: p.
        channels: Of the first layer; later ones have up to 16 times as many.
    """

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        sizes = (1, channels, 4 * channels, 8 * channels, 16 * channels)
        self.layers = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in pairwise(sizes))
        self.layers.append(weight_norm(nn.Conv2d(sizes[-1], sizes[-1], (5, 1), 1, (2, 0))))
        self.verdict = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """[rows, samples] -> feature maps, the verdict last."""
        missing = -audio.shape[1] % self.period
        x = functional.pad(audio[:, None], (0, missing), mode="reflect") if missing else audio[:, None]
        x = x.unflatten(2, (-1, self.period))
        return _through(self.layers, self.verdict, x)


class SpectrumJudge(nn.Module):
    """Looks at a complex spectrogram.

    Args:
        window, hop: In samples.
        channels: Of its layers.
    """

    shape: Tensor

    def __init__(self, window: int, hop: int, channels: int) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        self.register_buffer("shape", torch.hann_window(window), persistent=False)
        kinds = (((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1)))
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(channels if n else 2, channels, kernel, stride, (kernel[0] // 2, kernel[1] // 2)))
            for n, (kernel, stride) in enumerate(kinds)
        )
        self.verdict = weight_norm(nn.Conv2d(channels, 1, (3, 3), 1, (1, 1)))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """[rows, samples] -> feature maps, the verdict last."""
        with torch.autocast(audio.device.type, enabled=False):
            frames = audio.float().unfold(1, self.window, self.hop) * self.shape
            spectrum = torch.view_as_real(torch.fft.rfft(frames, norm="ortho")).permute(0, 3, 1, 2)
        return _through(self.layers, self.verdict, spectrum)


def _through(layers: nn.ModuleList, verdict: nn.Module, x: Tensor) -> list[Tensor]:
    maps = []
    for layer in layers:
        x = functional.leaky_relu(layer(x), _SLOPE)
        maps.append(x)
    return [*maps, verdict(x)]


class Adversary(nn.Module):
    """All judges.

    Args:
        channels: Channels of the judges over periods (first layer) and, twice as many, of those over spectrograms.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [PeriodJudge(period, channels) for period in PERIODS]
            + [SpectrumJudge(window, hop, 2 * channels) for window, hop in RESOLUTIONS]
        )

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """[rows, samples] -> each judge's feature maps, the verdict last."""
        return [judge(audio) for judge in self.judges]


def judging_loss(maps: list[list[Tensor]]) -> Tensor:
    """What the judges learn by: verdicts above 1 on what is real and below -1 on what is made.

    Args:
        maps: Of as many rows that are real, first, as of rows that are made.
    """
    losses = []
    for *_, verdict in maps:
        real, made = verdict.float().chunk(2)
        losses.append(functional.relu(1 - real).mean() + functional.relu(1 + made).mean())
    return torch.stack(losses).mean()


def pleasing_losses(real: list[list[Tensor]], made: list[list[Tensor]]) -> dict[str, Tensor]:
    """What the vocoder learns by: good verdicts (`adversarial`), and like feature maps (`matching`)."""
    verdicts = [functional.relu(1 - maps[-1].float()).mean() for maps in made]
    distances = [
        (a.detach().float() - b.float()).abs().mean() / a.detach().float().abs().mean().clamp(min=1e-3)
        for maps, others in zip(real, made, strict=True)
        for a, b in zip(maps[:-1], others[:-1], strict=True)
    ]
    return {"adversarial": torch.stack(verdicts).mean(), "matching": torch.stack(distances).mean()}


def spectral_distance(real: Tensor, made: Tensor) -> Tensor:
    """Mean distance of log-mel spectra over several resolutions, in nepers: audio [rows, samples] both."""
    distances = []
    for window, bins in MEL_RESOLUTIONS:
        filters = mel_filters(bins, window, real.device)
        shape = torch.hann_window(window, device=real.device)
        one, other = (
            ((torch.fft.rfft(audio.float().unfold(1, window, window // 4) * shape).abs() @ filters) + _GUARD).log()
            for audio in (real, made)
        )
        distances.append((one - other).abs().mean())
    return torch.stack(distances).mean()
