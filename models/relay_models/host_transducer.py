"""The transducer's prediction and joint networks on the host. NumPy only: every runner decodes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from relay_models.loading import WeightsError
from relay_models.transducer_config import TransducerConfig

Floats = NDArray[np.float32]
Memory = tuple[NDArray[np.generic], ...]
"""What the prediction network keeps of one history: its last tokens [context], or hidden and cell [layers, size]."""


class HostTransducer:
    """The prediction and joint networks of `relay_models.transducer`, in float32.

    Made by `from_tensors`.
    """

    def __init__(self, config: TransducerConfig, weights: Mapping[str, Floats]) -> None:
        self.config = config
        self._embedding = weights["predictor.embedding.weight"]
        self._lstm = [
            (
                weights[f"predictor.lstm.weight_ih_l{layer}"].T.copy(),
                weights[f"predictor.lstm.weight_hh_l{layer}"].T.copy(),
                weights[f"predictor.lstm.bias_ih_l{layer}"] + weights[f"predictor.lstm.bias_hh_l{layer}"],
            )
            for layer in range(config.layers)
        ]
        if not config.layers:
            self._taps = weights["predictor.convolution.weight"][:, 0].T.copy()
            self._tap_bias = weights["predictor.convolution.bias"]
        self._projection = weights["predictor.projection.weight"].T.copy(), weights["predictor.projection.bias"]
        self._hearing = weights["joint.frame_projection.weight"].T.copy(), weights["joint.frame_projection.bias"]
        self._head = weights["joint.head.weight"].T.copy(), weights["joint.head.bias"]

    @classmethod
    def from_tensors(cls, config: TransducerConfig, tensors: Mapping[str, NDArray[np.floating]]) -> HostTransducer:
        """From the tensors of a recogniser, named as in its `state_dict`; others are ignored.

        Raises:
            WeightsError: A tensor is missing or has another shape than the config asks for.
        """
        width, joint, vocabulary = config.size, config.joint, config.vocabulary
        frame_projection = tensors.get("joint.frame_projection.weight")
        frame_size = frame_projection.shape[-1] if frame_projection is not None and frame_projection.ndim else 0
        shapes: dict[str, tuple[int, ...]] = {
            "predictor.embedding.weight": (vocabulary, width),
            "predictor.projection.weight": (joint, width),
            "predictor.projection.bias": (joint,),
            "joint.frame_projection.weight": (joint, frame_size),
            "joint.frame_projection.bias": (joint,),
            "joint.head.weight": (vocabulary, joint),
            "joint.head.bias": (vocabulary,),
        }
        for layer in range(config.layers):
            for kind in ("ih", "hh"):
                shapes[f"predictor.lstm.weight_{kind}_l{layer}"] = (4 * width, width)
                shapes[f"predictor.lstm.bias_{kind}_l{layer}"] = (4 * width,)
        if not config.layers:
            shapes["predictor.convolution.weight"] = (width, 1, config.context)
            shapes["predictor.convolution.bias"] = (width,)
        for name, shape in shapes.items():
            if name not in tensors or tensors[name].shape != shape:
                found = tensors[name].shape if name in tensors else "missing"
                raise WeightsError(f"the transducer's tensor {name} should be {shape}, and is {found}")
        return cls(config, {name: np.ascontiguousarray(tensors[name], np.float32) for name in shapes})

    def hear(self, frames: Floats) -> Floats:
        """Frames of the encoder [..., size] -> what the joint network adds up [..., joint]."""
        weight, bias = self._hearing
        heard: Floats = frames @ weight + bias
        return heard

    def start(self) -> tuple[Memory, Floats]:
        """Memory of the empty history, and what may follow it [joint]."""
        config, empty = self.config, self.config.blank
        memory: Memory = (np.full(config.context, empty),)
        if config.layers:
            zeros = np.zeros((config.layers, config.size), np.float32)
            memory = (zeros, zeros)
        memories, outputs = self.advance([memory], [empty])
        return memories[0], outputs[0]

    def advance(self, memories: Sequence[Memory], tokens: Sequence[int]) -> tuple[list[Memory], Floats]:
        """One more token for each of several histories: their new memories, and what may follow [histories, joint]."""
        batch = [np.stack(part) for part in zip(*memories, strict=True)]
        if self._lstm:
            y: Floats = self._embedding[list(tokens)]
            hidden, cell = (part.astype(np.float32) for part in batch)
            for layer, (w_in, w_back, bias) in enumerate(self._lstm):
                gates = y @ w_in + hidden[:, layer] @ w_back + bias
                enter, forget, value, leave = np.split(gates, 4, axis=1)
                kept = _sigmoid(forget) * cell[:, layer] + _sigmoid(enter) * np.tanh(value)
                y = _sigmoid(leave) * np.tanh(kept)
                hidden[:, layer], cell[:, layer] = y, kept
            after: list[Memory] = list(zip(hidden, cell, strict=True))
        else:
            history = np.concatenate((batch[0][:, 1:], np.array(tokens)[:, None]), axis=1)
            y = np.maximum((self._embedding[history] * self._taps).sum(axis=1) + self._tap_bias, 0)
            after = [(row,) for row in history]
        weight, bias = self._projection
        return after, y @ weight + bias

    def log_probabilities(self, heard: Floats, outputs: Floats) -> Floats:
        """Of each symbol after each history at one frame: [joint] and [histories, joint] -> [histories, vocabulary]."""
        return _log_softmax(self._combine(heard, outputs))

    def internal(self, outputs: Floats) -> Floats:
        """What the transducer expects next when it hears nothing: [histories, joint] -> [histories, without blank].

        The encoder's frame is taken as zero, and blank as impossible (Variani et al. 2020, HAT, arXiv 2003.07705;
        Meng et al. 2021, arXiv 2011.01991).
        """
        return _log_softmax(self._combine(self._hearing[1], outputs)[:, : self.config.blank])

    def _combine(self, heard: Floats, outputs: Floats) -> Floats:
        weight, bias = self._head
        together: Floats = heard + outputs
        active = np.tanh(together) if self.config.activation == "tanh" else np.maximum(together, 0)
        logits: Floats = active @ weight + bias
        return logits


def _sigmoid(x: Floats) -> Floats:
    y: Floats = 0.5 * (1 + np.tanh(0.5 * x))  # exp(-x) would overflow
    return y


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    y: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return y
