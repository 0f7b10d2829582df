"""Packs a trained voice: `python -m relay_models.training.voice_ship OUT FOLDER [--ship]`.

OUT is what `relay_models.training.voice` left; FOLDER gets the graphs and the weights of the one voice that ships, in
int8. `--ship` enters FOLDER into the manifest of shipped weights; it is then `weights/voice` of this package.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from relay_models import loading
from relay_models.training.voice import take_up
from relay_models.training.voice_data import KATHLEEN, SPEAKERS
from relay_models.voice import Voice, VoiceConfig
from relay_models.voice_export import export_voice, narrowed


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="{}", help="as it was trained with")
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    voice = Voice(VoiceConfig.from_dict({"speakers": len(SPEAKERS), **json.loads(args.config)}))
    if not take_up({"voice": voice}, args.out):
        raise loading.WeightsError(f"{args.out} holds no trained voice")
    export_voice(narrowed(voice, SPEAKERS.index(KATHLEEN)), args.folder)
    if args.ship:
        summary = (
            f"English voice {KATHLEEN}, streaming, {sum(p.numel() for p in voice.parameters()) / 1e6:.1f} M parameters"
        )
        loading.add_to_manifest(
            args.folder.name, loading.describe(args.folder.name, args.folder, kind="voice", summary=summary)
        )


if __name__ == "__main__":
    main()
