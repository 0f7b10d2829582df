"""Speech of Flite's voices for the voice to learn lengths and pronunciation from, made on as many cores as there are.

    python -m relay_models.training.voice_synthesis ROOT OUT --kind rms --worker 0 --workers 6 --clips 1500

ROOT holds `texts.json.xz` (`voice_data`) and the libraries in `tts/` (`ears_synthesis`). What is said and how follows
from kind, worker and seed, so that a shard can be made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from relay_models.training.ears_synthesis import open_synthesiser
from relay_models.training.voice_data import SPEAKERS, Recordings, load_texts, tidy


def synthesise(root: Path, kind: str, *, seed: int, worker: int, workers: int, clips: int) -> Recordings:
    """A worker's clips: every `workers`-th sentence, from number `worker` on, of an order of the kind's own."""
    texts = load_texts(root / "texts.json.xz")
    order = np.random.default_rng((seed, SPEAKERS.index(kind))).permutation(len(texts))
    synthesiser = open_synthesiser(kind, root / "tts")
    parts = []
    for index in order[worker::workers][:clips].tolist():
        text, spelled = texts[index]
        samples, rate_hz, _ = synthesiser.say(text, np.random.default_rng((seed, index)))
        clip = tidy(samples.astype(np.float32) / 32768, rate_hz)
        if clip is not None:
            parts.append((clip, spelled, kind, str(index)))
    return Recordings.join(parts)


def main() -> None:
    """Command line: one worker."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=SPEAKERS[1:], required=True)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clips", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made = synthesise(args.root, args.kind, seed=args.seed, worker=args.worker, workers=args.workers, clips=args.clips)
    made.save_raw(args.out / f"{args.kind}-{args.worker:02}")


if __name__ == "__main__":
    main()
