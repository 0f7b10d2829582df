"""The page's pure parts, run by Node's own test runner: no browser, no server."""

import shutil
import subprocess
from pathlib import Path

import playwright
import pytest

HERE = Path(__file__).parent


def node() -> str | None:
    """The Node.js that Playwright brings along, or else this machine's (20 or newer)."""
    bundled = Path(playwright.__file__).parent / "driver" / "node"
    return str(bundled) if bundled.exists() else shutil.which("node")


@pytest.mark.skipif(node() is None, reason="Node.js is not installed; the page's tests need nodejs >= 20")
@pytest.mark.parametrize("suite", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_suite(suite: str) -> None:
    command = [str(node()), "--test", suite]
    run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
