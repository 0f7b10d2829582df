"""The page in a real Firefox, talking to a real server process."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.web.browser import MICROPHONE_HZ, SPY, ServerProcess
from tests.web.firefox import Firefox, firefox_path

pytestmark = [
    pytest.mark.skipif(firefox_path() is None, reason="Firefox is not installed (apt-get install firefox-esr)"),
    pytest.mark.timeout(240),
]

PRELOAD = f"() => {{ {SPY} }}"
CLICK = "document.getElementById('talk').click()"
STATE = "document.body.dataset.state"

# An offline context needs no sound card: half a second of a ramp, played by the real worklet at 48 kHz. It does not
# wait for messages to its worklets: when it was done before the ramp had arrived, there is nothing to see (null).
RENDER = """(async () => {
  const context = new OfflineAudioContext(1, 36000, 48000);
  await Promise.all(["capture", "playback"].map((side) => context.audioWorklet.addModule(`/${side}-worklet.js`)));
  new AudioWorkletNode(context, "relay-capture", { numberOfOutputs: 0 });
  const node = new AudioWorkletNode(context, "relay-playback", { numberOfInputs: 0, outputChannelCount: [1] });
  node.connect(context.destination);
  node.port.postMessage({ type: "audio", index: 1, first: 0, pcm: Int16Array.from({ length: 12000 }, (_, i) => i) });
  node.port.postMessage({ type: "end", index: 1 });
  const rendered = (await context.startRendering()).getChannelData(0);
  const start = rendered.findIndex((x) => x > 0.03);
  if (start < 0 || start > 10000) return null;
  return { start: rendered[start], later: rendered[start + 10000], end: rendered[35999] };
})()"""


@pytest.fixture
def sound_card(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A PulseAudio of the test's own, whose microphone hears what is played to `question`: variables to reach it."""
    if shutil.which("pulseaudio") is None or shutil.which("paplay") is None:
        pytest.skip("no virtual sound card (apt-get install pulseaudio pulseaudio-utils)")
    socket = tmp_path / "sound-card"
    modules = [
        "module-null-sink sink_name=loudspeaker",
        "module-null-sink sink_name=question",
        "module-remap-source source_name=microphone master=question.monitor",
        f"module-native-protocol-unix socket={socket} auth-anonymous=1",
    ]
    daemon_variables = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    daemon_variables.pop("PULSE_SERVER", None)  # the daemon refuses to start beside a server that it is told of
    variables = {**daemon_variables, "PULSE_SERVER": f"unix:{socket}"}
    command = ["pulseaudio", "-n", "--exit-idle-time=-1", *(f"--load={module}" for module in modules)]
    with subprocess.Popen(
        command, env=daemon_variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as daemon:
        try:
            defaults = "pactl set-default-source microphone && pactl set-default-sink loudspeaker"
            until = f"until {defaults}; do sleep 0.1; done 2> /dev/null"
            subprocess.run(["sh", "-c", until], env=variables, check=True, timeout=30)
            yield variables
        finally:
            daemon.terminate()


def test_a_typed_turn_without_a_sound_card(server: ServerProcess, tmp_path: Path) -> None:
    silent = {**os.environ, "PULSE_SERVER": "unix:/nonexistent"}
    with Firefox(tmp_path, PRELOAD, silent) as firefox:
        firefox.goto(server.url)
        rendered = next(filter(None, (firefox.evaluate(RENDER) for _ in range(50))))
        assert rendered["later"] - rendered["start"] == pytest.approx(5000 / 32768, abs=1e-4)
        assert rendered["end"] == 0
        firefox.evaluate("(document.getElementById('text').value = 'Hello.', document.forms[0].requestSubmit())")
        firefox.until("document.querySelector('.reply .word')?.textContent")
        assert firefox.evaluate("document.querySelector('.user .stable').textContent") == "Hello."
        firefox.evaluate("document.getElementById('open-settings').click()")
        firefox.until("document.querySelector('dialog[open] [name=microphone]').options.length > 0")
        hidden = firefox.evaluate("document.getElementById('loudspeaker-field').hidden")
        assert hidden != firefox.evaluate("'setSinkId' in AudioContext.prototype")
        assert firefox.complaints == []


def test_a_spoken_turn(
    server: ServerProcess,
    speech: np.ndarray[Any, np.dtype[np.float64]],
    sound_card: dict[str, str],
    tmp_path: Path,
) -> None:
    asked = np.tile(np.concatenate([speech, np.zeros(12 * MICROPHONE_HZ)]), 5)  # again, if it was not understood
    asked += np.random.default_rng(0).normal(0, 0.001, len(asked))
    soundfile.write(tmp_path / "question.wav", asked, MICROPHONE_HZ, subtype="PCM_16")
    profile = tmp_path / "profile"
    profile.mkdir()
    with Firefox(profile, PRELOAD, sound_card) as firefox:
        firefox.goto(server.url)
        firefox.evaluate(CLICK)
        firefox.until(f"{STATE} === 'listening' && document.body.dataset.microphone === 'open'")
        play = ["paplay", "--device=question", str(tmp_path / "question.wav")]
        with subprocess.Popen(play, env=sound_card) as player:
            try:
                firefox.until(f"{STATE} === 'hearing'")
                firefox.until(f"{STATE} === 'speaking'")
                firefox.until("window.spy.events.some(({ type }) => type === 'finished')")
            finally:
                player.terminate()
        finished = firefox.evaluate("window.spy.events.find(({ type }) => type === 'finished')")
        assert finished["played"] > 0
        assert firefox.evaluate("window.spy.loudest") > 0.01
        firefox.until("document.querySelectorAll('.reply .word.heard').length > 0")
        firefox.until("document.querySelectorAll('.reply .word.ahead:not(:empty)').length === 0")
        assert firefox.evaluate("document.querySelectorAll('.reply .bar .part').length") >= 4
        assert firefox.complaints == []
