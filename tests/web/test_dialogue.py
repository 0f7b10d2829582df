"""The page in a real Chromium, with a server that follows a script: losses, slow networks, both paths, downloads."""

from __future__ import annotations

import io
import itertools
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Page, expect

from tests.web.browser import Visit, send
from tests.web.scripted import WORD_SAMPLES, Peer, ScriptedServer

MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
SLOW_MS = 60_000

pytestmark = pytest.mark.timeout(240)

Serve = Callable[..., ScriptedServer]
Open = Callable[..., Visit]


def notice(page: Page, key: str, text: str) -> None:
    expect(page.locator(f".notice[data-key={key}]")).to_contain_text(text, timeout=SLOW_MS)


def no_notice(page: Page, key: str) -> None:
    expect(page.locator(f".notice[data-key={key}]")).to_have_count(0, timeout=SLOW_MS)


def test_a_ducked_reply_falls_silent_and_goes_on(scripted: Serve, visit: Open) -> None:
    words = ["One,", "two,", "three,", "four,", "five,", "six,", "seven,", "eight."]

    def script(peer: Peer) -> None:
        peer.take_typed(1, "Count.")
        peer.speak(1, words)
        peer.until_played(1, 2 * WORD_SAMPLES)
        peer.send("relay.duck", response_id="resp_1", ducked=True)
        time.sleep(1.0)  # somebody says "mm-hm"
        peer.send("relay.duck", response_id="resp_1", ducked=False)
        peer.finish(1)
        peer.until_closed()

    visited = visit(scripted(script).url)
    send(visited.page, "Count.")
    visited.until(lambda: bool(visited.playback("finished")), "the end of the reply")
    assert visited.playback("finished")[-1]["played"] == len(words) * WORD_SAMPLES, "nothing is lost"
    assert visited.playback("flushed") == visited.playback("starved") == []
    places = [(event["frame"], event["played"]) for event in visited.playback("played")]
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(places)]
    (rate,) = {round(frames / played, 1) for frames, played in steps[:3]}  # frames for a sample at 24 kHz
    silences_s = sorted((frames / rate - played) / 24_000 for frames, played in steps)
    assert silences_s[-1] > 0.5, "it was silent for a while"
    assert silences_s[-2] < 0.1, "once"


def test_a_lost_connection_in_mid_reply(scripted: Serve, visit: Open) -> None:
    def lost(peer: Peer) -> None:
        peer.take_typed(1, "Count.")
        peer.speak(1, ["One,", "two,", "three,", "four,", "five,", "six,", "seven,", "eight."])
        peer.until_played(1, WORD_SAMPLES)
        server.refuses.set()
        peer.connection.socket.shutdown(socket.SHUT_RDWR)

    told: list[tuple[str, str]] = []

    def kept(peer: Peer) -> None:
        for _ in range(2):
            item = peer.expect("conversation.item.create")["item"]
            told.append((item["role"], item["content"][0]["text"]))
        peer.take_typed(1, "Go on.")
        peer.speak(1, ["Nine."])
        peer.finish(1)
        peer.until_closed()

    server = scripted(lost, kept)
    visited = visit(server.url)
    page = visited.page
    send(page, "Count.")
    visited.until(lambda: bool(visited.playback("flushed")), "the flush")
    notice(page, "server", "trying again")
    expect(page.locator(".reply .unheard").last).to_have_text("eight.")
    heard = page.locator(".reply .word.heard").all_inner_texts()
    server.refuses.clear()
    expect(page.locator("#status")).to_have_text("Ready", timeout=SLOW_MS)
    no_notice(page, "server")
    send(page, "Go on.")
    visited.until(lambda: bool(visited.playback("finished")), "the second reply's end")
    assert heard[0] == "One,"
    assert "eight." not in heard
    assert told == [("user", "Count."), ("assistant", " ".join(heard))]
    expect(page.locator(".turn.user")).to_have_count(2)


def test_a_question_that_was_lost_is_asked_again(scripted: Serve, visit: Open) -> None:
    def lost(peer: Peer) -> None:
        peer.take_typed(1, "Are you there?")
        server.refuses.set()
        peer.connection.socket.shutdown(socket.SHUT_RDWR)

    def answers(peer: Peer) -> None:
        peer.expect("conversation.item.create")
        peer.expect("response.create")
        peer.begin(1)
        peer.speak(1, ["Yes."])
        peer.finish(1)
        peer.until_closed()

    server = scripted(lost, answers)
    visited = visit(server.url)
    send(visited.page, "Are you there?")
    expect(visited.page.get_by_role("button", name="Try now")).to_be_visible(timeout=SLOW_MS)
    server.refuses.clear()
    # A click, unless an attempt of its own has taken the button away meanwhile.
    visited.page.get_by_role("button", name="Try now").evaluate_all("buttons => buttons.forEach((b) => b.click())")
    expect(visited.page.locator(".reply .word.heard")).to_have_text("Yes.", timeout=SLOW_MS)
    expect(visited.page.locator(".turn.user")).to_have_count(1)


def test_sound_that_comes_too_slowly(scripted: Serve, visit: Open) -> None:
    words = ["This", "comes", "in", "pieces."]

    def script(peer: Peer) -> None:
        peer.take_typed(1, "Talk slowly.")
        for number, word in enumerate(words):
            end = peer.speak(1, [word], first_word=number)
            if number < len(words) - 1:
                peer.until_played(1, end - 480)  # what the page still holds is less than its buffer wants
        peer.finish(1)
        peer.until_closed()

    visited = visit(scripted(script).url)
    page = visited.page
    send(page, "Talk slowly.")
    notice(page, "gaps", "The reply comes in pieces")
    visited.until(lambda: bool(visited.playback("finished")), "the reply's end")
    assert visited.playback("finished")[0]["played"] == len(words) * WORD_SAMPLES  # nothing lost, nothing twice
    starved = visited.playback("starved")
    assert len(starved) == len(words) - 1
    assert starved[-1]["target"] > starved[0]["target"] > 960  # it keeps more in hand every time
    expect(page.locator(".total")).to_contain_text("paused 3 ×")
    assert visited.complaints == []


def test_a_network_that_cannot_carry_the_voice(scripted: Serve, visit: Open) -> None:
    page = visit(scripted(Peer.until_closed).url, *MICROPHONE).page
    page.get_by_role("button", name="Start talking").click()
    expect(page.locator("body")).to_have_attribute("data-microphone", "open")
    waiting = "Object.defineProperty(WebSocket.prototype, 'bufferedAmount', {get: () => %d, configurable: true})"
    page.evaluate(waiting % 100_000)
    notice(page, "slow", "The network cannot carry your voice")
    page.evaluate(waiting % 0)
    no_notice(page, "slow")


def test_escape_and_the_stop_button_stop_the_reply(scripted: Serve, visit: Open) -> None:
    cleared: list[str] = []

    def script(peer: Peer) -> None:
        for number in (1, 2):
            peer.take_typed(number, "Talk.")
            peer.speak(number, ["A", "very", "long", "story", "without", "an", "end."])
            peer.expect("output_audio_buffer.clear")
            cleared.append(f"resp_{number}")
            peer.finish(number, status="cancelled")
        peer.until_closed()

    visited = visit(scripted(script).url)
    page = visited.page
    for number, stop in enumerate(("key", "button")):
        send(page, "Talk.")
        visited.until(lambda n=number: len(visited.playback("onset")) == n + 1, "the first sound")
        if stop == "key":
            page.keyboard.press("Escape")
        else:
            page.get_by_role("button", name="Stop").click()
        visited.until(lambda n=number: len(visited.playback("flushed")) == n + 1, "the flush")
        expect(page.locator(".reply").nth(number).locator("del").last).to_have_text("end.")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    visited.until(lambda: cleared == ["resp_1", "resp_2"], "the second stop at the server")


def test_the_conversation_can_be_saved(scripted: Serve, visit: Open, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.take_typed(1, "Say something.")
        peer.speak(1, ["Something", "for", "you."])
        peer.finish(1, path="cascade")
        peer.until_closed()

    visited = visit(scripted(script).url, *MICROPHONE, permissions=["microphone"])
    page = visited.page
    expect(page.get_by_role("button", name="Save sound")).to_be_hidden()
    page.get_by_role("button", name="Start talking").click()
    expect(page.locator("body")).to_have_attribute("data-microphone", "open")
    send(page, "Say something.")
    visited.until(lambda: bool(visited.playback("finished")), "the reply's end")
    expect(page.locator(".bar")).to_be_visible()

    with page.expect_download() as saved:
        page.get_by_role("button", name="Save sound").click()
    assert re.fullmatch(r"relay-[\dT-]+\.wav", saved.value.suggested_filename)
    saved.value.save_as(tmp_path / "sound.wav")
    samples, rate_hz = soundfile.read(io.BytesIO((tmp_path / "sound.wav").read_bytes()), dtype="int16")
    assert rate_hz == 24_000
    assert samples.shape[1] == 2
    spoken = samples[:, 1]
    sound = np.flatnonzero(np.abs(spoken) > 100)
    assert sound[-1] - sound[0] >= 3 * WORD_SAMPLES - 100
    assert np.abs(spoken[: sound[0] - 480]).max(initial=0) == 0
    assert np.abs(samples[:, 0]).max() > 0  # Chromium's fake microphone beeps

    with page.expect_download() as saved:
        page.get_by_role("button", name="Save text").click()
    saved.value.save_as(tmp_path / "text.json")
    kept = json.loads((tmp_path / "text.json").read_text())
    assert [(turn["role"], turn["text"].strip()) for turn in kept["turns"]] == [
        ("user", "Say something."),
        ("assistant", "Something for you."),
    ]
    reply = kept["turns"][1]
    assert reply["path"] == "cascade"
    assert reply["onset_ms"] > 0
    assert [word["heard"] for word in reply["words"]] == [True, True, True]
    assert visited.complaints == []


def test_a_reload_loses_nothing_and_a_new_beginning_everything(scripted: Serve, visit: Open) -> None:
    told: list[str] = []

    def first(peer: Peer) -> None:
        peer.take_typed(1, "Remember me.")
        peer.speak(1, ["I", "will."])
        peer.finish(1)
        peer.until_closed()

    def second(peer: Peer) -> None:
        for _ in range(2):
            told.append(peer.expect("conversation.item.create")["item"]["content"][0]["text"])
        peer.take_typed(1, "Who am I?")
        peer.speak(1, ["You."])
        peer.finish(1)
        peer.until_closed()

    visited = visit(scripted(first, second).url)
    page = visited.page
    send(page, "Remember me.")
    visited.until(lambda: bool(visited.playback("finished")), "the reply's end")
    expect(page.locator(".word.heard")).to_have_text(["I", "will."])
    page.reload()
    expect(page.locator(".word.heard")).to_have_text(["I", "will."])
    expect(page.locator(".user .stable")).to_have_text("Remember me.")
    expect(page.locator(".bar")).to_be_visible()
    expect(page.locator("canvas.wave")).to_be_hidden()
    send(page, "Who am I?")
    expect(page.locator(".reply")).to_have_count(2)
    assert told == ["Remember me.", "I will."]
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator(".turn")).to_have_count(0)
    page.reload()
    expect(page.locator(".turn")).to_have_count(0)
    assert visited.complaints == []
