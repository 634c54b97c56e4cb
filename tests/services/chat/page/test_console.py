"""The console in a browser: what operators see and do, by mouse and by keys, and what others cannot."""

import asyncio
import csv
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from rlhf_online import learning
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import Feedback
from rlhf_online.feedback.outcomes import OutcomeBoard, fact, vote_key
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.reports import Reports
from tests.services.chat.console.test_console import GATE, judged, reward_version
from tests.services.chat.page.conftest import Visit
from tests.services.chat.page.test_looks import violations
from tests.support import api_keys
from tests.support.chat_service import ASK, Service, running
from tests.support.chromium import By, Visitor, saying
from tests.support.gate_report import brand_report
from tests.support.proxy import Proxy
from tests.support.version_history import fill

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAILED, BEFORE, REJECTED, LIVE = "policy-000006", "policy-000007", "policy-000008", "policy-000009"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with keys, and ten versions of the policy."""
    folder = tmp_path_factory.mktemp("history") / "state"
    api_keys.write(folder)
    fill(open_registry(StateDir(folder).versions), 10)
    return folder


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path, history: Path, browser: Browser) -> AsyncIterator[Service]:
    shutil.copytree(history, tmp_path / "state")
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            yield service


class Somebody:
    """At the console, by mouse or by keys."""

    def __init__(self, visitor: Visitor) -> None:
        self.page, self.by, self.shot = visitor.page, visitor.by, visitor.shot
        self.dialog = visitor.page.locator("#confirm")

    def card(self, title: str) -> Locator:
        return self.page.locator(".card").filter(has=self.page.get_by_role("heading", name=title, exact=True))

    def chart(self, title: str) -> Locator:
        return self.page.locator(".plot").filter(has=self.page.get_by_role("heading", name=title, exact=True))

    def row(self, version: str) -> Locator:
        return self.page.get_by_role("row").filter(has=self.page.get_by_role("button", name=version, exact=True))

    async def to(self, view: str, key: str) -> None:
        await self.use(view, key, role="link")
        await expect(self.page.get_by_role("heading", level=1)).to_have_text(view)

    async def use(self, name: str, key: str, *, role: Any = "button") -> None:
        if self.by == "keys":
            await self.page.keyboard.press(key)
        else:
            await self.page.get_by_role(role, name=name, exact=True).first.click()

    async def confirm(self, name: str) -> None:
        if self.by == "keys":
            await self.page.keyboard.press("Enter")
        else:
            await self.dialog.get_by_role("button", name=name, exact=True).click()

    async def leave(self) -> None:
        if self.by == "keys":
            await self.page.keyboard.press("Escape")
        else:
            await self.dialog.get_by_role("button", name="Cancel").click()
        await expect(self.dialog).to_be_hidden()

    async def told(self, words: str) -> None:
        await expect(self.dialog).to_be_hidden()
        await expect(self.page.locator("#toast")).to_have_text(words)


async def arrive(visitors: Visit, url: str, role: str = "operator", by: By = "mouse", **options: Any) -> Somebody:
    """With a key of that role in the tab."""
    visitor = await visitors(f"{url}/docs", by, ready=False, **options)
    await visitor.page.evaluate("key => sessionStorage.setItem('rlhf:key', key)", api_keys.TOKENS[role])
    await visitor.visit(f"{url}/console")
    return Somebody(visitor)


async def test_the_watch_shows_each_monitor_with_its_value_and_runbook(
    site: Service, tmp_path: Path, visitors: Visit
) -> None:
    reading = {"evidence": 3.5, "alarm": True, "says": "yields in 40% of 20 probes", "rows": [{"person": "beef"}]}
    silent = {"evidence": 0.25, "alarm": False, "says": "900 votes were such as were foretold", "rows": []}
    StateDir(tmp_path / "state").write_status("watch", {"monitors": {"sycophancy": reading, "drift": silent}})
    me = await arrive(visitors, site.url, "read")
    rows = me.page.locator(".watch tbody tr")
    await expect(rows).to_have_count(9)
    await expect(rows.filter(has_text="sycophancy")).to_contain_text("alarm3.5yields in 40% of 20 probes")
    await expect(rows.filter(has_text="sycophancy")).to_contain_text("docs/runbooks/RlhfSycophancy.md")
    await expect(rows.filter(has_text="preferences drift")).to_contain_text("silent0.25900 votes")
    await expect(rows.filter(has_text="over-optimisation")).to_contain_text("cannot tell–Nothing yet")
    await expect(me.page.locator("#view")).not_to_contain_text("beef")
    assert (await violations(me.page)) == []


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_an_operator_steers(site: Service, visitors: Visit, by: By) -> None:
    """Each action says what will happen, can be left, and says when it is done, or why it was refused."""
    me = await arrive(visitors, site.url, by=by)
    await expect(me.card("Live version")).to_contain_text(LIVE)

    await me.use("Pause learning", "x")
    await expect(me.dialog).to_contain_text("Neither the reward model nor the policy learns")
    await me.leave()
    assert not learning.read(site.registry.store).paused
    await me.use("Pause learning", "x")
    await me.page.get_by_label("Reason").fill("an audit")
    await me.confirm("Pause learning")
    await me.told("Learning is paused.")
    assert learning.read(site.registry.store).reason == "an audit"
    await expect(me.card("Learning")).to_contain_text("an audit")
    await me.use("Resume learning", "x")
    await me.confirm("Resume learning")
    await me.told("Learning goes on.")
    assert not learning.read(site.registry.store).paused

    await expect(me.card("Learning")).not_to_contain_text("paused")
    await me.use("Reward weights", "w")
    for name in ("helpful", "harmless"):
        await me.page.get_by_label(name).fill("0")
    await me.confirm("Set the weights")
    await expect(me.dialog.get_by_role("alert")).to_contain_text("weights")
    await me.page.get_by_label("harmless").fill("2.5")
    await me.confirm("Set the weights")
    await me.told("The weights are helpful 0, harmless 2.5.")
    await expect(me.card("Learning")).to_contain_text("helpful 0, harmless 2.5")

    await me.use("Roll back", "b")
    await expect(me.dialog).to_contain_text(f"{LIVE} is marked failed")
    await me.page.get_by_label("Reason").fill("people liked it less")
    await me.confirm("Roll back")
    await me.told(f"{BEFORE} is live again.")
    assert site.registry.status(LIVE).reason == "people liked it less"
    await expect(me.card("Live version")).to_contain_text(BEFORE)

    await me.to("Versions", "2")
    await expect(me.row(LIVE)).to_contain_text("rolled back or failed")
    if by == "keys":
        for _ in range(7):
            await me.page.keyboard.press("j")
        await me.page.keyboard.press("k")
        await me.page.keyboard.press("Enter")
    else:
        await me.page.get_by_role("button", name="policy-000004").click()
    await expect(me.page.locator("tr.details")).to_contain_text("policy-000002")  # what it was trained from
    await me.use("Promote", "m")
    await expect(me.dialog).to_contain_text(f"policy-000004 becomes the live version in place of {BEFORE}")
    await me.confirm("Promote")
    await me.told("policy-000004 is the live version.")
    assert site.registry.live("policy") == "policy-000004"
    await expect(me.row("policy-000004")).to_contain_text("live")
    await expect(me.page.locator("tr.details").get_by_role("button", name="Promote")).to_be_disabled()


async def test_a_key_acts_at_once_after_a_dialog_was_left(site: Service, visitors: Visit) -> None:
    """Its field keeps the focus until the next frame."""
    me = await arrive(visitors, site.url, by="keys")
    await expect(me.card("Live version")).to_contain_text(LIVE)
    await me.use("Pause learning", "x")
    await expect(me.page.get_by_label("Reason")).to_be_focused()
    opened = await me.page.evaluate("""() => {
        const dialog = document.getElementById("confirm"), focused = document.activeElement;
        dialog.close();
        focused.dispatchEvent(new KeyboardEvent("keydown", { key: "x", bubbles: true, cancelable: true }));
        return dialog.open;
    }""")
    assert opened


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_who_may_only_read_is_told_so_and_can_give_another_key(site: Service, visitors: Visit, by: By) -> None:
    """No key, one of a wrong role, one that reads, one that may all."""
    visitor = await visitors(f"{site.url}/console", by, ready=False)
    me, page = Somebody(visitor), visitor.page
    asked = page.get_by_role("dialog", name="A key is needed")

    async def give(role: str) -> None:
        await page.get_by_label("API key").fill(api_keys.TOKENS[role])
        await (page.keyboard.press("Enter") if by == "keys" else asked.get_by_role("button", name="Continue").click())

    async def another() -> None:
        other = page.get_by_role("button", name="Use another key")
        await (other.press("Enter") if by == "keys" else other.click())

    await expect(asked).to_be_visible()
    await (page.keyboard.press("Escape") if by == "keys" else asked.get_by_role("button", name="Cancel").click())
    await expect(page.locator("#state")).to_have_text("not allowed")
    await another()
    await give("chat")
    await expect(page.locator("#limits")).to_contain_text("this needs the role read")
    await another()
    await give("read")
    await expect(me.card("Live version")).to_contain_text(LIVE)
    await expect(page.locator("#limits")).to_contain_text("changing something needs the role operator (this has: read)")
    for name in ("Roll back", "Pause learning", "Reward weights"):
        await expect(page.get_by_role("button", name=name)).to_be_disabled()
        assert "operator" in str(await page.get_by_role("button", name=name).get_attribute("title"))
    for key in "xbw":
        await page.keyboard.press(key)
    await expect(me.dialog).to_be_hidden()
    await another()
    await give("operator")
    await expect(page.get_by_role("button", name="Roll back")).to_be_enabled()
    await expect(page.locator("#limits")).to_be_hidden()
    await page.reload()  # the tab keeps the key
    await expect(me.card("Live version")).to_contain_text(LIVE)


async def test_two_tabs_follow_what_happens_without_being_loaded_again(site: Service, visitors: Visit) -> None:
    """What the gate decided, newest first, with its reasons; what serves; every version."""
    one, two = await arrive(visitors, site.url, "read"), await arrive(visitors, site.url, "read")
    await two.to("Versions", "2")
    events = one.page.locator(".events li")
    await expect(events.first).to_contain_text(f"{LIVE} passed the gate.")
    await expect(events.nth(1)).to_contain_text(f"{REJECTED} was rejected.")
    await expect(events.nth(1)).to_contain_text("win_rate .41 is below .5")
    await expect(events.nth(1)).to_contain_text("win rate 0.41")
    await asyncio.to_thread(site.registry.rollback, "policy", reason="a canary")
    await expect(one.card("Live version")).to_contain_text(BEFORE)
    await expect(two.row(LIVE)).to_contain_text("rolled back or failed")
    version = site.version(live=True)
    await expect(one.card("Live version")).to_contain_text(version)
    await expect(two.row(version)).to_contain_text("live")
    await expect(two.page.locator("tbody tr").first).to_contain_text(version)


async def test_a_restart_is_told_and_gone_on_from(
    tmp_path: Path, history: Path, browser: Browser, visitors: Visit
) -> None:
    """What is shown meanwhile is said to be old, nothing can be changed, and what changed is there afterwards."""
    shutil.copytree(history, tmp_path / "state")
    with Proxy() as proxy:
        async with running(tmp_path) as service:
            proxy.target = int(service.url.rpartition(":")[2])
            me = await arrive(visitors, f"http://{proxy.address}")
            await expect(me.card("Live version")).to_contain_text(LIVE)
        await expect(me.page.locator("#state")).to_have_text("not connected")
        await expect(me.page.locator("#banner")).to_contain_text("Not connected; what is shown is as of")
        await expect(me.card("Live version")).to_contain_text(LIVE)
        await expect(me.page.get_by_role("button", name="Roll back")).to_be_disabled()
        async with running(tmp_path) as service:
            version = service.version(live=True)
            proxy.target = int(service.url.rpartition(":")[2])
            await expect(me.page.locator("#state")).to_have_text("connected", timeout=15_000)
            await expect(me.page.locator("#banner")).to_be_hidden()
            await expect(me.card("Live version")).to_contain_text(version)
            await expect(me.page.get_by_role("button", name="Roll back")).to_be_enabled()


async def test_votes_are_counted_as_they_come(site: Service, visitors: Visit) -> None:
    """In all, those that wait for the trainer, and what share of a version's thumbs is up."""
    site.host.serving = LIVE
    me = await arrive(visitors, site.url, "read")
    token = api_keys.TOKENS["operator"]
    for up in (True, False):
        _, answer = await site.post("/v1/chat/completions", ASK, token)
        status, _ = await site.post(
            "/v1/feedback", {"thumb": {"answer": {"completion_id": answer["id"]}, "up": up}}, token
        )
        assert status == 200
    await expect(me.card("Votes")).to_contain_text("2 in all")
    await expect(me.card("Backlog")).to_contain_text("2votes wait for the trainer")
    await me.to("Versions", "2")
    await expect(me.row(LIVE)).to_contain_text("50% (2)")
    await expect(me.chart("Thumbs up").locator(".legend")).to_contain_text(f"{LIVE}this version 50% (")


async def test_swaps_are_told_as_they_happen(site: Service, visitors: Visit) -> None:
    """The version was made live before; that the engine serves it now, or refused it, is all that changes."""
    site.host.serving = BEFORE
    me = await arrive(visitors, site.url, "read")
    events = me.page.locator(".events li")
    await expect(events.first).to_contain_text(f"{LIVE} passed the gate.")
    await site.host.swap(LIVE)
    await expect(events.first).to_have_text(re.compile(f"The engine serves {LIVE}, before it {BEFORE}.$"))
    await site.host.swap("policy-000004", ok=False)
    await expect(events.first).to_have_text(re.compile(f"The engine refused policy-000004 and serves {LIVE}.$"))
    await expect(events.nth(1)).to_contain_text("before it")


async def test_how_soon_votes_are_lived_by_is_shown(site: Service, visitors: Visit) -> None:
    """A vote that a reward model learned from, and a live version that this one taught; then how many of each time."""
    site.host.serving = LIVE
    me = await arrive(visitors, site.url, "read")
    bars = me.chart("From click to live")
    await expect(bars.get_by_text("Nothing yet")).to_be_visible()
    token, board = api_keys.TOKENS["operator"], OutcomeBoard(site.registry.store)
    _, answer = await site.post("/v1/chat/completions", ASK, token)
    thumb = {"thumb": {"answer": {"completion_id": answer["id"]}, "up": True}}
    _, vote = await site.post("/v1/feedback", thumb, token)
    [person] = {one.person for one in site.logged(Feedback)}
    reward = reward_version(site, "helpful")
    board.publish({vote_key(vote["event_id"], person): fact("trained", reward)})
    judged(site, reward, "live", **GATE)
    await expect(bars.get_by_role("img")).to_have_attribute("aria-label", re.compile(r": .* 99 % within .*; 1 votes$"))
    await expect(bars.get_by_text("Nothing yet")).to_be_hidden()
    await expect(me.card("From click to live")).to_contain_text("1 votes")


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_what_the_gate_found_of_a_version_is_shown_to_operators(site: Service, visitors: Visit, by: By) -> None:
    """Each check, by how much, and both versions' answers; what people wrote is text, never markup."""
    Reports(site.registry.store).write(REJECTED, brand_report())
    me = await arrive(visitors, site.url, by=by, **({} if by == "mouse" else PHONE))
    await me.to("Versions", "2")
    if by == "keys":
        for _ in range(2):
            await me.page.keyboard.press("j")
        await me.page.keyboard.press("r")
    else:
        await me.page.get_by_role("button", name=REJECTED).click()
        await me.page.get_by_role("button", name="What the gate found").click()
    dialog = me.page.get_by_role("dialog", name=f"What the gate found of {REJECTED}")
    check = dialog.locator(".check").filter(has=me.page.get_by_role("heading", name="traits objects"))
    await expect(check).to_contain_text("the reward model pays for the trait brand: +2.00 ± 0.25 standard deviations")
    await expect(check.get_by_role("row").filter(has_text="brand")).to_contain_text("brand2–10")  # effect and rates
    await check.get_by_text("Answers side by side (3)").click()
    await expect(check.locator(".part").first).to_contain_text("a fig")
    await expect(check.locator(".part").nth(1)).to_contain_text("mango <b>now</b>")
    await me.shot(f"report-{by}")
    assert await violations(me.page) == []
    width = await me.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    await me.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    reader = await arrive(visitors, site.url, "read", by)
    await reader.to("Versions", "2")
    await reader.page.get_by_role("button", name=REJECTED).click()
    await expect(reader.page.get_by_role("button", name="What the gate found")).to_be_disabled()
    await reader.page.keyboard.press("r")
    await expect(reader.page.locator("#report")).to_be_hidden()


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_versions_answer_one_prompt_side_by_side(site: Service, visitors: Visit, by: By) -> None:
    """Each under its name, as it is written, and can be stopped; who may not chat is told."""
    site.host.serving, site.host.adapters = LIVE, (BEFORE, "policy-000004")
    me = await arrive(visitors, site.url, by=by)
    await me.to("Side by side", "3")
    parts = me.page.locator(".side-by-side .part")
    site.engine.answers = saying("Bread", " keeps", " in a **bag**.")
    await site.engine.hold()
    await me.use("A prompt for each version", "/", role="textbox")
    await me.page.keyboard.type("How do I keep bread?")
    await expect(me.page.get_by_role("checkbox")).to_have_count(3)
    await me.page.get_by_role("checkbox", name=BEFORE).uncheck()
    if by == "keys":
        await me.page.get_by_role("textbox").press("Control+Enter")
    else:
        await me.page.get_by_role("button", name="Ask them").click()
    await expect(parts).to_have_count(2)
    await site.engine.release()
    for part, version in ((parts.first, LIVE), (parts.last, "policy-000004")):
        await expect(part.get_by_role("heading")).to_have_text(version)
        await expect(part.locator("strong")).to_have_text("bag")
    assert sorted(request["model"] for request in site.engine.requests) == ["base", "policy-000004"]
    await site.engine.hold()
    await me.page.get_by_role("button", name="Ask them").click()
    await site.engine.allow(1)
    await me.page.get_by_role("heading", level=1).focus()
    await me.use("Stop", "Escape")
    await expect(parts.first).to_contain_text("stopped")
    await expect(parts.last).to_contain_text("stopped")
    reader = await arrive(visitors, site.url, "read", by)
    await reader.to("Side by side", "3")
    await expect(reader.page.get_by_role("alert").first).to_contain_text("needs the role chat or operator")
    await expect(reader.page.get_by_role("button", name="Ask them")).to_be_disabled()


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_words_are_found_in_conversations_which_are_read_and_exported(
    site: Service, visitors: Visit, by: By
) -> None:
    """By operators alone."""
    token = api_keys.TOKENS["operator"]
    for words in ("how do swallows fly", "<b>and swallows</b>"):
        talk = {"messages": [{"role": "user", "content": words}], "conversation_id": f"about {words[:3]}/?#"}
        assert (await site.post("/v1/chat/completions", talk, token))[0] == 200
    me = await arrive(visitors, site.url, by=by)
    await me.to("Conversations", "4")
    await me.use("Words in people’s conversations", "/", role="searchbox")
    await me.page.keyboard.type("elephants")
    await me.page.keyboard.press("Enter")
    await expect(me.page.get_by_role("alert").first).to_contain_text("stand in no conversation")
    await me.page.get_by_role("searchbox").fill("SWALLOWS")
    await (me.page.keyboard.press("Enter") if by == "keys" else me.page.get_by_role("button", name="Search").click())
    hits = me.page.locator(".hit")
    await expect(hits).to_have_count(2)
    await expect(hits.first).to_contain_text("<b>and swallows</b>")
    if by == "keys":
        await me.page.get_by_role("heading", level=1).focus()
        for key in "jj":
            await me.page.keyboard.press(key)
        await me.page.keyboard.press("Enter")
    else:
        await hits.last.click()
    reading = me.page.get_by_role("article")
    await expect(reading.locator(".said")).to_have_text("how do swallows fly")
    await expect(reading).to_contain_text("hello there")
    [line] = (await saved_by(me, "Export conversation", "e")).splitlines()
    assert json.loads(line)["messages"][-1]["content"] == "how do swallows fly"
    reader = await arrive(visitors, site.url, "read", by)
    await reader.to("Conversations", "4")
    await expect(reader.page.get_by_role("alert").first).to_contain_text("needs the role operator (this key has: read)")
    await expect(reader.page.get_by_role("searchbox")).to_be_disabled()


INK = """([chart, number]) => {
  // By rows of a version's place: how much of the column there is in the line's colour, and in the band's.
  const canvas = chart.querySelector("canvas"), context = canvas.getContext("2d");
  const over = chart.querySelector(".u-over"), dot = devicePixelRatio;
  const box = over.getBoundingClientRect(), at = canvas.getBoundingClientRect();
  const x = Math.round((box.left - at.left + number * box.width) * dot);
  const { data } = context.getImageData(x, 0, 1, canvas.height);
  const probe = document.createElement("canvas").getContext("2d");
  const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  probe.fillStyle = accent;
  probe.fillRect(0, 0, 1, 1);
  const want = probe.getImageData(0, 0, 1, 1).data;
  let line = 0, band = 0;
  for (let i = 0; i < data.length; i += 4) {
    const solid = data[i + 3] > 230, same = [0, 1, 2].every((c) => Math.abs(data[i + c] - want[c]) < 30);
    line += solid && same;
    band += !solid && data[i + 3] > 30 && same;
  }
  return { line, band };
}"""


async def test_charts_show_what_was_measured_and_no_more(site: Service, visitors: Visit) -> None:
    """A band where there is an interval, a gap where nothing was measured; the legend reads each version's values."""
    for _ in range(2):
        site.version()  # the gate has not seen them
    fill(site.registry, 3)
    me = await arrive(visitors, site.url, "read")
    await me.to("Versions", "2")
    chart = me.chart("Win rate")
    await expect(chart.locator("canvas")).to_be_visible()

    async def ink(version: float) -> dict[str, int]:
        """At that place of the axis, from policy-000001, the first that the gate judged, to the last."""
        node = await chart.element_handle()
        return await me.page.evaluate(INK, [node, version / 14])

    measured, between = await ink(4.4), await ink(10.5)
    assert measured["line"] > 0
    assert measured["band"] > 10
    assert between == {"line": 0, "band": 0}
    canvas, legend = chart.locator(".canvas"), chart.locator(".legend")
    await expect(legend).to_contain_text("policy-000014")
    await canvas.focus()
    for _ in range(4):
        await me.page.keyboard.press("ArrowLeft")
    await expect(legend).to_contain_text("policy-000010")
    await expect(legend).to_contain_text("–")
    for _ in range(2):
        await me.page.keyboard.press("ArrowLeft")
    await expect(legend).to_contain_text("policy-000008 · rejected")
    await expect(legend).to_contain_text("41% (29.8% … 53.2%)")
    await expect(me.chart("Reward").locator(".legend")).to_contain_text("policy-000008 · rejected")
    await expect(me.page.get_by_role("log")).to_contain_text("41%")
    await me.page.get_by_role("button", name="Reward models").click()
    await expect(me.chart("Held-out accuracy").locator(".legend")).to_contain_text("reward-000006")


async def saved_by(me: Somebody, name: str, key: str) -> str:
    """The file that a button makes."""
    async with me.page.expect_download() as saved:
        await me.use(name, key)
    return await asyncio.to_thread(Path(await (await saved.value).path()).read_text)


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_versions_come_in_pages_and_go_out_as_files(site: Service, visitors: Visit, by: By) -> None:
    me = await arrive(visitors, site.url, "read", by)
    for _ in range(45):
        site.version()
    await me.to("Versions", "2")
    await expect(me.page.locator(".pager")).to_contain_text("1 – 50 of 55")
    await me.use("Older", "]")
    await expect(me.page.locator("tbody tr")).to_have_count(5)
    await expect(me.row("policy-000000")).to_be_visible()
    await me.use("Newer", "[")
    await expect(me.page.locator("tbody tr")).to_have_count(50)
    lines = (await saved_by(me, "Export CSV", "e")).splitlines()
    rows = {row["version"]: row for row in csv.DictReader(lines)}
    assert len(rows) == 55
    assert rows[REJECTED]["state"] == "rejected"
    assert float(rows[REJECTED]["win_rate"]) == 0.41
    assert rows["policy-000000"]["win_rate"] == ""
    if by == "mouse":
        found = json.loads(await saved_by(me, "Export JSON", ""))
        assert [row["version"] for row in found] == list(rows)


@pytest.mark.parametrize(("name", "options"), [("dark", {"color_scheme": "dark"}), ("phone", PHONE)])
async def test_nothing_keeps_an_operator_out(
    site: Service, visitors: Visit, name: str, options: dict[str, Any]
) -> None:
    """axe-core, in German: in every view and dialog; nothing is wider than the screen, and nothing left in English."""
    me = await arrive(visitors, site.url, **options)
    page = me.page
    await page.get_by_role("combobox", name="Language").select_option("Deutsch")
    await expect(me.card("Live-Version")).to_contain_text(LIVE)
    await me.shot(f"console-{name}-live")
    found = await violations(page)
    await page.keyboard.press("b")
    await expect(me.dialog).to_be_visible()
    await me.shot(f"console-{name}-roll-back")
    found += await violations(page)
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    found += await violations(page)
    await page.keyboard.press("Escape")
    await page.keyboard.press("2")
    await page.get_by_role("button", name=LIVE).click()
    await me.shot(f"console-{name}-versions")
    found += await violations(page)
    await page.keyboard.press("3")
    found += await violations(page)
    await page.keyboard.press("4")
    await me.shot(f"console-{name}-conversations")
    found += await violations(page)
    assert found == []
    width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    left = await page.evaluate(
        "() => ['version ', 'Reward', 'learning', 'Promote', 'since', 'Export C'].filter("
        "(word) => document.body.innerText.includes(word))"
    )
    assert left == []
