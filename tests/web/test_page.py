"""The page in a real Chromium, talking to a real server process."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web.browser import ServerProcess, Visit, microphone_flags, send

SLOW_MS = 60_000
DENIED = ("--deny-permission-prompts", "--use-fake-device-for-media-stream")

pytestmark = pytest.mark.timeout(240)


def state(page: Page, *names: str) -> None:
    """Waits for one of these states."""
    expect(page.locator("body")).to_have_attribute("data-state", re.compile("|".join(names)), timeout=SLOW_MS)


def notice(page: Page, text: str) -> None:
    """Waits for a message."""
    expect(page.locator(".notice").filter(has_text=text)).to_be_visible(timeout=SLOW_MS)


def assert_heard(visit: Visit) -> None:
    """A reply's audio came, was played, could be heard, and its words were lit."""
    visit.until(lambda: bool(visit.playback("finished")), "the reply's end")
    played = visit.playback("finished")[0]["played"]
    assert 0 < played == visit.audio_bytes_received // 2
    assert max(event["rms"] for event in visit.playback("played")) > 0.01
    assert visit.page.evaluate("window.spy.loudest") > 0.01
    expect(visit.page.locator(".reply .word.ahead:not(:empty)")).to_have_count(0)
    assert visit.page.locator(".reply .word.heard").count() > 0


def test_a_spoken_turn(server: ServerProcess, visit: Callable[..., Visit], microphone: Callable[..., object]) -> None:
    spoken = visit(server.url, *microphone_flags(microphone(2.0, 30.0), loop=False))
    page = spoken.page
    state(page, "idle")
    page.get_by_role("button", name="Start talking").click()
    state(page, "hearing")
    state(page, "thinking", "speaking")
    expect(page.locator(".user[data-state=done] .stable").first).not_to_be_empty(timeout=SLOW_MS)
    state(page, "speaking")
    assert_heard(spoken)
    assert spoken.audio_frames_sent > 50
    assert spoken.events("relay.partial")

    bar = page.locator(".reply .bar").first
    expect(bar).to_be_visible()
    for stage in ("endpointing", "voice_first", "transport", "playout"):
        expect(bar.locator(f".{stage}")).to_have_count(1)
    onset_ms = int(re.findall(r"\d+", page.locator(".total").first.inner_text())[0])
    legend = sum(int(text) for text in page.locator(".legend").first.locator("b").all_inner_texts())
    assert abs(legend - onset_ms) <= 8  # each of up to eight parts is rounded
    assert 0 < onset_ms < 60_000

    reports = [event for event in spoken.sent if event["type"] == "relay.playback"]
    positions = [event["played_samples"] for event in reports]
    assert positions == sorted(positions)
    assert positions[-1] == spoken.playback("finished")[0]["played"]
    assert len(reports) >= positions[-1] // 24_000 * 8  # about ten a second
    state(page, "listening")

    page.get_by_role("button", name="End", exact=True).click()
    state(page, "idle")
    assert spoken.complaints == []


def test_an_interruption(
    talkative_server: ServerProcess, visit: Callable[..., Visit], microphone: Callable[..., object]
) -> None:
    # The microphone asks, keeps still for six seconds, and asks again, into the long answer.
    spoken = visit(talkative_server.url, *microphone_flags(microphone(3.0, 3.0), loop=True))
    page = spoken.page
    page.get_by_role("button", name="Start talking").click()
    state(page, "speaking")
    spoken.until(lambda: bool(interrupted(spoken)), "the flush")
    flushed = interrupted(spoken)[0]
    response_id = spoken.events("response.created")[flushed["index"] - 1]["response"]["id"]

    # What was played, to the sample, is what the server is told and what the page strikes out.
    spoken.until(lambda: flushed["played"] in reported(spoken, response_id), "the last report")
    assert max(reported(spoken, response_id)) == flushed["played"]
    sent = [event for event in spoken.events("relay.words") if event["response_id"] == response_id]
    words = [word for event in sent for word in event["words"]]
    heard = [word for word in words if (word["start_sample"] + word["end_sample"]) / 2 <= flushed["played"]]
    reply = page.locator(".reply").nth(flushed["index"] - 1)
    expect(reply.locator(".word.heard")).to_have_text([word["word"] for word in heard])
    expect(reply.locator("del").first).to_have_text(words[len(heard)]["word"])
    expect(reply.locator(".word.ahead")).to_have_count(0)
    # Nothing of the old reply is played after that.
    later = [event for event in spoken.playback("played") if event["frame"] > flushed["frame"]]
    assert all(event["index"] > flushed["index"] for event in later)
    assert spoken.complaints == []


def interrupted(visit: Visit) -> list[dict[str, Any]]:
    """The flushes that stopped something."""
    return [event for event in visit.playback("flushed") if event["played"] > 0]


def reported(visit: Visit, response_id: str) -> list[int]:
    """The positions that the page reported for a reply."""
    return [event["played_samples"] for event in visit.sent if event.get("response_id") == response_id]


def test_typed_text_is_answered_aloud_and_interrupts(
    talkative_server: ServerProcess, visit: Callable[..., Visit]
) -> None:
    typed = visit(talkative_server.url, *DENIED)
    send(typed.page, "Please count.")
    expect(typed.page.locator(".user .stable").first).to_have_text("Please count.")
    state(typed.page, "speaking")
    send(typed.page, "Stop, and begin again.")
    typed.until(lambda: bool(typed.playback("flushed")), "the flush")
    expect(typed.page.locator(".reply")).to_have_count(2, timeout=SLOW_MS)
    expect(typed.page.locator(".reply").first.locator(".unheard").first).to_be_visible()
    typed.until(lambda: any(event["index"] == 2 for event in typed.playback("onset")), "the second reply's first sound")
    expect(typed.page.locator(".reply .bar")).to_have_count(2)
    assert typed.events("error") == []


def test_a_denied_microphone_leaves_the_keyboard(server: ServerProcess, visit: Callable[..., Visit]) -> None:
    denied = visit(server.url, *DENIED)
    page = denied.page
    page.get_by_role("button", name="Start talking").click()
    notice(page, "The microphone is blocked")
    expect(page.locator("#status")).to_have_text("Ready")
    send(page, "Hello.")
    assert_heard(denied)


def test_no_microphone_at_all(server: ServerProcess, visit: Callable[..., Visit]) -> None:
    page = visit(server.url, "--use-fake-ui-for-media-stream").page
    page.get_by_role("button", name="Start talking").click()
    notice(page, "No microphone was found")


def test_no_server(serve: Callable[..., ServerProcess], visit: Callable[..., Visit]) -> None:
    gone = serve()
    page = visit(gone.url).page
    gone.stop()
    page.get_by_role("button", name="Start talking").click()
    notice(page, "No server answers at 127.0.0.1")
    state(page, "idle")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_the_server_comes_back(serve: Callable[..., ServerProcess], visit: Callable[..., Visit]) -> None:
    first = serve()
    visited = visit(first.url, *DENIED)
    send(visited.page, "Hello.")
    visited.until(lambda: bool(visited.playback("finished")), "the first reply's end")
    first.stop()
    state(visited.page, "reconnecting")
    serve(port=first.port)
    state(visited.page, "listening")
    told = [event["item"]["role"] for event in visited.sent if event["type"] == "conversation.item.create"]
    assert told == ["user", "user", "assistant"]  # typed once, and told again with its answer to the new session
    expect(visited.page.locator(".user")).to_have_count(1)
    send(visited.page, "Hello again.")
    visited.until(lambda: len(visited.playback("finished")) == 2, "the second reply's end")
    assert visited.events("error") == []


def test_a_full_server_says_so(serve: Callable[..., ServerProcess], visit: Callable[..., Visit]) -> None:
    full = serve("--max-sessions", "1")
    state_of_first = visit(full.url, *DENIED).page
    state_of_first.get_by_role("button", name="Start talking").click()
    state(state_of_first, "listening")
    second = visit(full.url, *DENIED).page
    second.get_by_role("button", name="Start talking").click()
    notice(second, "The server refused the connection")


def test_suspended_sound(server: ServerProcess, visit: Callable[..., Visit]) -> None:
    visited = visit(f"{server.url}/?autostart", *DENIED, "--autoplay-policy=document-user-activation-required")
    notice(visited.page, "The browser holds sound back")
    visited.page.locator("h1").click()
    expect(visited.page.locator(".notice").filter(has_text="holds sound back")).to_have_count(0)
    send(visited.page, "Hello.")
    assert_heard(visited)


def test_an_insecure_origin_gets_text(serve: Callable[..., ServerProcess], visit: Callable[..., Visit]) -> None:
    keyed = serve("--api-key", "for-this-test")
    url = f"http://relay.test:{keyed.port}/#key=for-this-test"
    visited = visit(url, "--host-resolver-rules=MAP relay.test 127.0.0.1")
    visited.page.get_by_role("button", name="Start talking").click()
    notice(visited.page, "neither")
    send(visited.page, "Hello.")
    expect(visited.page.locator(".reply[data-state=done] .said")).not_to_be_empty(timeout=SLOW_MS)
    assert visited.audio_bytes_received == 0


def test_the_space_bar(server: ServerProcess, visit: Callable[..., Visit], microphone: Callable[..., object]) -> None:
    page = visit(server.url, *microphone_flags(microphone(60.0, 0.0), loop=True)).page
    body = page.locator("body")
    page.get_by_role("button", name="Start talking").click()
    expect(body).to_have_attribute("data-microphone", "open")
    page.keyboard.press("Space")
    expect(body).to_have_attribute("data-microphone", "muted")
    expect(page.get_by_role("button", name="Unmute")).to_be_visible()
    page.keyboard.press("Space", delay=600)  # held: open only while it is down
    expect(body).to_have_attribute("data-microphone", "muted")
    page.keyboard.press("Space")
    expect(body).to_have_attribute("data-microphone", "open")
    page.get_by_label("Message").focus()
    page.keyboard.press("Space")
    expect(body).to_have_attribute("data-microphone", "open")
    expect(page.get_by_label("Message")).to_have_value(" ")


def test_a_link_cannot_carry_a_voice_away(server: ServerProcess, visit: Callable[..., Visit]) -> None:
    visited = visit(f"{server.url}/?autostart&url=ws://elsewhere.example")
    notice(visited.page, "will connect to elsewhere.example")
    state(visited.page, "idle")
    assert visited.sockets == []


def test_an_unusable_address(server: ServerProcess, visit: Callable[..., Visit]) -> None:
    page = visit(f"{server.url}/?url=ftp://files.example").page
    notice(page, "cannot be used")
    expect(page.get_by_role("button", name="Start talking")).to_be_disabled()


def test_reduced_motion_and_a_narrow_screen(server: ServerProcess, visit: Callable[..., Visit]) -> None:
    page = visit(server.url, viewport={"width": 320, "height": 568}, reduced_motion="reduce").page
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    expect(page.get_by_role("button", name="Start talking")).to_be_in_viewport()
    expect(page.get_by_label("Message")).to_be_in_viewport()
