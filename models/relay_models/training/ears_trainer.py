"""One step of the ears' training, and all that it depends on.

The recipe: FastConformer (arXiv 2305.05084) in chunks, look-ahead drawn for each batch (arXiv 2312.17279). Short clean
rows first, for a model that starts on long spoilt ones stays at guessing frequent pieces; then all, more and more
spoilt. CTC alone at first, also after a middle block; then a transducer with FastEmit beside it. AdamW, bfloat16 on
CUDA, an average of the weights over the last steps, which is what is judged.

A batch, and what happens to it, is a function of seed and step, and a checkpoint holds the rest: a run that goes on
over the same shards does the very steps it would have done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from relay_models.ears import Ears
from relay_models.encoder import Stage
from relay_models.features import FeatureConfig
from relay_models.training.ears_augment import Dice, TractFrontEnd, mask_bands, restyle, spoil
from relay_models.training.ears_batches import FRAME_SAMPLES, Batch
from relay_models.training.ears_checkpoint import TrainingState, moments, restore_moments
from relay_models.training.ears_peers import Peers

TRACT_FACTORS = tuple(0.82 + 0.02 * i for i in range(20))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on, apart from data and model.

    Attributes:
        batch_s: Audio in a batch of one process, in seconds.
        learning_rate: The highest.
        warm_up: Steps up to it.
        clean_steps: Steps with short rows and without augmentation.
        ramp_steps: Steps over which augmentation grows to full strength after that.
        transducer_from: Step at which the transducer loss comes in; it grows to its weight over 500 steps.
        ctc, middle, transducer, end: Weights of the losses.
        fastemit: See `rnnt_loss`.
        weight_decay: Of matrices.
        average: Decay of the averaged weights; less in the beginning.
        clip: Largest norm of the gradient.
        rights: Look-aheads with their shares of the batches.
        seed: Of weights, batches and augmentation.
    """

    batch_s: float = 1440.0
    learning_rate: float = 8e-4
    warm_up: int = 600
    clean_steps: int = 700
    ramp_steps: int = 1200
    transducer_from: int = 1000
    ctc: float = 0.6
    middle: float = 0.25
    transducer: float = 0.6
    end: float = 0.1
    fastemit: float = 5e-3
    weight_decay: float = 0.02
    average: float = 0.9985
    clip: float = 1.0
    rights: Mapping[int, float] = field(default_factory=lambda: {0: 0.2, 1: 0.3, 6: 0.25, 13: 0.25})
    seed: int = 0

    def strength(self, step: int) -> float:
        """How much augmentation a step uses, 0 to 1."""
        return min(1.0, max(0.0, (step - self.clean_steps) / max(1, self.ramp_steps)))

    def transducer_weight(self, step: int) -> float:
        """Weight of the transducer loss at a step."""
        return self.transducer * min(1.0, max(0.0, (step - self.transducer_from) / 500))

    def right(self, step: int) -> int:
        """Look-ahead of a step's batch."""
        shares = np.array(list(self.rights.values()))
        chance = np.random.default_rng((self.seed, step, 1))
        return int(chance.choice(list(self.rights), p=shares / shares.sum()))


@torch.no_grad()
def settle(model: Ears, features: Tensor, counts: Tensor) -> None:
    """Scales fresh subsampling weights so that each stage, and what enters the blocks, has mean 0 and deviation 1.

    With default weights the signal fades from stage to stage and enters the first block as a tenth of a constant; that
    block's attention then grows without bound. Layer by layer on real data, after Mishkin and Matas 2015 (arXiv
    1511.06422).

    Args:
        model: Fresh.
        features: [rows, mel frames, bins] of clean speech.
        counts: [rows] mel frames of each.
    """
    subsampling = model.encoder.subsampling
    steps: list[tuple[nn.Module, nn.Conv2d | nn.Linear]] = []
    for stage in subsampling.stages:
        assert isinstance(stage, Stage)
        steps.append((stage, stage.pointwise if isinstance(stage.pointwise, nn.Conv2d) else stage.convolution))
    for module, layer in (*steps, (subsampling.linear, subsampling.linear)):
        kept: list[Tensor] = []
        hook = module.register_forward_hook(lambda _module, _inputs, output, kept=kept: kept.append(output))
        subsampling(features, counts)
        hook.remove()
        outputs = kept[0].transpose(0, 1).flatten(1) if kept[0].ndim == 4 else kept[0].flatten(0, 1).T
        mean, deviation = outputs.mean(1), outputs.std(1).clamp(min=1e-3)
        layer.weight /= deviation.view(-1, *[1] * (layer.weight.ndim - 1))
        assert layer.bias is not None
        layer.bias.sub_(mean).div_(deviation)


class Hearing:
    """Batch -> features of the model, clean or spoilt.

    Args:
        config: Of the features.
        rooms: See `room_bank`.
        styles: [recordings, 2, bins] of `style_of`: real spectra that are lent to the rows.
        device: Where it runs.
    """

    def __init__(self, config: FeatureConfig, rooms: Tensor, styles: Tensor, device: torch.device) -> None:
        self._front = TractFrontEnd(config, TRACT_FACTORS).to(device)
        self._rooms, self._styles = rooms.to(device), styles.to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, batch: Batch, strength: float, seed: int) -> tuple[Tensor, Tensor]:
        """Features [rows, mel frames, bins] and counts [rows]; `seed` decides all that is drawn."""
        if strength == 0:
            features: tuple[Tensor, Tensor] = self._front(batch.audio, batch.lengths)
            return features
        dice = Dice(seed, self._device)
        audio = spoil(batch.audio, self._rooms, strength, dice)
        middle = TRACT_FACTORS.index(min(TRACT_FACTORS, key=lambda factor: abs(factor - 1)))
        which = dice.below(len(TRACT_FACTORS), len(audio))
        which = torch.where(dice.happens(len(audio), strength)[:, 0], which, middle)
        x, counts = self._front.forward_moved(audio, batch.lengths, which)
        x = restyle(x, counts, self._styles, 0.35 * strength, dice)
        return mask_bands(x, counts, strength, dice), counts


def end_targets(ends: Tensor, counts: Tensor, frames: int) -> Tensor:
    """1 for frames completed after the last word, 0 for those before, -1 outside: [rows, frames] int8."""
    numbers = torch.arange(frames, device=ends.device)
    ended = (numbers * FRAME_SAMPLES >= ends[:, None]).to(torch.int8)
    return torch.where(numbers < counts[:, None], ended, -1)


class Trainer:
    """Model, optimiser and average, and one step of them.

    Args:
        model: On its device.
        recipe: How to train.
        hearing: Makes features.
        peers: Who trains the same model beside this process.
    """

    def __init__(self, model: Ears, recipe: Recipe, hearing: Hearing, peers: Peers | None = None) -> None:
        self.model, self.recipe, self._hearing = model, recipe, hearing
        self._peers = peers or Peers()
        self._peers.equalise(model)
        self._device = next(model.parameters()).device
        self.step, self.audio_s = 0, 0.0
        self._resumed_at = -(10**9)
        self.average = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip

    def train_step(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """One step at `rate` times the highest learning rate; returns losses and the gradient's norm, on the device."""
        recipe, step = self.recipe, self.step
        losses = self._backward(batch, recipe.strength(step), recipe.transducer_weight(step))
        self._peers.average(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip, foreach=True)
        self._update(rate, norm)
        self.step += 1
        self.audio_s += self._peers.count * batch.audio.numel() / 16_000
        return losses | {"norm": norm.detach()}

    def rehearse(self, batch: Batch) -> dict[str, Tensor]:
        """All that a late step does except changing the model, so that a run fails at once if it must."""
        losses = self._backward(batch, 1.0, 1.0)
        self._optimizer.zero_grad(set_to_none=True)
        return losses

    def _backward(self, batch: Batch, strength: float, transducer: float) -> dict[str, Tensor]:
        recipe = self.recipe
        seed = (self.recipe.seed * 64 + self._peers.rank) * 1_000_003 + self.step
        features, counts = self._hearing(batch, strength, seed)
        torch.manual_seed(seed)  # dropout
        # Position scores are a mask with a gradient; with a GPU's fused kernels three runs diverged (LOG.md, run 3).
        plain = sdpa_kernel(SDPBackend.MATH)
        with plain, torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda"):
            encoded = self.model(features, counts, recipe.right(self.step))
            ends = end_targets(batch.ends, encoded.lengths, encoded.frames.shape[1])
            losses: dict[str, Tensor] = self.model.losses(
                encoded,
                batch.tokens,
                batch.token_counts,
                fastemit=recipe.fastemit,
                ends=ends,
                transducer=transducer > 0,
            )
        weights = {"ctc": recipe.ctc, "middle": recipe.middle, "transducer": transducer, "end": recipe.end}
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _update(self, rate: float, norm: Tensor) -> None:
        warm = min(1.0, (self.step + 1) / self.recipe.warm_up, (self.step - self._resumed_at + 1) / 100)
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * rate * warm
        # A gradient that is not finite leaves the weights alone, without asking the device about it.
        self._optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        decay = min(self.recipe.average, (1 + self.step) / (20 + self.step))
        parameters = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), parameters, 1 - decay)

    def state(self) -> TrainingState:
        """All that the run needs to go on; the tensors are the live ones."""
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        return TrainingState(self.step, self.audio_s, weights, self.average, *moments(self.model, self._optimizer))

    @torch.no_grad()
    def restore(self, state: TrainingState) -> None:
        """Goes on from a checkpoint; from a compact one with a short warm-up."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(state.weights[name])
            self.average[name].copy_(state.average[name])
        self.step, self.audio_s = state.step, state.audio_s
        if state.squares:
            restore_moments(self.model, self._optimizer, state)
        else:
            self._resumed_at = state.step

    def averaged(self) -> Ears:
        """A model with the averaged weights."""
        model = Ears(self.model.config).to(self._device)
        model.load_state_dict(self.average, strict=False)
        return model.eval()
