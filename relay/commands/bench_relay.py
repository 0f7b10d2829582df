"""`relay bench quality --part relay`: whether replies that a draft began are as good as the language model's own."""

from __future__ import annotations

import asyncio
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from relay.commands.bench_paths import percent
from relay.commands.console import note
from relay.commands.report import check_writable, is_stdout, require, write_report
from relay.config import Device
from relay.engine import fast
from relay.errors import EngineUnavailable, UsageError, WeightsError
from relay_models import loading


@dataclass(frozen=True, slots=True)
class RelayQualityOptions:
    """What `relay bench quality --part relay` was asked.

    Attributes:
        manifest: JSON lines of written dialogues.
        dialogues: How many of them; None: all.
        device: Where the models run.
        seed: Of voices, rooms and times.
        json: Where to write the report; `-` is stdout.
        models_dir: Where models of the user's own are.
    """

    manifest: Path
    dialogues: int | None = None
    device: Device = "cpu"
    seed: int = 0
    json: Path | None = None
    models_dir: Path | None = None


async def bench_relay(options: RelayQualityOptions) -> int:
    """Measures, writes the report and prints its summary. Returns the exit status.

    Raises:
        UsageError: Weights are not here, the dialogues are none, or a file cannot be written.
        EngineUnavailable: The benchmark package, torch or the synthesiser is missing.
        WeightsError: Weights are damaged.
    """
    require("relay_benchmarks", "bench")
    check_writable(options.json)
    try:
        folders = fast.folders("relay", options.models_dir)
    except WeightsError as error:
        raise UsageError(str(error)) from error
    if importlib.util.find_spec("torch") is None:
        raise EngineUnavailable("--part relay needs torch: pip install 'relay-dialogue[gpu]'")
    from relay_benchmarks import relay_quality
    from relay_benchmarks.latency import machine

    dialogues = relay_quality.read_dialogues(options.manifest, options.dialogues)
    device = relay_quality.resolve_device(options.device)
    try:
        brain = loading.locate("brain")
    except loading.WeightsError as error:
        raise WeightsError(str(error)) from error
    result = await asyncio.to_thread(
        relay_quality.examine, dialogues, folders, brain, device=device, seed=options.seed, progress=note
    )
    config = {"dialogues": len(dialogues), "seed": options.seed, "device": device, "transcript": "the true one"}
    write_report({"machine": machine(), "config": config, "result": result}, options.json)
    if not is_stdout(options.json):
        _print(result)
    return 0


def _print(result: dict[str, Any]) -> None:
    console = Console(highlight=False)
    bad = result["bad_commit_rate"]
    console.print(
        f"{result['replies']} replies, {percent(result['commit_rate'])} begun by the draft, "
        f"{percent(bad)} of these badly; {result['empty_drafts']} drafts empty"
    )
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for name in ("replies", "by", "log-likelihood, nats a token", "words of the true reply (F1)"):
        table.add_column(name, justify="right" if name[0] in "lw" else "left")
    for of, kinds in result["ratings"].items():
        for kind, rated in kinds.items():
            if rated["nats_a_token"] is not None:
                table.add_row(of, kind, f"{rated['nats_a_token']:.2f}", f"{rated['word_overlap']:.2f}")
    console.print(table)
    judged = result["verifier"]
    if judged is not None:
        kept, caught, area = (_percent_or_dash(judged[name]) for name in ("good_kept", "bad_caught", "auc"))
        error = judged["calibration_error"]
        console.print(
            f"verifier: {kept} of the good drafts kept, {caught} of the bad caught, area under the ROC {area}, "
            f"calibration error {error:.3f}; {judged['good'] * 100:.0f} % of {judged['examples']} are good"
        )
    ends = result["turn_ends"]
    console.print(
        f"{ends['ends']} turn ends, {ends['pauses']} pauses: "
        + "; ".join(
            f"by {name.replace('_', ' ')} {percent(ends[name]['pauses_taken'])} of the pauses taken, ends after "
            f"{ends[name]['end_ms']['mean']} ms (mean), {ends[name]['end_ms']['p95']} ms (P95)"
            for name in ("words", "words_and_draft")
        )
    )


def _percent_or_dash(share: float) -> str:
    return "-" if math.isnan(share) else percent(share)
