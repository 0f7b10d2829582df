"""The verifier on the host, in NumPy: it is less than a megabyte, and a draft is a dozen tokens. No torch.

`verifier.py` defines the network and trains it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from relay_models.drafting import MAX_TOKENS, MAX_WORDS, Drafted, Floats
from relay_models.loading import WeightsError, read_config

MODEL_TYPE = "relay_verifier"
SCALARS = 4
"""A token's entropy, log-probability and margin, and the recogniser's confidence, the same for all tokens."""


@dataclass(frozen=True, slots=True)
class VerifierConfig:
    """Sizes, and how the commit logit is read.

    Attributes:
        hidden_size: Width of the draft model's states.
        size: Width inside.
        max_tokens: Longest draft.
        max_words: Most words that it can keep.
        scale, shift: Calibration (Platt 1999): the probability is sigmoid(scale * logit + shift).
        threshold: Smallest probability at which words are spoken.
    """

    hidden_size: int = 384
    size: int = 128
    max_tokens: int = MAX_TOKENS
    max_words: int = MAX_WORDS
    scale: float = 1.0
    shift: float = 0.0
    threshold: float = 0.5

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VerifierConfig:
        """Reads the JSON form. Raises WeightsError when it does not describe a verifier."""
        if values.get("model_type", MODEL_TYPE) != MODEL_TYPE:
            raise WeightsError(f"config.json is of a {values['model_type']!r} model, not of a {MODEL_TYPE!r} one")
        try:
            return cls(**{item.name: values[item.name] for item in fields(cls)})
        except (KeyError, TypeError) as error:
            raise WeightsError(f"config.json is not that of a verifier ({error!r})") from error

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"model_type": MODEL_TYPE, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the verifier thinks of one draft.

    Attributes:
        probability: That its words are good, calibrated.
        words: How many of them may be spoken; 0 when the probability is below the threshold.
    """

    probability: float
    words: int


class HostVerifier:
    """The network of `relay_models.verifier`, for one draft at a time, so that nothing is padded.

    Args:
        config: Sizes and calibration.
        tensors: Of the network, named as in its `state_dict`.

    Raises:
        WeightsError: A tensor is missing or has another shape than the config asks for.
    """

    def __init__(self, config: VerifierConfig, tensors: Mapping[str, Floats]) -> None:
        self.config = config
        for name, shape in _shapes(config).items():
            if name not in tensors or tensors[name].shape != shape:
                found = tensors[name].shape if name in tensors else "none"
                raise WeightsError(f"the verifier's {name} should be {shape}; there is {found}")
        self._weights = dict(tensors)

    def judge(self, draft: Drafted, confidence: float) -> Judgement:
        """Whether a draft's words may be spoken, and how many; an empty one is not.

        Args:
            draft: Of at most `max_tokens` tokens.
            confidence: How sure the recogniser is of what it answers, 0 to 1; 0 where nobody knows.

        Raises:
            ValueError: The draft is longer.
        """
        if not draft.tokens:
            return Judgement(0.0, 0)
        if len(draft.tokens) > self.config.max_tokens:
            raise ValueError(f"a draft of {len(draft.tokens)} tokens; this verifier judges {self.config.max_tokens}")
        logit, counts = self.logits(draft, confidence)
        config = self.config
        probability = 1 / (1 + math.exp(-max(-700.0, config.scale * logit + config.shift)))
        return Judgement(probability, int(counts.argmax()) if probability >= config.threshold else 0)

    def logits(self, draft: Drafted, confidence: float) -> tuple[float, Floats]:
        """What `verifier.Verifier.forward` gives for one draft: the commit logit, and [max_words + 1]."""
        weights = self._weights
        scalars = scalars_of(draft, confidence)
        x = _gelu(self._norm("project_norm", self._linear("project", draft.hidden)))
        gate = np.minimum(-self._linear("gate", scalars), 80)  # a token may be next to impossible: no overflow
        x = x / (1 + np.exp(gate)) + scalars @ weights["shift.weight"].T
        x = x + weights["positions.weight"][: len(x)]
        inner = _gelu(self._linear("feed_forward.0", self._norm("norm", x)))
        x = self._norm("pool_norm", x + self._linear("feed_forward.3", inner))
        scores = x @ weights["key.weight"].T @ weights["query"] * self.config.size**-0.5
        shares = np.exp(scores - scores.max())
        pooled = (shares / shares.sum()) @ self._linear("value", x)
        counts = self._linear("count", pooled)
        counts[len(draft.word_ends) + 1 :] = -np.inf
        return float(self._linear("commit", pooled)[0]), counts

    def _linear(self, name: str, x: Floats) -> Floats:
        y: Floats = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return y

    def _norm(self, name: str, x: Floats) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
        y: Floats = centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return y


def scalars_of(draft: Drafted, confidence: float) -> Floats:
    """[tokens, `SCALARS`] float32 of a draft."""
    return np.pad(draft.scalars, ((0, 0), (0, 1)), constant_values=confidence)


def load_host_verifier(folder: Path) -> HostVerifier:
    """Reads what `verifier.save_verifier` wrote. Raises WeightsError when it is missing, damaged or another model."""
    config = VerifierConfig.from_dict(read_config(folder))
    try:
        tensors = load_file(folder / "model.safetensors")
    except Exception as error:  # the library has exceptions of its own beside OSError
        raise WeightsError(f"{folder.name}/model.safetensors cannot be read ({error})") from error
    return HostVerifier(config, tensors)


def _shapes(config: VerifierConfig) -> dict[str, tuple[int, ...]]:
    """Of every tensor."""
    size = config.size
    linear = {
        "project": (size, config.hidden_size), "gate": (size, SCALARS), "shift": (size, SCALARS),
        "feed_forward.0": (2 * size, size), "feed_forward.3": (size, 2 * size), "key": (size, size),
        "value": (size, size), "commit": (1, size), "count": (config.max_words + 1, size),
    }  # fmt: skip
    norms = [f"{name}.{part}" for name in ("project_norm", "norm", "pool_norm") for part in ("weight", "bias")]
    return {
        **{f"{name}.weight": shape for name, shape in linear.items()},
        **{f"{name}.bias": shape[:1] for name, shape in linear.items() if name not in ("shift", "key")},
        **dict.fromkeys(norms, (size,)),
        "positions.weight": (config.max_tokens, size),
        "query": (size,),
    }


def _gelu(x: Floats) -> Floats:
    """The exact GELU; the error function by Abramowitz and Stegun, 7.1.26, which is off by 1.5e-7 at most."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + 0.3275911 * z)
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    y: Floats = 0.5 * x * (1 + np.sign(x) * (1 - series * np.exp(-z * z)))
    return y
