"""A page on which the sentences of the benchmark can be listened to: each by the speaker and by every voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay.client.files import load, write_wav
from relay_benchmarks.voice_quality import Said

SPEAKER = "recording"

_STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
:root { color-scheme: light dark; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .6rem .6rem .6rem 0; border-top: 1px solid #8886; }
audio { width: 16rem; max-width: 100%; display: block; }
.heard { font-size: .875rem; opacity: .8; }
"""


def write_page(folder: Path, voices: Mapping[str, Sequence[Said]], report: Mapping[str, Any], *, most: int) -> Path:
    """Writes index.html and the sounds that it plays.

    Args:
        folder: Where to; made if need be.
        voices: The sentences that each voice said, the same ones in the same order.
        report: The benchmark's report, of the same sentences.
        most: How many sentences to show, from the first on.

    Returns:
        The page.

    Raises:
        AudioFileError: A recording cannot be read, or a sound not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sentences = [said.recording for said in next(iter(voices.values()))[:most]]
    has_speaker = any(isinstance(one.source, Path) for one in sentences)
    columns = [*([SPEAKER] if has_speaker else []), *(Path(name).name for name in voices)]
    rows = []
    for number, sentence in enumerate(sentences):
        cells = []
        if has_speaker:
            pcm = load(sentence.source, VOICE_RATE_HZ) if isinstance(sentence.source, Path) else None
            heard = report["real"][0]["recording_list"][number]["heard"]
            cells.append(_cell(folder, f"{number:03}-{SPEAKER}.wav", pcm, f"{SPEAKER}: {sentence.text}", heard))
        for column, (name, said) in enumerate(voices.items()):
            label = f"{Path(name).name}: {sentence.text}"
            cells.append(
                _cell(folder, f"{number:03}-voice{column}.wav", said[number].speech.pcm, label, said[number].heard)
            )
        rows.append(f"<tr><th scope=row>{escape(sentence.text)}</th>{''.join(cells)}</tr>")
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
    page = folder / "index.html"
    page.write_text(
        f"<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        f'<meta name=viewport content="width=device-width, initial-scale=1">\n<title>Voices</title>\n'
        f"<style>{_STYLE}</style>\n<main>\n<h1>Voices</h1>\n{_summary(report)}\n"
        f"<table>\n<thead><tr><th scope=col>Sentence</th>{heads}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody>\n</table>\n</main>\n</html>\n",
        encoding="utf-8",
    )
    return page


def _cell(folder: Path, file: str, pcm: Int16Array | None, label: str, heard: str) -> str:
    """A player, and what the recogniser understood."""
    if pcm is None or not len(pcm):
        return "<td>no sound</td>"
    write_wav(folder / file, pcm, VOICE_RATE_HZ)
    text = f"<span class=heard>understood: {escape(heard)}</span>" if heard else ""
    return f'<td><audio controls preload=none src="{file}" aria-label="{escape(label, quote=True)}"></audio>{text}</td>'


def _summary(report: Mapping[str, Any]) -> str:
    """The figures in words: one line a voice."""
    lines = []
    for entry in report["real"]:
        lines.append(f"Recordings of the speaker: {_percent(entry['wer'])} of words misunderstood.")
    for result in report["results"]:
        parts = [
            f"{Path(result['engine']).name} ({result['device']}): {_percent(result['wer'])} of words misunderstood"
        ]
        if result["mel_cepstral_distance_db"] is not None:
            parts.append(f"{result['mel_cepstral_distance_db']:.1f} dB mel-cepstral distance from the recordings")
        if result["first_audio_ms"]["p50"] is not None:
            parts.append(f"first sound after {result['first_audio_ms']['p50']:.0f} ms")
        lines.append("; ".join(parts) + ".")
    note = f"Understood by: {report['config']['recogniser']}."
    return f"<p>{escape(note)}</p>\n<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>"


def _percent(rate: float | None) -> str:
    return "no share" if rate is None else f"{rate * 100:.1f} %"
