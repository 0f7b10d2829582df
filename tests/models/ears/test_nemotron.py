"""Published checkpoints: transformers makes one with random weights and says what it hears; ours must say the same."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor

from relay.engine import catalog
from relay.engine.catalog import EarsOptions
from relay.engine.ears import EarsInput, EarsOutput
from relay_models.checkpoints.nemotron import load_nemotron, read_ears_config, rename
from relay_models.decoding import GreedyTransducer
from relay_models.ears import Ears
from relay_models.ears_folder import load_pieces
from relay_models.ears_stream import EarsStream
from relay_models.loading import WeightsError
from relay_models.state import StreamState, valid_positions
from relay_models.training.ears_eval import tokens_of as tokens_heard
from tests.models.ears.tiny import bursts, loud, talkative

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

MELS, BLANK, RIGHTS, LENGTHS = 21, 12, (0, 1, 6, 13), (64_321, 40_000)
torch.set_num_threads(1)


@dataclass
class Pair:
    """Their model, ours, and the same recordings as both hear them."""

    theirs: Any
    ours: Ears
    folder: Path
    pcm: Tensor
    features: Tensor
    mask: Tensor


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from transformers import (
        NemotronAsrStreamingConfig,
        NemotronAsrStreamingFeatureExtractor,
        NemotronAsrStreamingForRNNT,
    )

    config = NemotronAsrStreamingConfig(
        vocab_size=BLANK + 1,
        decoder_hidden_size=10,
        num_decoder_layers=2,
        max_symbols_per_step=3,
        blank_token_id=BLANK,
        encoder_config={
            "hidden_size": 18,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "intermediate_size": 22,
            "conv_kernel_size": 5,
            "subsampling_conv_channels": 7,
            "num_mel_bins": MELS,
            "sliding_window": 29,
            "default_num_lookahead_tokens": 6,
            "attention_bias": False,
        },
    )
    theirs = NemotronAsrStreamingForRNNT(config).eval()
    theirs.generation_config.decoder_start_token_id = BLANK
    theirs.generation_config.eos_token_id = None
    loud(theirs)
    extractor = NemotronAsrStreamingFeatureExtractor(feature_size=MELS)
    pcm = bursts(2, max(LENGTHS))
    heard = extractor([row[:length].numpy() for row, length in zip(pcm, LENGTHS, strict=True)], sampling_rate=16_000)
    with torch.no_grad():
        frames = theirs.get_audio_features(heard.input_features[:1]).last_hidden_state[0]
        predicted = theirs.decoder(torch.arange(BLANK)[None])[0]
        talkative(theirs.encoder_projector, theirs.joint.head, frames, predicted, blank_bias=1.0)
    folder = tmp_path_factory.mktemp("nemotron")
    theirs.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return Pair(theirs, load_nemotron(folder), folder, pcm, heard.input_features, heard.attention_mask)


def tokens_of(generated: Any, row: int) -> list[tuple[int, int]]:
    """Their tokens with the frames at which they were said."""
    frames = (generated.durations[row].cumsum(0) - generated.durations[row]).tolist()[1:]
    tokens = generated.sequences[row].tolist()[1:]
    return [(token, frame) for token, frame in zip(tokens, frames, strict=True) if token != BLANK]


def test_the_front_ends_agree(pair: Pair) -> None:
    features, counts = pair.ours.features(pair.pcm, torch.tensor(LENGTHS))
    assert counts.tolist() == pair.mask.sum(1).tolist()
    torch.testing.assert_close(features, pair.features[:, : features.shape[1]], atol=1e-4, rtol=0)


@pytest.mark.parametrize("right", RIGHTS)
def test_whole_recordings_give_the_same_frames_and_tokens(pair: Pair, right: int) -> None:
    with torch.no_grad():
        theirs = pair.theirs.get_audio_features(pair.features, pair.mask, num_lookahead_tokens=right)
        ours = pair.ours(pair.features, pair.mask.sum(1), right)
        generated = pair.theirs.generate(
            input_features=pair.features, attention_mask=pair.mask, num_lookahead_tokens=right, max_length=1000
        )
    assert ours.lengths.tolist() == theirs.attention_mask.sum(1).tolist()
    greedy = GreedyTransducer(pair.ours.predictor, pair.ours.joint)
    emissions, _ = greedy.step(
        ours.frames, valid_positions(ours.lengths, ours.frames.shape[1]), StreamState(greedy.fresh_tensors(2))
    )
    for row, said in enumerate(emissions.by_row()):
        count = int(ours.lengths[row])
        torch.testing.assert_close(ours.frames[row, :count], theirs.last_hidden_state[row, :count], atol=1e-5, rtol=0)
        # The shorter row waits for the longer one on padding frames, where theirs goes on talking.
        wanted = [token for token in tokens_of(generated, row) if token[1] < count]
        assert [(token.number, token.frame) for token in said] == wanted
        assert len({token for token, _ in wanted}) > 3


@pytest.mark.parametrize("right", RIGHTS)
def test_streams_give_the_same_frames_and_tokens(pair: Pair, right: int) -> None:
    """Theirs is fed mel chunks of the sizes it asks for, ours samples in pieces of 700."""
    mels, chunk = int(pair.mask[0].sum()), 8 * (right + 1)
    edges = [0, *range(1 + 8 * right, mels + 1, chunk)]
    chunks = [pair.features[:1, a:b] for a, b in itertools.pairwise(edges)]
    frames, keys, padding = [], None, None
    with torch.no_grad():
        for piece in chunks:
            output = pair.theirs.get_audio_features(
                piece, num_lookahead_tokens=right, use_cache=True, past_key_values=keys, padding_cache=padding
            )
            keys, padding = output.past_key_values, output.padding_cache
            frames.append(output.last_hidden_state)

        def feed() -> Iterator[Tensor]:
            yield from chunks

        generated = pair.theirs.generate(input_features=feed(), num_lookahead_tokens=right)
    theirs = torch.cat(frames, dim=1)

    stream = EarsStream(pair.ours, right=right)
    state = stream.fresh_state(1, push_samples=700)
    said, ours = [], []
    for piece in pair.pcm[:1].split(700, dim=1):
        stream.push(piece, torch.tensor([piece.shape[1]]), state)
        while stream.ready(state).any():
            heard, _ = stream.step(state)
            said += [(token.number, token.frame) for token in heard.emissions.by_row()[0]]
            ours.append(heard.frames[heard.valid])
    torch.testing.assert_close(torch.cat(ours), theirs[0], atol=1e-4, rtol=0)
    assert said == tokens_of(generated, 0)


def test_every_tensor_has_a_place(pair: Pair) -> None:
    assert {rename(name) for name in pair.theirs.state_dict()} == set(pair.ours.state_dict())


def test_the_default_look_ahead_comes_first(pair: Pair) -> None:
    assert pair.ours.config.encoder.rights == (6, 13, 1, 0)


def rewrite(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of the folder with other settings in config.json."""
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def test_settings_of_the_processor_are_read(pair: Pair, tmp_path: Path) -> None:
    folder = rewrite(pair.folder, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    settings = {
        "supported_num_lookahead_tokens": [3, 6],
        "feature_extractor": {"feature_size": MELS, "preemphasis": None, "mel_filters_dtype": "bfloat16"},
    }
    (folder / "processor_config.json").write_text(json.dumps(settings))
    config = read_ears_config(folder)
    assert config.encoder.rights == (6, 3)
    assert (config.features.preemphasis, config.features.constants) == (0.0, "bfloat16")
    (folder / "processor_config.json").write_text("{")
    with pytest.raises(WeightsError, match="processor_config"):
        read_ears_config(folder)


def test_weights_in_several_files_are_read(pair: Pair, tmp_path: Path) -> None:
    folder = rewrite(pair.folder, tmp_path)
    pair.theirs.save_pretrained(folder, max_shard_size="10KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("*.safetensors"))) > 1
    twin = load_nemotron(folder).state_dict()
    assert all(torch.equal(tensor, twin[name]) for name, tensor in pair.ours.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "whisper"}, "whisper"),
        ({"blank_token_id": 0}, "blank_token_id"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"encoder_config": {}}, "num_mel_bins"),
        ({"vocab_size": 20, "blank_token_id": 19}, "do not fit"),
    ],
)
def test_models_built_otherwise_are_refused(pair: Pair, tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(WeightsError, match=named):
        load_nemotron(rewrite(pair.folder, tmp_path, **changes))


def test_missing_weights_are_told(pair: Pair, tmp_path: Path) -> None:
    folder = rewrite(pair.folder, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_nemotron(folder)


@pytest.mark.parametrize("asked_ms", [None, 80])
def test_a_published_checkpoint_is_an_engine(pair: Pair, tmp_path: Path, asked_ms: int | None) -> None:
    pieces = {f"▁{letter}": number for number, letter in enumerate("abcdefghijkl"[:BLANK])}
    folder = shutil.copytree(pair.folder, tmp_path / "published")
    Tokenizer(BPE({**pieces, "<blank>": BLANK}, [])).save(str(folder / "tokenizer.json"))
    runner = catalog.ears(str(folder), EarsOptions(lookahead_ms=asked_ms, device="cpu"))
    assert catalog.lookaheads_ms(str(folder))[0] == 480
    runner.load()
    runner.open(0)
    pcm = (pair.pcm[0].numpy() * 32767).astype(np.int16)
    (heard,) = runner.step([0], [EarsInput(pcm, final=True)])
    assert isinstance(heard, EarsOutput), heard
    with torch.no_grad():
        features, counts = pair.ours.features(torch.from_numpy(pcm)[None] / 32768, torch.tensor([len(pcm)]))
        frames, lengths, _ = pair.ours(features, counts, 6 if asked_ms is None else 1)
    (tokens,) = tokens_heard(GreedyTransducer(pair.ours.predictor, pair.ours.joint), frames, lengths)
    assert heard.stable.split() == ["abcdefghijkl"[token] for token in tokens]
    assert len(tokens) > 3


def test_pieces_come_from_the_tokenizer(tmp_path: Path) -> None:
    Tokenizer(BPE({"▁the": 0, "s": 1, "<blank>": 2}, [])).save(str(tmp_path / "tokenizer.json"))
    assert load_pieces(tmp_path) == ["▁the", "s", "<blank>"]
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        load_pieces(tmp_path / "nowhere")
