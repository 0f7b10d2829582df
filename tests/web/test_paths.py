"""Both paths on the page, in a real Chromium: what each did and when, whose words are whose, and the choice of one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.fast_models import save_fast_models
from tests.web.browser import ServerProcess, Visit, microphone_flags, send
from tests.web.scripted import Peer, ScriptedServer

SLOW_MS = 60_000
ALL = ["relay", "cascade", "draft"]

pytestmark = pytest.mark.timeout(240)

Serve = Callable[..., ScriptedServer]
Open = Callable[..., Visit]


def draft(peer: Peer, number: int, prefix: str | None, probability: float | None, reason: str | None) -> None:
    """Tells what became of a draft."""
    values = {"prefix": prefix, "probability": probability, "committed": reason is None, "reason": reason}
    peer.send("relay.draft", response_id=f"resp_{number}", draft=values)


def offers(peer: Peer, *paths: str) -> None:
    """Takes the page's settings, and says which paths there are."""
    relay = peer.expect("session.update")["session"]["relay"]
    peer.send("session.updated", session={"relay": {**relay, "paths": paths}})


def test_both_paths_are_seen(scripted: Serve, visit: Open) -> None:
    def script(peer: Peer) -> None:
        peer.take_typed(1, "What is the time?")
        draft(peer, 1, "It is", 0.93, None)
        peer.expect("output_audio_buffer.clear")  # the test has looked at the draft without an answer
        peer.speak(1, ["It", "is", "noon."])
        peer.finish(1, path="relay")
        peer.take_typed(2, "And the weather?")
        draft(peer, 2, "It rains", 0.21, "doubtful")
        peer.speak(2, ["No", "idea."])
        peer.finish(2, path="cascade")
        peer.take_typed(3, "Thank you.")
        draft(peer, 3, None, None, "unasked")
        peer.speak(3, ["Welcome."])
        peer.finish(3, path="cascade")
        peer.take_typed(4, "Be quick.")
        draft(peer, 4, "Right away", None, None)
        peer.speak(4, ["Right", "away"])
        peer.finish(4, path="draft")
        peer.until_closed()

    visited = visit(scripted(script).url)
    page = visited.page
    send(page, "What is the time?")
    reply = page.locator(".reply").first
    lanes = reply.locator(".lanes")
    expect(lanes).to_have_attribute("data-outcome", "committed")
    expect(lanes.locator("dd.fast .words")).to_have_text("It is")
    expect(lanes.locator("dd.fast")).to_contain_text(re.compile(r"verifier 0\.93 · spoken at once · at \d+ ms"))
    expect(lanes.locator("dd.slow .words")).to_have_text("…")
    expect(reply.locator(".drafted")).to_have_count(0)  # nothing of it is in the reply yet
    page.keyboard.press("Escape")
    expect(lanes.locator("dd.slow")).to_have_text(re.compile(r"noon\.joins after the draft · at \d+ ms"))
    expect(reply.locator(".drafted")).to_have_text(["It", "is"])
    joint = reply.get_by_role("img", name="from here the slow path")
    expect(joint).to_have_count(1)
    assert joint.evaluate("mark => mark.nextElementSibling.textContent") == "noon."
    assert reply.locator(".drafted").first.evaluate("word => getComputedStyle(word).borderBottomStyle") == "dotted"
    expect(reply.locator(".wave")).to_have_attribute("aria-label", re.compile("the first 0.5 s of them drafted"))

    send(page, "And the weather?")
    fallen = page.locator(".reply").nth(1)
    expect(fallen.locator(".lanes")).to_have_attribute("data-outcome", "fallback")
    expect(fallen.locator("dd.fast del")).to_have_text("It rains")
    expect(fallen.locator("dd.fast")).to_contain_text(re.compile(r"verifier 0\.21 · doubtful, not spoken · at \d+ ms"))
    expect(fallen.locator("dd.slow")).to_have_text(re.compile(r"No idea\.answers alone · at \d+ ms"))
    expect(fallen.locator(".drafted, .joint")).to_have_count(0)

    send(page, "Thank you.")
    expect(page.locator(".reply").nth(2).locator(".said")).to_contain_text("Welcome.")
    send(page, "Be quick.")
    alone = page.locator(".reply").nth(3)
    expect(alone.locator(".drafted")).to_have_text(["Right", "away"])
    expect(alone.locator("dd.slow")).to_have_text("(not asked)", timeout=SLOW_MS)
    expect(alone.locator(".joint")).to_have_count(0)
    expect(page.locator(".lanes")).to_have_count(3)  # nobody asked for a draft of the third: no lanes
    expect(page.locator("#figures")).to_contain_text(re.compile(r"median \d+ ms, worst \d+ ms"))
    found = Axe().run(page).response["violations"]
    assert [each["id"] for each in found] == []
    assert visited.complaints == []


@pytest.mark.parametrize(("reason", "shown"), [("late", "too late"), ("empty", "had no words"), ("failed", "failed")])
def test_a_draft_that_came_to_nothing_says_why(scripted: Serve, visit: Open, reason: str, shown: str) -> None:
    def script(peer: Peer) -> None:
        peer.take_typed(1, "What is the time?")
        draft(peer, 1, None, None, reason)
        peer.speak(1, ["Noon."])
        peer.finish(1, path="cascade")
        peer.until_closed()

    visited = visit(scripted(script).url)
    send(visited.page, "What is the time?")
    expect(visited.page.locator("dd.fast")).to_have_text(f"(nothing){shown}")
    expect(visited.page.locator("dd.fast .probability")).to_be_hidden()
    expect(visited.page.locator("dd.slow")).to_have_text(re.compile(r"Noon\.answers alone · at \d+ ms"))
    expect(visited.page.locator(".drafted, .joint, .lanes del")).to_have_count(0)


def test_what_came_by_which_path_outlives_a_reload(scripted: Serve, visit: Open) -> None:
    def script(peer: Peer) -> None:
        peer.take_typed(1, "What is the time?")
        draft(peer, 1, "It is", 0.93, None)
        peer.speak(1, ["It", "is", "noon."])
        peer.finish(1, path="relay")
        peer.until_closed()

    visited = visit(scripted(script).url)
    page = visited.page
    send(page, "What is the time?")
    visited.until(lambda: bool(visited.playback("finished")), "the reply's end")
    before = page.locator(".lanes").inner_text()
    page.reload()
    expect(page.locator(".lanes")).to_have_text(before, use_inner_text=True)
    expect(page.locator(".drafted")).to_have_text(["It", "is"])
    expect(page.locator(".joint")).to_have_count(1)


def paths_asked(visited: Visit) -> list[Any]:
    """What the page said of the path, update by update; "-" where it said nothing."""
    updates = [event["session"]["relay"] for event in visited.sent if event["type"] == "session.update"]
    return [relay.get("path", "-") for relay in updates]


def test_a_path_can_be_chosen_where_there_are_several(scripted: Serve, visit: Open) -> None:
    def script(peer: Peer) -> None:
        for _ in range(4):
            offers(peer, *ALL)
        peer.until_closed()

    visited = visit(scripted(script).url + "/?path=draft")
    page = visited.page
    send(page, "Hello.")
    visited.until(lambda: paths_asked(visited) == ["-", "draft"], "the address's path, once the server offers it")
    page.get_by_role("button", name="Settings").click()
    choice = page.get_by_role("combobox", name="Path")
    expect(choice).to_have_value("draft")
    expect(choice.locator("option").first).to_have_text("the server’s own: relay")
    choice.select_option("cascade")
    visited.until(lambda: paths_asked(visited) == ["-", "draft", "cascade"], "the chosen path")
    assert parse_qs(urlsplit(page.url).query)["path"] == ["cascade"]
    choice.select_option("")
    visited.until(lambda: paths_asked(visited) == ["-", "draft", "cascade", None], "the server's own path")
    assert "path" not in parse_qs(urlsplit(page.url).query)
    assert visited.complaints == []


def test_a_path_that_is_not_offered_is_not_asked_for(scripted: Serve, visit: Open) -> None:
    def script(peer: Peer) -> None:
        offers(peer, "draft", "cascade")
        peer.until_closed()

    visited = visit(scripted(script).url + "/?path=relay")
    page = visited.page
    send(page, "Hello.")
    page.get_by_role("button", name="Settings").click()
    choice = page.get_by_role("combobox", name="Path")
    expect(choice).to_have_value("")
    expect(choice.locator("option:not([hidden])")).to_have_text(
        ["the server’s own: draft", re.compile("cascade"), re.compile("draft")]
    )
    assert paths_asked(visited) == ["-"]


def test_without_a_fast_path_nothing_of_it_is_seen(serve: Callable[..., ServerProcess], visit: Open) -> None:
    visited = visit(serve("--path", "cascade").url + "/?path=relay")
    page = visited.page
    send(page, "Hello.")
    visited.until(lambda: bool(visited.playback("finished")), "the reply's end")
    assert visited.events("session.updated")[-1]["session"]["relay"]["paths"] == ["cascade"]
    assert visited.events("relay.draft") == []
    expect(page.locator(".lanes, .drafted, .joint")).to_have_count(0)
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Instructions")).to_be_visible()
    expect(page.locator("#path-field")).to_have_count(1)
    expect(page.locator("#path-field")).to_be_hidden()
    assert paths_asked(visited) == ["-"]
    assert (visited.events("error"), visited.complaints) == ([], [])


def test_by_default_the_page_offers_every_path(server: ServerProcess, visit: Open) -> None:
    visited = visit(server.url)
    page = visited.page
    send(page, "Hello.")
    visited.until(lambda: bool(visited.playback("finished")), "the reply's end")
    assert visited.events("session.updated")[-1]["session"]["relay"]["paths"] == ALL
    (event,) = visited.events("relay.draft")
    assert (event["draft"]["committed"], event["draft"]["reason"]) == (False, "unasked")  # no speech was answered
    page.get_by_role("button", name="Settings").click()
    choice = page.get_by_role("combobox", name="Path")
    expect(choice).to_have_value("")
    expect(choice.locator("option").first).to_have_text("the server’s own: relay")
    choice.select_option("cascade")
    visited.until(
        lambda: visited.events("session.updated")[-1]["session"]["relay"]["path"] == "cascade", "the chosen path"
    )
    assert (visited.events("error"), visited.complaints) == ([], [])


def test_a_spoken_turn_by_both_paths(
    serve: Callable[..., ServerProcess], visit: Open, microphone: Callable[..., Path], tmp_path: Path
) -> None:
    save_fast_models(tmp_path)
    # The language model is far slower than any machine's draft: the draft begins, and the reply is ended gracefully.
    flags = ("--path", "relay", "--brain-delay-ms", "20000", "--no-speculation", "--ears", "pocketsphinx")
    server = serve(*flags, environ={"RELAY_HOME": str(tmp_path)})
    visited = visit(server.url, *microphone_flags(microphone(2.0, 60.0), loop=False))
    page = visited.page
    page.get_by_role("button", name="Start talking").click()
    visited.until(lambda: bool(visited.events("response.done")), "the reply", timeout_s=120)
    (event,) = visited.events("relay.draft")
    report = event["draft"]
    assert report["committed"], report
    reply = page.locator(".reply").first
    expect(reply.locator("dd.fast .words")).to_have_text(report["prefix"])
    probability = f"verifier {report['probability']:.2f}"
    expect(reply.locator("dd.fast")).to_contain_text(re.compile(rf"{probability} · spoken at once · at \d+ ms"))
    expect(reply.locator("dd.slow")).to_contain_text(re.compile(r"joins after the draft · at \d+ ms"))
    drafted = "".join(reply.locator(".drafted").all_inner_texts())
    assert drafted == "".join(report["prefix"].split())
    expect(reply.locator(".joint")).to_have_count(1)
    fast_ms, slow_ms = (
        int(re.findall(r"at (\d+) ms", reply.locator(f"dd.{lane}").inner_text())[0]) for lane in ("fast", "slow")
    )
    assert 0 < fast_ms < slow_ms

    page.get_by_role("button", name="Settings").click()
    page.get_by_role("combobox", name="Path").select_option("cascade")
    visited.until(
        lambda: visited.events("session.updated")[-1]["session"]["relay"]["path"] == "cascade", "the new path"
    )
    assert (visited.events("error"), visited.complaints) == ([], [])
