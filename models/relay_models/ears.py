"""The recogniser: log-mel front end, streaming encoder, and its heads.

One encoder, three heads: a transducer and CTC (hybrid, arXiv 2312.17279; CTC also after a middle layer,
Lee and Watanabe 2021, arXiv 2102.03216), and the end of the utterance, one logit a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.encoder import Encoded, Encoder, EncoderConfig
from relay_models.features import FeatureConfig, LogMel
from relay_models.loading import WeightsError, read_config
from relay_models.quantize import PACKED, unpack_weights
from relay_models.rnnt_loss import rnnt_loss
from relay_models.stored import load_weights, read_tensors, save_model
from relay_models.transducer import Joint, Predictor, TransducerConfig

MODEL_TYPE = "relay_ears"


@dataclass(frozen=True, slots=True)
class EarsConfig:
    """Everything that shapes a recogniser.

    Attributes:
        features: The front end.
        encoder: The encoder.
        transducer: The transducer; its vocabulary is that of CTC too.
        ctc: There is a CTC head.
        middle: Number of blocks after which the CTC head is trained too; 0 for none.
        end: There is a head for the end of the utterance.
    """

    features: FeatureConfig = field(default_factory=FeatureConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    transducer: TransducerConfig = field(default_factory=TransducerConfig)
    ctc: bool = True
    middle: int = 0
    end: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError when the parts do not fit each other."""
        if self.features.mel_bins != self.encoder.mel_bins:
            raise ValueError(f"{self.features.mel_bins} mel filters, but an encoder for {self.encoder.mel_bins}")
        if self.middle and not (self.ctc and self.middle < self.encoder.layers):
            raise ValueError("a middle loss needs the CTC head and a block before the last")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EarsConfig:
        """Reads the JSON form. Raises WeightsError when it does not describe a recogniser."""
        if values.get("model_type", MODEL_TYPE) != MODEL_TYPE:
            raise WeightsError(f"config.json is of a {values['model_type']!r} model, not of a {MODEL_TYPE!r} one")
        own = {item.name for item in fields(cls)} - {"features", "encoder", "transducer"}
        try:
            return cls(
                features=FeatureConfig(**values["features"]),
                encoder=EncoderConfig.from_dict(values["encoder"]),
                transducer=TransducerConfig(**values["transducer"]),
                **{name: values[name] for name in own if name in values},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"config.json is not that of a recogniser ({error!r})") from error

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"model_type": MODEL_TYPE, **asdict(self)}


class Ears(nn.Module):
    """The recogniser. `relay_models.decoding` turns its frames into tokens.

    Args:
        config: Its shape.
    """

    def __init__(self, config: EarsConfig) -> None:
        super().__init__()
        self.config = config
        size = config.encoder.size
        self.features = LogMel(config.features)
        self.encoder = Encoder(config.encoder)
        self.predictor = Predictor(config.transducer, dropout=config.encoder.dropout)
        self.joint = Joint(config.transducer, size)
        self.ctc = nn.Linear(size, config.transducer.vocabulary) if config.ctc else None
        self.end = nn.Linear(size, 1) if config.end else None

    def forward(self, features: Tensor, lengths: Tensor, right: int | None = None) -> Encoded:
        """Frames of whole recordings; see `Encoder.forward`. `features` come from `self.features`."""
        encoded: Encoded = self.encoder(features, lengths, right, middle=self.config.middle or None)
        return encoded

    def end_logits(self, frames: Tensor) -> Tensor:
        """Frames [..., size] -> logit of "the utterance has ended" [...]. Raises ValueError without that head."""
        if self.end is None:
            raise ValueError("this recogniser has no head for the end of the utterance")
        logits: Tensor = self.end(frames)[..., 0]
        return logits

    def losses(
        self,
        encoded: Encoded,
        targets: Tensor,
        target_counts: Tensor,
        *,
        fastemit: float = 5e-3,
        ends: Tensor | None = None,
        transducer: bool = True,
    ) -> dict[str, Tensor]:
        """Losses of a batch, each a mean: a token for `transducer`, `ctc` and `middle`, a frame for `end`.

        Args:
            encoded: Of `forward`.
            targets: [batch, tokens] int64, padded by any token.
            target_counts: [batch] int64.
            fastemit: See `rnnt_loss`.
            ends: [batch, frames], 1 where the utterance has ended, 0 where not, negative where it does not count.
            transducer: Whether to compute the transducer loss, by far the dearest.

        Returns:
            Those of the four that the config and the arguments ask for. A row whose targets do not fit into its frames
            counts nothing in CTC.
        """
        frames, counts, middle = encoded
        tokens = target_counts.sum().clamp(min=1)
        found = {}
        if transducer:
            logits = self.joint(frames, self.predictor(targets))
            # A row without frames has one all the same, of padding, so that no row is without a path.
            costs = rnnt_loss(
                logits,
                targets,
                counts.clamp(min=1),
                target_counts,
                blank=self.config.transducer.blank,
                fastemit=fastemit,
            )
            found["transducer"] = costs.sum() / tokens
        if self.ctc is not None:
            found["ctc"] = self._ctc_loss(frames, counts, targets, target_counts) / tokens
            if middle is not None:
                found["middle"] = self._ctc_loss(middle, counts, targets, target_counts) / tokens
        if ends is not None:
            logits = self.end_logits(frames).float()
            known = ends >= 0
            entropy = functional.binary_cross_entropy_with_logits(logits, ends.clamp(min=0).float(), reduction="none")
            found["end"] = (entropy * known).sum() / known.sum().clamp(min=1)
        return found

    def _ctc_loss(self, frames: Tensor, counts: Tensor, targets: Tensor, target_counts: Tensor) -> Tensor:
        """Sum over the batch."""
        assert self.ctc is not None
        log_probabilities = self.ctc(frames).float().log_softmax(-1).transpose(0, 1)
        return functional.ctc_loss(
            log_probabilities,
            targets,
            counts,
            target_counts,
            blank=self.config.transducer.blank,
            reduction="sum",
            zero_infinity=True,
        )


def save_ears(model: Ears, folder: Path) -> None:
    """See `stored.save_model`."""
    save_model(model, model.config.to_dict(), folder)


def load_ears(folder: Path) -> Ears:
    """Reads what `save_ears` or `ears_export` wrote, as float32 and in evaluation mode.

    Raises:
        WeightsError: Files are missing or damaged, or the weights do not fit the config.
    """
    model = Ears(EarsConfig.from_dict(read_config(folder)))
    load_weights(model, unpacked(read_tensors(folder)))
    return model.eval()


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights out of a file that may be packed (`quantize.py`), and hold the front end's constants too."""
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith("features.")}
    if not any(name.endswith(f".{PACKED}") for name in weights):
        return weights
    arrays = unpack_weights({name: tensor.numpy() for name, tensor in weights.items()})
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
