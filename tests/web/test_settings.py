"""The page's settings in a real Chromium: devices, echo check, turns by hand, the address; and who can use the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.web.browser import Visit
from tests.web.scripted import Peer, ScriptedServer

MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
LEAST_TOUCH_PX = 44  # WCAG 2.2, 2.5.5
SLOW_MS = 60_000

# A room: what the page plays comes back through the microphone, 20 dB quieter and 50 ms later.
ROOM = """
const connect = AudioNode.prototype.connect;
const rooms = new Map();
function room(context) {
  if (!rooms.has(context)) {
    const microphone = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
    const gain = new GainNode(context, { gain: 0.1 });
    const delay = new DelayNode(context, { delayTime: 0.05 });
    connect.call(gain, delay);
    connect.call(delay, microphone);
    rooms.set(context, { gain, microphone });
  }
  return rooms.get(context);
}
AudioNode.prototype.connect = function (to, ...rest) {
  if (to === this.context.destination) connect.call(this, room(this.context).gain);
  return connect.call(this, to, ...rest);
};
navigator.mediaDevices.getUserMedia = async () => [...rooms.values()].at(-1).microphone.stream;
"""

# Notes what is asked of the screen: headless browsers have none that sleeps.
WAKE = """
window.locks = [];
navigator.wakeLock.request = async (kind) => {
  window.locks.push(kind);
  return { release: async () => window.locks.push("released") };
};
"""

pytestmark = pytest.mark.timeout(240)

Serve = Callable[..., ScriptedServer]
Open = Callable[..., Visit]


def state(page: Page, name: str) -> None:
    expect(page.locator("body")).to_have_attribute("data-state", name, timeout=SLOW_MS)


def microphone(page: Page, name: str) -> None:
    expect(page.locator("body")).to_have_attribute("data-microphone", name, timeout=SLOW_MS)


def sessions(visit: Visit) -> list[dict[str, Any]]:
    return [event["session"] for event in visit.sent if event["type"] == "session.update"]


def test_the_address_carries_the_settings(scripted: Serve, visit: Open) -> None:
    url = scripted(Peer.until_closed).url
    visited = visit(f"{url}/?voice=anna&turns=semantic_vad&eagerness=high&speed=1.25&instructions=Be%20brief.&odd=1")
    page = visited.page
    page.get_by_label("Message").fill("Hello.")
    page.keyboard.press("Enter")
    visited.until(lambda: bool(sessions(visited)), "the session's settings")
    (session,) = sessions(visited)
    assert session["instructions"] == "Be brief."
    assert session["audio"]["output"]["voice"] == "anna"
    assert session["audio"]["output"]["speed"] == 1.25
    assert session["audio"]["input"]["turn_detection"] == {"type": "semantic_vad", "eagerness": "high"}

    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Instructions")).to_have_value("Be brief.")
    expect(page.get_by_label("Answers")).to_have_value("high")
    page.get_by_label("You have finished").select_option("after a pause")
    page.get_by_label("The pause, in ms").fill("350")
    page.get_by_role("button", name="Done").click()
    visited.until(lambda: len(sessions(visited)) == 3, "the new settings")
    detection = sessions(visited)[-1]["audio"]["input"]["turn_detection"]
    assert detection == {"type": "server_vad", "silence_duration_ms": 350}
    query = parse_qs(urlsplit(page.url).query)
    assert query["silence_ms"] == ["350"]
    assert query["odd"] == ["1"]
    assert query["turns"] == ["server_vad"]
    assert visited.complaints == []


def test_turns_ended_by_hand(scripted: Serve, visit: Open) -> None:
    commits: list[int] = []

    def script(peer: Peer) -> None:
        peer.expect("session.update")
        peer.expect("input_audio_buffer.commit")
        commits.append(peer.audio_frames)
        peer.expect("response.create")
        peer.send("conversation.item.added", item={"id": "u", "role": "user", "content": [{"type": "input_audio"}]})
        peer.begin(1)
        peer.speak(1, ["A", "story", "that", "goes", "on", "for", "long."])
        peer.expect("output_audio_buffer.clear")  # talking interrupts
        peer.expect("input_audio_buffer.clear")
        peer.finish(1, status="cancelled")
        peer.expect("input_audio_buffer.commit")
        peer.until_closed()

    visited = visit(scripted(script).url + "/?turns=manual", *MICROPHONE)
    page = visited.page
    page.get_by_role("button", name="Start talking").click()
    microphone(page, "open")
    visited.until(lambda: visited.audio_frames_sent > 10, "some speech")
    page.get_by_role("button", name="Send", exact=True).first.click()
    microphone(page, "muted")
    state(page, "speaking")
    page.keyboard.press("Space")
    microphone(page, "open")
    visited.until(lambda: bool(visited.playback("flushed")), "the flush")
    before = visited.audio_frames_sent
    visited.until(lambda: visited.audio_frames_sent > before + 10, "more speech")
    page.keyboard.press("Space")
    visited.until(
        lambda: sum(event["type"] == "input_audio_buffer.commit" for event in visited.sent) == 2, "the second turn"
    )
    assert commits[0] > 10
    assert sessions(visited)[0]["audio"]["input"]["turn_detection"] is None
    assert visited.complaints == []


def test_devices_can_be_chosen_and_are_remembered(scripted: Serve, visit: Open) -> None:
    visited = visit(scripted(Peer.until_closed).url, *MICROPHONE, permissions=["microphone"])
    page = visited.page
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Try the microphone").click()
    expect(page.locator("#level")).to_be_visible()
    # Chromium's fake microphone beeps.
    visited.until(lambda: bool(page.evaluate("document.getElementById('level').value > 0")), "a level")
    devices = page.locator("select[name=microphone]")
    expect(devices.locator("option", has_text="Fake Audio Input 2")).to_have_count(1)
    devices.select_option(label="Fake Audio Input 2")
    page.locator("select[name=loudspeaker]").select_option(label="Fake Audio Output 2")
    page.get_by_role("button", name="Close").click()
    microphone(page, "none")  # it was open for a try only
    page.get_by_role("button", name="Start talking").click()
    microphone(page, "open")
    page.get_by_role("button", name="Settings").click()
    expect(devices.locator("option:checked")).to_have_text("Fake Audio Input 2")
    page.reload()
    page.get_by_role("button", name="Settings").click()
    expect(devices.locator("option:checked")).to_have_text("Fake Audio Input 2")
    expect(page.locator("select[name=loudspeaker]").locator("option:checked")).to_have_text("Fake Audio Output 2")
    assert visited.complaints == []


def test_the_echo_check_measures_the_room(scripted: Serve, visit: Open) -> None:
    visited = visit(scripted(Peer.until_closed).url, preload=ROOM)
    page = visited.page
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Check the echo").click()
    expect(page.locator("#sound-result")).to_contain_text("The microphone hears the loudspeaker at", timeout=SLOW_MS)
    expect(page.locator("#sound-result")).to_contain_text("turn the loudspeaker down")
    assert visited.audio_frames_sent == 0  # nobody else hears the check
    assert visited.complaints == []


def test_the_settings_say_when_the_microphone_cannot_be_opened(scripted: Serve, visit: Open) -> None:
    page = visit(
        scripted(Peer.until_closed).url, "--deny-permission-prompts", "--use-fake-device-for-media-stream"
    ).page
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Check the echo").click()
    expect(page.locator("#sound-result")).to_contain_text("could not be opened")
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".notice[data-key=microphone]")).to_contain_text("The microphone is blocked")


def test_a_microphone_that_gives_nothing(scripted: Serve, visit: Open) -> None:
    page = visit(scripted(Peer.until_closed).url, preload=ROOM).page
    page.get_by_role("button", name="Start talking").click()
    expect(page.locator(".notice[data-key=silence]")).to_contain_text("no sound at all", timeout=SLOW_MS)


def test_the_screen_stays_on_during_a_dialogue(scripted: Serve, visit: Open) -> None:
    visited = visit(scripted(Peer.until_closed).url, preload=WAKE)
    page = visited.page
    page.get_by_label("Message").fill("Hello.")
    page.keyboard.press("Enter")
    state(page, "listening")
    visited.until(lambda: page.evaluate("window.locks") == ["screen"], "the request")
    page.get_by_role("button", name="End", exact=True).click()
    visited.until(lambda: page.evaluate("window.locks") == ["screen", "released"], "the release")


def a_reply(peer: Peer) -> None:
    """A reply with all that a reply can show, and a message."""
    peer.expect("response.create")
    peer.send(
        "conversation.item.added", item={"id": "u", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    )
    peer.begin(1)
    peer.send("relay.draft", response_id="resp_1", draft={"prefix": "Well,", "probability": 0.4, "committed": False})
    peer.speak(1, ["Hello", "there", "and", "good", "morning."])
    peer.finish(1)
    peer.send("error", error={"type": "server_error", "message": "Something went wrong."})
    peer.until_closed()


def say_hello(page: Page) -> None:
    page.get_by_label("Message").fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator(".bar")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator(".notice")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scripted: Serve, visit: Open, scheme: str) -> None:
    page = visit(scripted(a_reply).url, color_scheme=scheme).page
    found = [violations(page)]
    say_hello(page)
    found.append(violations(page))
    page.get_by_role("button", name="Settings").click()
    found.append(violations(page))
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 360, "height": 640})
    found.append(violations(page))
    assert found == [[], [], [], []]


def violations(page: Page) -> list[str]:
    """What axe objects to, with the first place where it does."""
    response = Axe().run(page).response
    return [f"{it['impact']}: {it['id']} {json.dumps(it['nodes'][0]['target'])}" for it in response["violations"]]


def test_fingers_find_every_button(scripted: Serve, visit: Open) -> None:
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    page = visit(scripted(a_reply).url, **phone).page
    say_hello(page)
    assert too_small(page) == []
    page.get_by_role("button", name="Settings").tap()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert too_small(page) == []


def too_small(page: Page) -> list[str]:
    """The controls that a finger would miss; none of them, nor anything else, may lie beside the screen."""
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = page.locator(":is(button, select, input, textarea):visible").evaluate_all(
        "all => all.map((e) => [e.id || e.name, e.getBoundingClientRect().width, e.getBoundingClientRect().height])"
    )
    assert len(boxes) > 5
    return [name for name, width, height in boxes if min(width, height) < LEAST_TOUCH_PX]


def test_every_control_can_be_reached_by_keyboard(scripted: Serve, visit: Open) -> None:
    page = visit(scripted(a_reply).url).page
    say_hello(page)
    wanted = page.locator("button:visible, input:visible").evaluate_all("all => all.map((e) => e.id || e.textContent)")
    reached = set()
    for _ in range(3 * len(wanted)):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert set(wanted) <= reached
    page.get_by_role("button", name="Settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Settings")).to_be_focused()
