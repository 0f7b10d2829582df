"""The examples of docs/client.md, run as they are printed, and checked as strictly as the library itself."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import relay
from tests import sound_card as virtual
from tests.commands.test_talk_devices import lines_until

ROOT = Path(relay.__file__).parent.parent
PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## ([^\n]*)\n[^#]*?```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
QUESTION = Path(relay.__file__).parent / "assets" / "question.wav"


async def run(tmp_path: Path, heading: str, *arguments: str) -> str:
    path = tmp_path / "example.py"
    path.write_text(EXAMPLES[heading])
    return await output_of(path, *arguments)


async def output_of(path: Path, *arguments: str) -> str:
    """What a program prints; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(path), *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 0, err.decode()
    return out.decode()


def test_the_examples_are_typed(tmp_path: Path) -> None:
    assert len(EXAMPLES) == 4
    for number, code in enumerate(EXAMPLES.values()):
        (tmp_path / f"example{number}.py").write_text(code)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        "pyproject.toml",
        *map(str, tmp_path.iterdir()),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_transcribe(serving: Any, tmp_path: Path) -> None:
    async def main() -> str:
        async with serving() as stand:
            return await run(tmp_path, "Transcribe a file live", stand.server.url, str(QUESTION))

    lines = asyncio.run(main()).splitlines()
    assert lines[-1] == "beep"
    assert "bee" in lines[0]


def test_load(serving: Any, tmp_path: Path) -> None:
    async def main() -> str:
        async with serving() as stand:
            return await run(tmp_path, "A load test", stand.server.url, "5")

    assert asyncio.run(main()).startswith("5 callers: median ")


@pytest.mark.skipif(virtual.missing() is not None, reason=str(virtual.missing()))
@pytest.mark.timeout(240)
def test_the_voice_bot(serving: Any, tmp_path: Path) -> None:
    (tmp_path / "card").mkdir()
    path = tmp_path / "bot.py"
    path.write_text(EXAMPLES["A voice bot in 20 lines"])

    async def main(card: virtual.SoundCard) -> list[str]:
        async with asyncio.timeout(200), serving() as stand:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(path), stand.server.url),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=card.variables,
            )
            try:
                return await lines_until(process, "Yes indeed.", lambda: card.say(QUESTION))
            finally:
                process.kill()
                await process.communicate()

    with virtual.sound_card(tmp_path / "card") as card:
        assert "beep" in asyncio.run(main(card))


def test_another_make(tmp_path: Path) -> None:
    """The example for OpenAI's endpoint, at a server that tells things as that does."""
    from tests.client.test_reconnect import read, say, server

    async def handle(socket: Any, number: int) -> None:
        await read(socket, "response.create")
        done = {"response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0, "text": "Paris."}
        await say(socket, "response.output_text.done", **done)

    async def main() -> str:
        async with server(handle) as url:
            path = tmp_path / "ask.py"
            code = EXAMPLES["OpenAI's own endpoint"]
            path.write_text(
                code.replace('"wss://api.openai.com"', repr(url)).replace('os.environ["OPENAI_API_KEY"]', '"k"')
            )
            return await output_of(path)

    assert asyncio.run(main()) == "Paris.\n"
