"""Published streaming recognisers in transformers' `nemotron_asr_streaming` layout, for example
`nvidia/nemotron-speech-streaming-en-0.6b`: config.json, safetensors, tokenizer.json, settings of the front end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from relay_models.ears import Ears, EarsConfig
from relay_models.ears_folder import PUBLISHED
from relay_models.encoder import EncoderConfig
from relay_models.features import FFT_SAMPLES, FeatureConfig
from relay_models.framing import HOP_SAMPLES, SAMPLE_RATE_HZ, SUBSAMPLING, WINDOW_SAMPLES
from relay_models.loading import WeightsError, read_config
from relay_models.stored import load_weights
from relay_models.transducer import TransducerConfig

LOOKAHEADS = (13, 6, 1, 0)
"""What the published models are trained for, where the processor's settings do not say."""

# Theirs, as a pattern -> ours.
_NAMES = (
    (r"encoder\.subsampling\.conv_in\.", "encoder.subsampling.stages.0.convolution."),
    (r"encoder\.subsampling\.layers\.0\.depthwise_conv\.", "encoder.subsampling.stages.1.convolution."),
    (r"encoder\.subsampling\.layers\.0\.pointwise_conv\.", "encoder.subsampling.stages.1.pointwise."),
    (r"encoder\.subsampling\.layers\.1\.depthwise_conv\.", "encoder.subsampling.stages.2.convolution."),
    (r"encoder\.subsampling\.layers\.1\.pointwise_conv\.", "encoder.subsampling.stages.2.pointwise."),
    (r"encoder\.layers\.(\d+)\.self_attn\.relative_k_proj\.", r"encoder.blocks.\1.attention.distance_proj."),
    (r"encoder\.layers\.(\d+)\.self_attn\.bias_u$", r"encoder.blocks.\1.attention.content_bias"),
    (r"encoder\.layers\.(\d+)\.self_attn\.bias_v$", r"encoder.blocks.\1.attention.distance_bias"),
    (r"encoder\.layers\.(\d+)\.self_attn\.", r"encoder.blocks.\1.attention."),
    (r"encoder\.layers\.(\d+)\.conv\.pointwise_conv([12])\.", r"encoder.blocks.\1.convolution.pointwise\2."),
    (r"encoder\.layers\.(\d+)\.conv\.depthwise_conv\.", r"encoder.blocks.\1.convolution.depthwise."),
    (r"encoder\.layers\.(\d+)\.conv\.norm\.", r"encoder.blocks.\1.convolution.norm."),
    (r"encoder\.layers\.(\d+)\.norm_self_att\.", r"encoder.blocks.\1.norm_attention."),
    (r"encoder\.layers\.(\d+)\.norm_conv\.", r"encoder.blocks.\1.norm_convolution."),
    (r"encoder\.layers\.", "encoder.blocks."),
    (r"encoder_projector\.", "joint.frame_projection."),
    (r"decoder\.decoder_projector\.", "predictor.projection."),
    (r"decoder\.", "predictor."),
)
_POINTWISE = re.compile(r"\.convolution\.pointwise[12]\.weight$")


def load_nemotron(folder: Path) -> Ears:
    """A recogniser with the weights of a published checkpoint, in float32 and in evaluation mode.

    Raises:
        WeightsError: Files are missing, damaged, or of a model that is built otherwise.
    """
    model = Ears(read_ears_config(folder))
    load_weights(model, {rename(name): _shaped(rename(name), tensor) for name, tensor in _tensors(folder).items()})
    return model.eval()


def read_ears_config(folder: Path) -> EarsConfig:
    """The shape of a published checkpoint. Raises WeightsError when this package has no such shape."""
    config = read_config(folder)
    if config.get("model_type") != PUBLISHED:
        raise WeightsError(f"config.json is of a {config.get('model_type')!r} model, not of a {PUBLISHED!r} one")
    try:
        return _ears_config(config, _settings(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"config.json is not that of a {PUBLISHED!r} model ({error!r})") from error


def rename(name: str) -> str:
    """A tensor's name in this package."""
    for pattern, ours in _NAMES:
        renamed, found = re.subn("^" + pattern, ours, name)
        if found:
            return renamed
    return name


def _shaped(name: str, tensor: Tensor) -> Tensor:
    """Pointwise convolutions are plain matrices here."""
    return tensor[..., 0] if _POINTWISE.search(name) and tensor.dim() == 3 else tensor


def _ears_config(config: Mapping[str, Any], settings: Mapping[str, Any]) -> EarsConfig:
    encoder, front_end = config["encoder_config"], settings.get("feature_extractor", {})
    default = encoder.get("default_num_lookahead_tokens", LOOKAHEADS[0])
    rights = settings.get("supported_num_lookahead_tokens") or LOOKAHEADS
    vocabulary = config["vocab_size"]
    for values, name, built in (
        (encoder, "hidden_act", "silu"),
        (encoder, "subsampling_factor", SUBSAMPLING),
        (encoder, "subsampling_conv_kernel_size", 3),
        (encoder, "subsampling_conv_stride", 2),
        (config, "blank_token_id", vocabulary - 1),
        (front_end, "sampling_rate", SAMPLE_RATE_HZ),
        (front_end, "hop_length", HOP_SAMPLES),
        (front_end, "win_length", WINDOW_SAMPLES),
        (front_end, "n_fft", FFT_SAMPLES),
        (front_end, "feature_size", encoder["num_mel_bins"]),
    ):
        if values.get(name, built) != built:
            raise ValueError(f"{name} is {values[name]!r}; only {built!r} is built here")
    return EarsConfig(
        features=FeatureConfig(
            mel_bins=encoder["num_mel_bins"],
            preemphasis=front_end.get("preemphasis", FeatureConfig().preemphasis) or 0.0,
            constants=front_end.get("mel_filters_dtype", FeatureConfig().constants),
        ),
        encoder=EncoderConfig(
            mel_bins=encoder["num_mel_bins"],
            channels=encoder["subsampling_conv_channels"],
            size=encoder["hidden_size"],
            layers=encoder["num_hidden_layers"],
            heads=encoder["num_attention_heads"],
            inner=encoder["intermediate_size"],
            kernel=encoder["conv_kernel_size"],
            left=encoder["sliding_window"] - 1,
            rights=(default, *(right for right in rights if right != default)),
            attention_bias=encoder["attention_bias"],
            convolution_bias=encoder["convolution_bias"],
            scale_input=encoder["scale_input"],
            dropout=0.0,
        ),
        transducer=TransducerConfig(
            vocabulary=vocabulary,
            size=config["decoder_hidden_size"],
            layers=config["num_decoder_layers"],
            joint=config["decoder_hidden_size"],
            activation=config["hidden_act"],
            max_symbols=config["max_symbols_per_step"],
        ),
        ctc=False,
        end=False,
    )


def _settings(folder: Path) -> dict[str, Any]:
    """The processor's settings; those of the front end may stand in a file of their own."""
    settings: dict[str, Any] = {}
    for name, place in (("processor_config.json", None), ("preprocessor_config.json", "feature_extractor")):
        if (folder / name).exists():
            try:
                values = json.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise WeightsError(f"{folder.name}/{name} cannot be read ({error})") from error
            settings.update({place: values} if place else values)
    return settings


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the files that its index names."""
    index = folder / "model.safetensors.index.json"
    try:
        files = {"model.safetensors"}
        if index.exists():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return {name: tensor for file in sorted(files) for name, tensor in load_file(folder / file).items()}
    except Exception as error:  # safetensors has exceptions of its own beside OSError
        raise WeightsError(f"the weights of {folder.name} cannot be read ({error})") from error
