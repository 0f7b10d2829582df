"""A PulseAudio of a test's own in place of a sound card, reached by PortAudio through ALSA."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ALSA = """
pcm.!default { type pulse }
ctl.!default { type pulse }
"""
_SYSTEM_ALSA = Path("/usr/share/alsa/alsa.conf")


def missing() -> str | None:
    """What is not installed, and the command that installs it."""
    programs = all(shutil.which(name) for name in ("pulseaudio", "pactl", "paplay"))
    plugin = any(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so"))
    if programs and plugin and _SYSTEM_ALSA.exists() and ctypes.util.find_library("portaudio"):
        return None
    return "no virtual sound card (apt-get install pulseaudio pulseaudio-utils libasound2-plugins libportaudio2)"


class SoundCard:
    """A loudspeaker, and a microphone that hears what `say` plays.

    Attributes:
        variables: Environment of a program that uses it.
    """

    def __init__(self, daemon: subprocess.Popen[bytes], variables: dict[str, str]) -> None:
        self.variables = variables
        self._daemon = daemon

    def say(self, sound: Path) -> subprocess.Popen[bytes]:
        """Plays a sound file to the microphone."""
        return subprocess.Popen(["paplay", "--device=air", str(sound)], env=self.variables)

    def unplug(self) -> None:
        """Takes the card away."""
        self._daemon.kill()
        self._daemon.wait()


@contextmanager
def sound_card(folder: Path) -> Iterator[SoundCard]:
    """Runs one in an empty folder, for as long as the block lasts."""
    socket = folder / "socket"
    modules = [
        "module-null-sink sink_name=air",
        "module-null-sink sink_name=loudspeaker",
        "module-remap-source source_name=microphone master=air.monitor",
        f"module-native-protocol-unix socket={socket} auth-anonymous=1",
    ]
    (folder / "asound.conf").write_text(ALSA)
    own = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    own.pop("PULSE_SERVER", None)  # the daemon refuses to start beside a server that it is told of
    variables = {
        **own,
        "PULSE_SERVER": f"unix:{socket}",
        "ALSA_CONFIG_PATH": f"{_SYSTEM_ALSA}:{folder / 'asound.conf'}",
    }
    command = ["pulseaudio", "-n", "--exit-idle-time=-1", *(f"--load={module}" for module in modules)]
    with subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            defaults = "pactl set-default-source microphone && pactl set-default-sink loudspeaker"
            until = f"until {defaults}; do sleep 0.1; done 2> /dev/null"
            subprocess.run(["sh", "-c", until], env=variables, check=True, timeout=60)
            yield SoundCard(daemon, variables)
        finally:
            daemon.kill()
