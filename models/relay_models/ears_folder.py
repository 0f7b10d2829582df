"""A recogniser's folder: which layout it is in, and what is read without torch.

Own layout: config.json (`relay_ears`; its `decoding`, if any, are arguments of `BeamDecoder`), model.safetensors,
tokenizer.json, lm.safetensors where a language model is fused in, and, once exported, one ONNX graph for each
look-ahead. The published layout is read by `checkpoints/nemotron.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from tokenizers import Tokenizer

from relay_models.framing import lookahead_ms
from relay_models.host_transducer import HostTransducer
from relay_models.lm import NGramLm
from relay_models.loading import WeightsError, read_config, tensor_places
from relay_models.quantize import unpack_weights
from relay_models.transducer_config import TransducerConfig

OWN = "relay_ears"
PUBLISHED = "nemotron_asr_streaming"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
LANGUAGE_MODEL = "lm.safetensors"
_DECODED_ON_HOST = ("predictor.", "joint.")


@dataclass(frozen=True, slots=True)
class EarsFolder:
    """What config.json says of a folder, in either layout.

    Attributes:
        path: The folder.
        model_type: `OWN` or `PUBLISHED`.
        config: All of config.json.
    """

    path: Path
    model_type: str
    config: dict[str, Any]

    @property
    def rights(self) -> tuple[int, ...]:
        """Look-aheads in encoder frames that an exported folder has graphs for, the default one first."""
        if self.model_type != OWN:
            return ()
        rights = self.config.get("encoder", {}).get("rights", ())
        return tuple(right for right in rights if (self.path / graph_name(right)).exists())

    @property
    def delay_frames(self) -> int:
        """Frames by which an encoder in the own layout lags behind: the look-aheads of its sliding windows in all."""
        return sum(right for _, right in self.config.get("encoder", {}).get("windows", ()))


def open_folder(path: Path) -> EarsFolder:
    """Reads config.json. Raises WeightsError when the folder holds no recogniser in a supported layout."""
    config = read_config(path)
    model_type = config.get("model_type")
    if model_type not in (OWN, PUBLISHED):
        raise WeightsError(
            f"{path.name}/config.json is of a {model_type!r} model; recognisers are {OWN!r} or {PUBLISHED!r} ones"
        )
    return EarsFolder(path, model_type, config)


def graph_name(right: int) -> str:
    """File of the ONNX graph for a look-ahead of so many encoder frames."""
    return f"lookahead-{lookahead_ms(right)}.onnx"


def load_pieces(folder: Path) -> list[str]:
    """Text of each token, blank included, as `words.py` wants it. Raises WeightsError without tokenizer.json."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"{folder.name}/{TOKENIZER} cannot be read ({error})") from error
    return [tokenizer.id_to_token(number) or "" for number in range(tokenizer.get_vocab_size())]


def load_lm(folder: EarsFolder) -> NGramLm | None:
    """The language model that belongs to a folder; None without one. Raises WeightsError."""
    path = folder.path / LANGUAGE_MODEL
    return NGramLm.load(path) if path.exists() else None


def load_transducer(folder: EarsFolder) -> HostTransducer:
    """The decoding networks of a folder in the own layout, in float32. Raises WeightsError."""
    try:
        config = TransducerConfig(**folder.config["transducer"])
        with safe_open(folder.path / WEIGHTS, framework="numpy") as file:
            names = [name for name in tensor_places(folder.path / WEIGHTS) if name.startswith(_DECODED_ON_HOST)]
            tensors = {name: file.get_tensor(name) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder.path.name}/config.json is not that of a recogniser ({error!r})") from error
    except Exception as error:  # the library has exceptions of its own beside OSError
        raise WeightsError(f"{folder.path.name}/{WEIGHTS} cannot be read ({error})") from error
    return HostTransducer.from_tensors(config, unpack_weights(tensors))
