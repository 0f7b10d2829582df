"""How often people agree with the labels of the verifier's examples.

    python -m relay_models.training.verifier_check TSV

TSV is examples.tsv of `drafts`, the column "by hand" filled in: y where the drafted words are a sound beginning of a
reply to what was asked, n where they are not, ? where nobody can tell.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path


def agreement(path: Path) -> dict[str, float]:
    """Counts of a checked table.

    Returns:
        `checked`: rows with y or n; `unsure`: with ?; `agree`: share of the checked whose label is the same;
        `called_good`, `called_bad`: shares of the rows labelled so that people label so too.

    Raises:
        ValueError: A row holds something else, or none is checked.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    counts: Counter[tuple[bool, str]] = Counter()
    for number, row in enumerate(rows, start=2):
        by_hand = (row.get("by hand") or "").strip().lower()
        if by_hand not in ("", "y", "n", "?"):
            raise ValueError(f"line {number}: the last column holds y, n, ? or nothing, not {by_hand!r}")
        counts[row["good"] == "True", by_hand] += 1
    good, bad = counts[True, "y"] + counts[True, "n"], counts[False, "y"] + counts[False, "n"]
    if not good + bad:
        raise ValueError("no row is checked: write y or n into the last column")
    return {
        "checked": good + bad,
        "unsure": counts[True, "?"] + counts[False, "?"],
        "agree": (counts[True, "y"] + counts[False, "n"]) / (good + bad),
        "called_good": counts[True, "y"] / good if good else float("nan"),
        "called_bad": counts[False, "n"] / bad if bad else float("nan"),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", type=Path)
    args = parser.parse_args()
    try:
        print(json.dumps(agreement(args.table)))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{args.table}: {error}") from error


if __name__ == "__main__":
    main()
