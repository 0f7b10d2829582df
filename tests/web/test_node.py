"""The page's pure parts, run by Node's own test runner: no browser, no server."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="Node.js is not installed; install nodejs >= 20 to test the page's JavaScript")
@pytest.mark.parametrize("suite", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_suite(suite: str) -> None:
    assert NODE is not None
    run = subprocess.run([NODE, "--test", suite], cwd=HERE, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
