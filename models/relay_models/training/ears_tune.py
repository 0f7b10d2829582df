"""Settings of decoding: `python -m relay_models.training.ears_tune MODEL ROOT --lm LM`.

MODEL is a folder of a trained recogniser, ROOT what `ears_data` prepared. The encoder hears each clip once; then the
frames are decoded greedily, and by a beam with every combination of the weights given. Every other clip is for choosing
the weights; the last lines tell what the chosen ones give on the clips between.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from relay_models.beam import BeamDecoder
from relay_models.ears import Ears, load_ears
from relay_models.host_transducer import HostTransducer
from relay_models.lm import Lm, NGramLm
from relay_models.training.ears_data import RATE_HZ, Clips
from relay_models.training.ears_eval import LEAD_S, TAIL_S, word_errors


@dataclass(frozen=True, slots=True)
class Heard:
    """One clip as the decoder meets it.

    Attributes:
        frames: [frames, size] of the encoder.
        text: What was said.
    """

    frames: NDArray[np.float32]
    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """Arguments of `BeamDecoder`."""

    beam: int
    lm_weight: float = 0.0
    ilm_weight: float = 0.0
    reward: float = 0.0


@dataclass(slots=True)
class Result:
    """What decoding some clips gave.

    Attributes:
        errors, words: Wrong words, and words said.
        frames: Of the encoder.
        seconds: Time of one core that decoding took.
        tokens: Tokens heard.
        waited_frames: Between each of them and its becoming stable, summed.
    """

    errors: int = 0
    words: int = 0
    frames: int = 0
    seconds: float = 0.0
    tokens: int = 0
    waited_frames: int = 0

    @property
    def rate(self) -> float:
        """Word error rate in per cent."""
        return 100 * self.errors / max(1, self.words)

    def add(self, other: Result) -> None:
        """Takes in another's figures."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


@torch.no_grad()
def hear(model: Ears, clips: Clips, right: int) -> list[Heard]:
    """Runs the encoder over each clip, with silence around it as in `ears_eval`; `right`: look-ahead in frames."""
    found = []
    for clip, text in clips:
        padded = np.pad(clip.astype(np.float32) / 32768, (int(LEAD_S * RATE_HZ), int(TAIL_S * RATE_HZ)))
        features, counts = model.features(torch.from_numpy(padded)[None], torch.tensor([len(padded)]))
        found.append(Heard(model(features, counts, right).frames[0].numpy(), text))
    return found


def decode(decoder: BeamDecoder, clips: Sequence[Heard], tokenizer: Tokenizer) -> Result:
    """Decodes clips one by one, frame by frame."""
    result = Result()
    for clip in clips:
        began = time.thread_time()
        state, said, waited = decoder.open(), list[int](), 0
        for number in range(len(clip.frames) + 1):
            ended = number == len(clip.frames)
            output = decoder.finish(state) if ended else decoder.step(state, clip.frames[number : number + 1])
            said += [token.number for token in output.stable]
            waited += sum(number - token.frame for token in output.stable)
        seconds = time.thread_time() - began
        reference = clip.text.split()
        errors = word_errors(reference, tokenizer.decode(said).split())
        result.add(Result(errors, len(reference), len(clip.frames), seconds, len(said), waited))
    return result


def choose(results: Mapping[Setting, Mapping[str, Result]]) -> Setting:
    """The setting with the lowest mean of the sets' word error rates; among equals the first."""
    return min(results, key=lambda setting: sum(result.rate for result in results[setting].values()))


def grid(beams: Sequence[int], lms: Sequence[float], ilms: Sequence[float], rewards: Sequence[float]) -> list[Setting]:
    """All combinations; without any language model's weight only one, without the other two."""
    plain = [Setting(beam) for beam in beams]
    return plain + [Setting(*values) for values in itertools.product(beams, [w for w in lms if w], ilms, rewards)]


def line(setting: Setting, results: Mapping[str, Result]) -> str:
    """Rates as a line of text, the time that a frame takes, and how long a token stays unstable."""
    total = Result()
    for result in results.values():
        total.add(result)
    settings = " ".join(f"{name} {value:<4}" for name, value in asdict(setting).items())
    rates = "  ".join(f"{name} {result.rate:5.2f}" for name, result in results.items())
    speed = 1000 * total.seconds / max(1, total.frames)
    return f"{settings}  {rates}  {speed:.2f} ms/frame  stable after {total.waited_frames / max(1, total.tokens):.1f}"


def tune(
    transducer: HostTransducer,
    lm: Lm | None,
    sets: Mapping[str, Sequence[Heard]],
    settings: Sequence[Setting],
    tokenizer: Tokenizer,
) -> Setting:
    """Tries all settings on every other clip, prints what they give, and chooses one."""
    results = {}
    for setting in settings:
        decoder = BeamDecoder(transducer, lm=lm, **asdict(setting))
        results[setting] = {name: decode(decoder, clips[::2], tokenizer) for name, clips in sets.items()}
        print(line(setting, results[setting]), flush=True)
    return choose(results)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--lm", type=Path, help="language model of `ears_lm`")
    parser.add_argument("--sets", nargs="+", default=["kathleen", "strangers", "slt"])
    parser.add_argument("--right", type=int, default=6, help="look-ahead in frames")
    parser.add_argument("--beams", type=int, nargs="+", default=[4])
    parser.add_argument("--lm-weights", type=float, nargs="+", default=[0.3, 0.4, 0.5])
    parser.add_argument("--ilm-weights", type=float, nargs="+", default=[0.1, 0.2])
    parser.add_argument("--rewards", type=float, nargs="+", default=[0.5, 0.8, 1.1])
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_ears(args.model)
    tokenizer = Tokenizer.from_file(str(args.root / "tokenizer.json"))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    transducer = HostTransducer.from_tensors(model.config.transducer, tensors)
    sets = {name: hear(model, Clips.load(args.root / "clips" / name), args.right) for name in args.sets}
    lm = NGramLm.load(args.lm) if args.lm else None
    settings = grid(args.beams, args.lm_weights if lm else [], args.ilm_weights, args.rewards)
    chosen = tune(transducer, lm, sets, settings, tokenizer)
    print("on the clips between:")
    for setting in dict.fromkeys([Setting(1), *(Setting(beam) for beam in args.beams), chosen]):
        decoder = BeamDecoder(transducer, lm=lm, **asdict(setting))
        print(line(setting, {name: decode(decoder, clips[1::2], tokenizer) for name, clips in sets.items()}))


if __name__ == "__main__":
    main()
