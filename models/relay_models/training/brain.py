"""Trains the embedded language model: `python -m relay_models.training.brain DATA OUT`.

Three phases under one learning-rate schedule (warm-up, constant, cosine to zero): books with some dialogue; mostly
dialogue, predicted on both sides; then replies fit to be spoken. AdamW, dropout, an average of the weights over
the last steps (EMA), bfloat16 on CUDA. Checkpoints are safetensors; a run goes on from its last one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from relay_models.decoder import Decoder, DecoderConfig
from relay_models.tokenizer import ChatTokenizer
from relay_models.training.brain_data import CONTEXT, Corpus, Rows, build
from relay_models.training.brain_samples import SCRIPTS, converse

OPEN_SOURCES = ("self_dialogue_corpus", "topical_chat", "taskmaster3", "taskmaster4")
"""Sources whose licences put no condition on weights."""
MEASURED = ("sgd",)
"""Sources that are only measured against: `sgd` is CC BY-SA 4.0, and whether weights inherit that is unsettled."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Part of a run.

    Attributes:
        steps: Its length.
        shares: Share of the rows by source; `people` is all human dialogues in proportion to their size.
        weights: Weight of predicting padding, the user's, the assistant's and unfit tokens.
    """

    steps: int
    shares: Mapping[str, float]
    weights: tuple[float, float, float, float]


PHASES = (
    Phase(2400, {"books": 0.65, "people": 0.25, "relay_rules": 0.10}, (0.0, 1.0, 1.0, 1.0)),
    Phase(2800, {"books": 0.10, "people": 0.60, "relay_rules": 0.30}, (0.0, 0.4, 1.0, 1.0)),
    Phase(2300, {"books": 0.04, "people": 0.31, "relay_rules": 0.65}, (0.0, 0.1, 1.0, 0.0)),
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on, apart from the data.

    Attributes:
        rows: Rows of `CONTEXT` tokens a step.
        learning_rate: The highest.
        warm_up: Steps up to it.
        decay: Share of all steps over which it falls to zero at the end.
        weight_decay: Of matrices.
        dropout: Of the model.
        ema: Decay of the averaged weights.
        clip: Largest norm of the gradient.
        seed: Of initial weights and batches.
    """

    rows: int = 64
    learning_rate: float = 2e-3
    warm_up: int = 200
    decay: float = 0.35
    weight_decay: float = 0.1
    dropout: float = 0.1
    ema: float = 0.998
    clip: float = 1.0
    seed: int = 0


class Batches:
    """All rows on the device; batches drawn by source. The batch of a step depends on the seed and the step only."""

    def __init__(self, corpus: Mapping[str, Rows], device: torch.device, seed: int) -> None:
        self._device = device
        self._seed = seed
        self._groups: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for source, rows in corpus.items():
            group = source if source in ("books", "relay_rules") else "people"
            tensors = tuple(
                torch.from_numpy(array).to(device)
                for array in (rows.tokens.astype("int16"), rows.kinds, rows.documents)
            )
            if len(rows):
                self._groups.setdefault(group, []).append(tensors)  # type: ignore[arg-type]
        self._joined = {
            group: tuple(torch.cat(parts) for parts in zip(*tables, strict=True))
            for group, tables in self._groups.items()
        }

    def draw(self, step: int, rows: int, shares: Mapping[str, float]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [rows, context] int64, kinds and documents [rows, context] uint8."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        names = [name for name in shares if name in self._joined]
        counts = torch.multinomial(
            torch.tensor([shares[n] for n in names]), rows, replacement=True, generator=generator
        )
        parts = []
        for index, name in enumerate(names):
            table = self._joined[name]
            picked = torch.randint(len(table[0]), (int((counts == index).sum()),), generator=generator).to(self._device)
            parts.append(tuple(column[picked] for column in table))
        tokens, kinds, documents = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return tokens.long(), kinds, documents


def losses(model: Decoder, tokens: Tensor, documents: Tensor) -> Tensor:
    """Negative log-likelihood in nats of tokens 1.. of each row: [rows, context - 1]."""
    hidden = model.hidden(tokens, documents=documents)
    logits = model.lm_head(hidden[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none").view(
        len(tokens), -1
    )


def targets_of(kinds: Tensor, documents: Tensor) -> Tensor:
    """Kind of each target [rows, context - 1]; a document's first token follows from nothing and counts as padding."""
    return kinds[:, 1:] * (documents[:, 1:] == documents[:, :-1])


@torch.no_grad()
def perplexities(
    model: Decoder, held_out: Mapping[str, Rows], device: torch.device, *, rows: int = 64
) -> dict[str, dict[str, float]]:
    """Held-out perplexity a token by source: of all tokens, and of the assistant's."""
    model.eval()
    result = {}
    for source, table in held_out.items():
        sums = torch.zeros(2, 2, dtype=torch.float64)
        for start in range(0, min(len(table), 16 * rows), rows):
            part = slice(start, start + rows)
            tokens = torch.from_numpy(table.tokens[part].astype("int64")).to(device)
            kinds, documents = (torch.from_numpy(a[part]).to(device) for a in (table.kinds, table.documents))
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = losses(model, tokens, documents)
            kind = targets_of(kinds, documents)
            for index, mask in enumerate((kind > 0, kind >= 2)):
                sums[index] += torch.tensor([loss[mask].sum().item(), mask.sum().item()], dtype=torch.float64)
        if sums[0, 1]:
            every, assistant = (sums[:, 0] / sums[:, 1].clamp(min=1)).exp().tolist()
            result[source] = {"all": round(every, 2), "assistant": round(assistant, 2), "tokens": int(sums[0, 1])}
    model.train()
    return result


def rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Learning rate of a step."""
    start = total * (1 - recipe.decay)
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    if step < start:
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - start) / (total - start)))


def train(
    config: DecoderConfig,
    corpus: Corpus,
    recipe: Recipe,
    phases: Sequence[Phase],
    out: Path,
    *,
    device: torch.device,
    checkpoint_steps: int = 1000,
) -> Decoder:
    """Trains one model, from the last checkpoint in `out` if there is one, and returns it with its averaged weights."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model = Decoder(config, dropout=recipe.dropout)
    initialise(model)
    model = model.to(device)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate, betas=(0.9, 0.95), fused=device.type == "cuda",
    )  # fmt: skip
    average = [p.detach().clone() for p in model.parameters()]
    step = restore(out, model, optimizer, average, device)
    batches = Batches(corpus.training, device, recipe.seed)
    total = sum(phase.steps for phase in phases)
    plan = [phase for phase in phases for _ in range(phase.steps)]
    # Compiled for CUDA only: a trial on a CPU is over before its compilation would be.
    compute: Callable[[Decoder, Tensor, Tensor], Tensor] = torch.compile(losses) if device.type == "cuda" else losses
    began, seen = time.monotonic(), 0
    while step < total:
        phase = plan[step]
        tokens, kinds, documents = batches.draw(step, recipe.rows, phase.shares)
        weights = torch.tensor(phase.weights, device=device)[targets_of(kinds, documents).long()]
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, total, recipe)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = (compute(model, tokens, documents) * weights).sum() / weights.sum().clamp(min=1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        kept = min(recipe.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - kept)
        step += 1
        seen += tokens.numel()
        if step % 100 == 0:
            speed = seen / (time.monotonic() - began) / 1e6
            rate = rate_at(step, total, recipe)
            print(
                f"step {step}/{total} loss {loss.item():.3f} rate {rate:.2e} {speed:.2f} Mtok/s",
                flush=True,
            )
        if step % checkpoint_steps == 0 or step == total:
            print(f"step {step} held out {json.dumps(perplexities(model, corpus.held_out, device))}", flush=True)
            checkpoint(out, model, optimizer, average, step)
    with torch.no_grad():
        for parameter, mean in zip(model.parameters(), average, strict=True):
            parameter.copy_(mean)
    return model.eval()


def initialise(model: Decoder) -> None:
    """Normal weights of 0.02; what is added to the residual stream starts smaller, by its number of additions."""
    additions = 2 * model.config.num_hidden_layers
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            scale = additions**-0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            torch.nn.init.normal_(parameter, std=0.02 * scale)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(parameter)


def checkpoint(
    out: Path, model: Decoder, optimizer: torch.optim.Optimizer, average: Sequence[Tensor], step: int
) -> None:
    """Writes everything a run needs to go on, as one safetensors file."""
    tensors = {"step": torch.tensor(step)}
    for index, parameter in enumerate(model.parameters()):
        state = optimizer.state[parameter]
        tensors |= {f"{index}.value": parameter.detach().clone(), f"{index}.average": average[index].clone()}
        tensors |= {f"{index}.{name}": state[name].clone() for name in ("exp_avg", "exp_avg_sq", "step")}
    save_file(tensors, out / "checkpoint.partial")
    (out / "checkpoint.partial").replace(out / "checkpoint.safetensors")


def restore(
    out: Path, model: Decoder, optimizer: torch.optim.Optimizer, average: list[Tensor], device: torch.device
) -> int:
    """Reads the checkpoint of `out`, if there is one; gives the number of steps done."""
    path = out / "checkpoint.safetensors"
    if not path.exists():
        return 0
    tensors = load_file(path, device=str(device))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(tensors[f"{index}.value"])
            average[index].copy_(tensors[f"{index}.average"])
            optimizer.state[parameter] = {
                name: tensors[f"{index}.{name}"].cpu()
                if name == "step" and device.type == "cpu"
                else tensors[f"{index}.{name}"]
                for name in ("exp_avg", "exp_avg_sq", "step")
            }
    return int(tensors["step"])


def save_weights(model: Decoder, folder: Path, *, part_bytes: int = 16_500_000) -> None:
    """The weights as float16 safetensors in parts, and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: t.half().cpu().contiguous() for n, t in model.state_dict().items() if n != "lm_head.weight"}
    parts: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if sum(t.nbytes for t in parts[-1].values()) + tensor.nbytes > part_bytes:
            parts.append({})
        parts[-1][name] = tensor
    for index, part in enumerate(parts):
        save_file(part, folder / f"weights-{index}.safetensors")
    config = {"model_type": "qwen2", **asdict(model.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with books.txt.gz, dialogues.jsonl.gz, prompts.txt.gz")
    parser.add_argument("out", type=Path, help="folder for checkpoint and weights")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--variants", type=json.loads, default={"base": {}}, help="JSON: name -> {recipe field: value}")
    parser.add_argument("--by-rule", type=int, default=240_000, help="dialogues to make by rule")
    parser.add_argument("--copies", type=int, default=4, help="readings of each human dialogue")
    parser.add_argument("--scale", type=float, default=1.0, help="shrinks phases and data, for trials")
    parser.add_argument("--layers", type=int, default=DecoderConfig().num_hidden_layers)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    tokenizer = ChatTokenizer.load(args.tokenizer)
    config = DecoderConfig(vocab_size=tokenizer.size, num_hidden_layers=args.layers, max_position_embeddings=CONTEXT)
    began = time.monotonic()
    corpus = build(
        args.data,
        args.tokenizer,
        sources=OPEN_SOURCES,
        measured=MEASURED,
        by_rule=int(args.by_rule * args.scale),
        copies=args.copies,
        share=args.scale,
    )
    sizes = {source: int((rows.kinds > 0).sum()) for source, rows in corpus.training.items()}
    print(f"read in {time.monotonic() - began:.0f} s; tokens: {json.dumps(sizes)}", flush=True)
    for name, changes in args.variants.items():
        steps = changes.pop("steps", 1.0) * args.scale
        phases = [Phase(max(1, int(p.steps * steps)), p.shares, p.weights) for p in PHASES]
        recipe = Recipe(**changes)
        print(f"== {name}: {recipe}; {[p.steps for p in phases]} steps", flush=True)
        began = time.monotonic()
        model = train(config, corpus, recipe, phases, args.out / name, device=device)
        scores = json.dumps(perplexities(model, corpus.held_out, device))
        print(f"{name}: {time.monotonic() - began:.0f} s; averaged weights, held out {scores}")
        save_weights(model, args.out / f"{name}-weights")
        for script in SCRIPTS:
            print(converse(model.eval(), tokenizer, script, seed=1), flush=True)


if __name__ == "__main__":
    main()
