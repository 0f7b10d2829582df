"""The wheel, installed into an empty environment, carries a spoken turn: nothing needed is missing from it."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_the_wheel_answers_a_spoken_question(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[cpu]"]
    subprocess.run(install, check=True, capture_output=True, cwd=tmp_path)

    listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout.lower()
    heavy = {"torch", "nvidia", "transformers", "pocketsphinx", "espeakng-loader"}
    assert not heavy & set(listed.split()), "the light install is light"

    command = [tmp_path / "env" / "bin" / "relay", "demo", "--json", "--output", tmp_path / "reply.wav"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "restaurant" in report["transcript"]
    assert report["reply"]
    reply, _ = soundfile.read(tmp_path / "reply.wav")
    assert np.abs(reply).max() > 0.05
