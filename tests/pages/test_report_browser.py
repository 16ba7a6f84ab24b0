"""The report in a real browser: clicked through, without a network, looking at what is shown."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vistk.evaluation.printing import percent
from vistk.ops.masks import decode
from vistk.pages.collect import Collected
from vistk.pages.page import html

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SWITCH = 5
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield found
        found.close()


@dataclass
class Opened:
    """A page, and everything about it that would be wrong."""

    page: Any
    url: str
    wrong: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    def canvas(self, place: int) -> np.ndarray:
        """``(H, W, 4)`` pixels of a panel of the viewer."""
        encoded = self.page.evaluate(
            "(n) => document.querySelectorAll('#viewer figure canvas')[n].toDataURL('image/png')", place
        )
        image = Image.open(io.BytesIO(base64.b64decode(encoded.partition(",")[2])))
        return np.array(image.convert("RGBA"), dtype=np.int64)

    def wait_for_frame(self, frame: int) -> None:
        """Until every panel of the viewer is drawn."""
        self.page.wait_for_function(
            """(frame) => {
                const all = [...document.querySelectorAll("#viewer figure canvas")];
                return all.length > 1 && all.every((c) => c.dataset.frame === frame);
            }""",
            arg=str(frame),
        )


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def opened(content: dict[str, Any], where: str = "", **settings: Any) -> Opened:
        path = tmp_path / "index.html"
        path.write_text(html(content), encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.set_offline(True)
        contexts.append(context)
        found = Opened(context.new_page(), path.as_uri())
        found.page.set_default_timeout(20_000)
        found.page.on("console", lambda message: found.wrong.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.wrong.append(str(error)))
        found.page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((found.url, "data:"))
                else found.wrong.append(f"request: {request.url}")
            ),
        )
        found.page.goto(found.url + where)
        pages.append(found)
        return found

    pages: list[Opened] = []
    yield opened
    for one in pages:
        assert one.wrong == []
    for context in contexts:
        context.close()


def row_names(opened: Opened) -> list[str]:
    return opened.texts("#table-body tbody.measured tr .name")


def number_of(content: dict[str, Any], row: str, split: str, name: str) -> list[float | None]:
    rows = [one["name"] for one in content["rows"]]
    splits = [one["split"] for one in content["places"]]
    return content["numbers"][splits.index(split)][rows.index(row)][name]


def test_table_says_what_the_evaluator_says_and_sorts(
    collected: Collected, open_page: Callable[..., Opened]
) -> None:
    content = collected.content
    opened = open_page(content)
    page = opened.page
    assert row_names(opened) == [row["name"] for row in content["rows"]]
    page.select_option("#place", label="synthetic swap")
    headings = opened.texts("#table-body thead th")
    for row in row_names(opened):
        cells = opened.texts(f'#table-body tr[data-row="{row}"] > *')
        for name, cell in list(zip(headings, cells, strict=True))[1:]:
            mean, spread = number_of(content, row, "swap", name)
            assert cell == percent(mean) + ("" if spread is None else f" ± {percent(spread)}")

    ap = {row: number_of(content, row, "swap", "IDF1")[0] for row in row_names(opened)}
    assert len(set(ap.values())) == 3
    heading = page.get_by_role("columnheader", name="IDF1")
    heading.get_by_role("button").click()
    assert row_names(opened) == sorted(ap, key=lambda row: -ap[row])
    assert heading.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")  # the button has the focus still
    assert row_names(opened) == sorted(ap, key=lambda row: ap[row])
    assert heading.get_attribute("aria-sort") == "ascending"

    page.get_by_label("all splits side by side").check()
    assert opened.texts('#table-body th[scope="colgroup"]') == ["track", "swap"]
    cells = opened.texts('#table-body tr[data-row="minvis"] td')
    expected = [
        number_of(content, "minvis", split, m)[0]
        for split in ("track", "swap")
        for m in ("AP", "AssA", "IDF1")
    ]
    assert cells == [percent(value) for value in expected]
    # The best is marked among those that are not given the truth.
    assert page.locator('#table-body tr[data-row="oracle"] td.best').count() == 0
    assert page.locator('#table-body tr[data-row="visage"] td.best').count() > 0


def test_errors_events_gaps_and_groups(collected: Collected, open_page: Callable[..., Opened]) -> None:
    content = collected.content
    opened = open_page(content, "#split=swap")
    for kind, text in zip(
        content["errors"], opened.texts('#errors-body tr[data-row="minvis"] td'), strict=True
    ):
        cost, count = text.split("\n")
        assert cost == percent(number_of(content, "minvis", "swap", f"error/{kind}/dAP")[0])
        assert int(count) == number_of(content, "minvis", "swap", f"error/{kind}/errors")[0]
    kinds = opened.texts("#events-body thead th")
    assert "switch: swap" in kinds
    swaps = opened.texts('#events-body tr[data-row="minvis"] > *')[kinds.index("switch: swap")]
    assert int(swaps) == number_of(content, "minvis", "swap", "identity event/switch: swap/events")[0] > 0

    cells = opened.texts('#gaps-body tr[data-row="minvis"] td')[:5]
    names = ["AP", *(f"oracle/{gap}/AP gap" for gap in content["gaps"])]
    assert cells == [percent(number_of(content, "minvis", "swap", name)[0]) for name in names]
    widths = opened.page.evaluate(
        """() => [...document.querySelectorAll('#gaps-body tr[data-row="minvis"] .stack a')]
        .map((a) => a.offsetWidth)"""
    )
    shares = np.array([max(0.0, number_of(content, "minvis", "swap", name)[0] or 0.0) for name in names])
    np.testing.assert_allclose(np.array(widths) / sum(widths), shares / shares.sum(), atol=0.02)

    opened.page.locator("#groups-choices select").first.select_option("length")
    assert opened.texts("#groups-body thead th")[1].startswith("1-16")
    text = opened.texts('#groups-body tr[data-row="minvis"] td')[0]
    assert text == percent(number_of(content, "minvis", "swap", "length/1-16/AP")[0])


def test_from_a_number_to_its_frames_and_back(collected: Collected, open_page: Callable[..., Opened]) -> None:
    content = collected.content
    opened = open_page(content)
    page = opened.page
    page.select_option("#place", label="synthetic swap")
    page.locator('#table-body tr[data-row="minvis"] a').first.click()
    one = next(
        c for c in content["cases"] if c["row"] == 0 and content["places"][c["place"]]["split"] == "swap"
    )
    assert content["rows"][one["row"]]["name"] == "minvis"
    ap = one["values"]["AP"]
    assert opened.texts("#viewer aside button b") == [percent(value) for value in sorted(ap)]
    assert page.locator("#viewer-title").inner_text().startswith("minvis")

    # Failures, one after the other: the switches that were made, at the frame they were made at.
    page.keyboard.press("n")
    opened.wait_for_frame(SWITCH)
    said = page.locator("#viewer .said")
    assert "switch: swap" in said.inner_text()
    first = said.inner_text()
    assert page.locator("#viewer .counter").inner_text() == f"failure 1 of {len(one['events'])}"
    assert f"frame={SWITCH}" in page.url
    page.keyboard.press("n")
    assert page.locator("#viewer .counter").inner_text() == f"failure 2 of {len(one['events'])}"
    assert said.inner_text() != first
    page.keyboard.press("p")
    assert said.inner_text() == first

    # Played: other frames, other pixels.
    opened.wait_for_frame(SWITCH)
    before = opened.canvas(1)
    slider = page.locator("#viewer input[type=range]")
    page.keyboard.press("Space")
    assert page.locator("#viewer .play").inner_text() == "Pause"
    page.wait_for_function(
        "(frame) => document.querySelectorAll('#viewer figure canvas')[1].dataset.frame !== frame",
        arg=str(SWITCH),
    )
    page.keyboard.press("Space")
    assert page.locator("#viewer .play").inner_text() == "Play"
    now = int(slider.input_value())
    opened.wait_for_frame(now)
    assert (opened.canvas(1) != before).any()
    slider.fill("2")
    opened.wait_for_frame(2)
    page.keyboard.press("ArrowRight")
    opened.wait_for_frame(3)
    assert page.locator("#viewer output").inner_text() == "frame 3 of 0 to 7"
    assert "frame=3" in page.url

    # What is sent to a colleague shows the same.
    sent = open_page(content, "#" + page.url.partition("#")[2])
    sent.wait_for_frame(3)
    assert sent.page.locator("#place option:checked").inner_text() == "synthetic swap"
    np.testing.assert_array_equal(sent.canvas(0), opened.canvas(0))

    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert "row=" not in page.url
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()

    page.locator('#events-body tr[data-row="minvis"] a').first.click()
    assert page.locator("#viewer").is_visible()
    assert len(opened.texts("#viewer aside button")) > 0
    page.go_back()
    page.wait_for_function("() => !document.getElementById('viewer').open")


def test_every_seed_has_its_cases(collected: Collected, open_page: Callable[..., Opened]) -> None:
    opened = open_page(collected.content, "#row=visage&split=swap&metric=IDF1")
    page = opened.page
    assert collected.content["rows"][2]["name"] == "visage"
    chosen = page.locator("#viewer .head select")
    assert chosen.locator("option").all_inner_texts() == ["0", "1"]
    assert opened.texts("#viewer aside button b") == ["100.0"] * 4
    page.wait_for_selector("#viewer figure canvas")
    chosen.select_option("1")
    page.wait_for_function("() => location.hash.includes('seed=1')")
    expected = next(
        one["values"]["IDF1"]
        for one in collected.content["cases"]
        if one["row"] == 2 and one["seed"] == 1 and one["place"] == 1
    )
    assert opened.texts("#viewer aside button b") == [percent(value) for value in sorted(expected)]
    assert "pictures of this row are those of its first seed" in page.locator("#viewer .stage").inner_text()
    assert "vistk show" in page.locator("#viewer .stage code").inner_text()


def test_every_kind_of_number_has_its_cases(collected: Collected, open_page: Callable[..., Opened]) -> None:
    content = collected.content
    opened = open_page(content, "#split=swap")
    page = opened.page
    links = page.eval_on_selector_all(
        "main tr[data-row='minvis'] a", "(all) => [...new Set(all.map((a) => a.getAttribute('href')))]"
    )
    assert len(links) > 20
    one = next(
        c for c in content["cases"] if c["row"] == 0 and content["places"][c["place"]]["split"] == "swap"
    )
    for link in links:
        page.evaluate("(link) => { location.hash = link; }", link)
        page.wait_for_function("() => document.getElementById('viewer').open")
        state = page.evaluate("(link) => Object.fromEntries(new URLSearchParams(link.slice(1)))", link)
        if "error" in state:
            expected = number_of(content, "minvis", "swap", f"error/{state['error']}/errors")[0]
        elif "event" in state:
            expected = number_of(content, "minvis", "swap", f"identity event/{state['event']}/events")[0]
        elif "by" in state:
            expected = len(content["truths"][one["truth"]]["groups"][f"{state['by']}/{state['group']}"])
        else:
            expected = 4
        page.wait_for_function(
            "(n) => document.querySelectorAll('#viewer aside button').length === n", arg=int(expected)
        )
        page.evaluate("() => { location.hash = '#'; }")
        page.wait_for_function("() => !document.getElementById('viewer').open")


def test_masks_are_drawn_where_they_are(collected: Collected, open_page: Callable[..., Opened]) -> None:
    content = collected.content
    picture = content["pictures"][0]
    place = content["places"][next(c["place"] for c in content["cases"] if c["truth"] == picture["truth"])]
    video = content["truths"][picture["truth"]]["videos"][picture["video"]]["id"]
    opened = open_page(content, f"#row=oracle&split={place['split']}&video={video}&frame=3")
    opened.wait_for_frame(3)
    drawn = opened.canvas(0)
    opened.page.keyboard.press("m")
    opened.page.wait_for_timeout(500)
    bare = opened.canvas(0)
    height, width = picture["height"], picture["width"]
    scale = drawn.shape[0] // height
    middle = slice(scale // 2, None, scale)
    changed = (drawn != bare)[middle, middle].any(-1)
    size = [height, width]
    masks = [
        decode({"size": size, "counts": track["masks"][3]})
        for track in picture["instances"]
        if track["masks"][3]
    ]
    union = np.any(masks, axis=0)
    assert changed.shape == union.shape == (64, 96)
    assert (changed & union).sum() / (changed | union).sum() > 0.95
    # Truth and tracker have the same numbers and colours: a track is called after what it covers first.
    chips = opened.texts("#viewer .legend .chip")
    assert sorted(chips[: len(chips) // 2]) == sorted(chips[len(chips) // 2 :])
    # Another tracker beside them.
    opened.page.get_by_text("beside other trackers").click()
    opened.page.locator("#viewer .beside").get_by_label("minvis").check()
    opened.wait_for_frame(3)
    assert opened.texts("#viewer figcaption") == ["truth", "oracle", "minvis"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("row=minvis&split=swap&video=999", "There is no video 999 of swap in this report."),
        ("row=minvis&split=nowhere", "There is no split nowhere in this report."),
        ("row=nobody&split=swap", "There is no row nobody in this report."),
        ("row=visage&split=swap&seed=7", "There is no seed 7 of visage in this report."),
    ],
)
def test_what_a_link_names_and_is_not_there_is_said(
    collected: Collected, open_page: Callable[..., Opened], where: str, said: str
) -> None:
    opened = open_page(collected.content, f"#{where}")
    assert opened.texts("#viewer .stage") == [said]
    assert opened.page.locator("#viewer canvas").count() == 0
    opened.page.keyboard.press("j")
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#viewer").is_visible()


def test_odd_links(collected: Collected, open_page: Callable[..., Opened]) -> None:
    opened = open_page(collected.content, "#row=minvis&split=swap&metric=constructor&frame=x")
    opened.page.wait_for_selector("#viewer figure canvas")
    assert opened.page.locator("#viewer-title").inner_text().endswith("AP")
    opened.page.get_by_text("beside other trackers").click()
    opened.page.locator("#viewer .beside").get_by_label("oracle").check()
    opened.page.wait_for_function("() => location.hash.includes('oracle')")
    again = open_page(collected.content, "#" + opened.page.url.partition("#")[2])
    again.page.wait_for_selector("#viewer figure canvas")
    assert again.texts("#viewer figcaption") == ["truth", "minvis", "oracle"]
    open_page(collected.content, "#row=minvis&split=swap&error=constructor")


def test_a_seed_without_pictures_has_no_failures_to_step_through(
    collected: Collected, open_page: Callable[..., Opened]
) -> None:
    opened = open_page(collected.content, "#row=visage&split=swap&seed=1&error=missed")
    counter = opened.page.locator("#viewer .counter").inner_text()
    assert counter.startswith("0 failures, ")
    assert counter.endswith(" more in frames without pictures")
    assert opened.page.locator("#viewer .next").is_disabled()


@pytest.mark.parametrize("width", [400, 1280])
def test_rows_with_many_words_leave_room_for_their_numbers(
    collected: Collected, open_page: Callable[..., Opened], width: int
) -> None:
    words = "minvis " + " ".join(f"tracker.some_long_threshold_{n}=0.{n}" for n in range(12))
    content = json.loads(json.dumps(collected.content).replace('"minvis"', json.dumps(words)))
    content["places"][1]["without"] = None
    opened = open_page(content, "#split=swap", viewport={"width": width, "height": 800})
    assert words in row_names(opened)
    headers = opened.page.locator("tbody th .name")
    widths = [headers.nth(n).bounding_box()["width"] for n in range(headers.count())]
    assert len(widths) > 8
    assert max(widths) <= 22 * 15 + 1  # rem of the page
    table = opened.page.locator("#table-body tbody th").first
    assert table.bounding_box()["width"] <= 22 * 15 + 30
    assert opened.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    opened.page.keyboard.press("n")
    opened.page.wait_for_selector("#viewer figure canvas")
    caption = opened.page.locator("#viewer figcaption").nth(1)
    assert caption.bounding_box()["height"] < 30
    assert caption.get_attribute("title") == words


def test_sorting_stays_when_the_split_changes(collected: Collected, open_page: Callable[..., Opened]) -> None:
    opened = open_page(collected.content, "#split=swap")
    opened.page.get_by_role("columnheader", name="IDF1").get_by_role("button").click()
    opened.page.select_option("#place", label="synthetic track")
    heading = opened.page.get_by_role("columnheader", name="IDF1")
    assert heading.get_attribute("aria-sort") == "descending"


def test_a_split_without_cases_says_why(collected: Collected, open_page: Callable[..., Opened]) -> None:
    content = json.loads(json.dumps(collected.content))
    content["cases"], content["pictures"] = [], []
    content["places"][0]["without"] = "track: ground truth is hidden, so it has no cases"
    opened = open_page(content)
    for part in ("errors", "events", "gaps", "groups"):
        assert opened.texts(f"#{part}-body") == ["track: ground truth is hidden, so it has no cases."]


HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\"><b>bold</b>"


def test_names_are_text(collected: Collected, open_page: Callable[..., Opened]) -> None:
    text = json.dumps(collected.content)
    names = {track["label"] for picture in collected.content["pictures"] for track in picture["instances"]}
    for name in (*names, "minvis", "swap", "00000"):
        text = text.replace(json.dumps(name), json.dumps(f"{name} {HOSTILE}"))
    content = json.loads(text)
    content["cards"][0]["commit"] = content["notes"][0:0] or HOSTILE
    content["notes"] = [HOSTILE]
    opened = open_page(content)
    page = opened.page
    assert f"minvis {HOSTILE}" in row_names(opened)
    page.locator("#table-body tbody.measured a").first.click()
    page.keyboard.press("n")
    page.wait_for_selector("#viewer .legend li")
    assert any(HOSTILE in label for label in opened.texts("#viewer .legend li"))
    assert page.title() == "vistk report"
    assert page.locator("img, b:text-is('bold')").count() == 0
    assert page.locator("script").count() == 2


def test_quoted_rows_stand_apart(collected: Collected, open_page: Callable[..., Opened]) -> None:
    content = json.loads(json.dumps(collected.content))
    content["rows"].append({"name": "IFC, R50", "seeds": [], "quoted": "its paper", "given truth": False})
    for place, rows in enumerate(content["numbers"]):
        rows.append({"AP": [0.999, None]} if place == 1 else {})
    opened = open_page(content, "#split=swap")
    assert "IFC, R50" not in row_names(opened)
    assert opened.texts("#table-body tbody.quoted .name") == ["IFC, R50"]
    assert opened.texts("#table-body tbody.quoted td")[:2] == ["99.9", "-"]
    assert opened.page.locator("#table-body tbody.quoted a, #table-body tbody.quoted .best").count() == 0
    opened.page.get_by_role("columnheader", name="AP", exact=True).get_by_role("button").click()
    assert opened.texts("#table-body tbody.quoted .name") == ["IFC, R50"]
    opened.page.select_option("#place", label="synthetic track")
    assert opened.texts("#table-body tbody.quoted .name") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes(
    collected: Collected, open_page: Callable[..., Opened], scheme: str, tmp_path: Path
) -> None:
    opened = open_page(collected.content, color_scheme=scheme)
    opened.page.screenshot(path=tmp_path / "page.png")
    pixels = np.array(Image.open(tmp_path / "page.png").convert("L"), dtype=float)
    assert (np.median(pixels) < 60) == (scheme == "dark")
    assert abs(pixels - np.median(pixels)).max() > 150  # there is text that can be read


def test_films_of_the_worst_videos_on_a_telephone(
    collected: Collected, open_page: Callable[..., Opened]
) -> None:
    opened = open_page(collected.content, "#split=swap", viewport={"width": 400, "height": 800})
    page = opened.page
    page.locator("#worst").scroll_into_view_if_needed()
    card = page.locator("#worst-body .card").first
    card.scroll_into_view_if_needed()
    one = next(c for c in collected.content["cases"] if c["row"] == 0 and c["place"] == 1)
    worst = collected.content["truths"][one["truth"]]["videos"][one["worst"][0]]["id"]
    assert card.locator("h3").inner_text().startswith(f"video {worst}")
    canvas = card.locator("figure canvas").nth(1)
    canvas.wait_for()
    page.wait_for_function("(c) => c.dataset.frame !== undefined", arg=canvas.element_handle())
    before = canvas.get_attribute("data-frame")
    card.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "([c, before]) => c.dataset.frame !== before", arg=[canvas.element_handle(), before]
    )
    card.get_by_role("button", name="Pause").click()
    strip = card.locator("canvas.strip")
    page.wait_for_function("(c) => c.dataset.columns !== undefined", arg=strip.element_handle())
    box = strip.bounding_box()
    strip.click(position={"x": box["width"] - 3, "y": 5})
    page.wait_for_function("(c) => c.dataset.frame === '7'", arg=canvas.element_handle())

    def overflow() -> int:
        return page.evaluate("() => document.documentElement.scrollWidth - innerWidth")

    assert overflow() <= 0
    page.keyboard.press("n")
    opened.wait_for_frame(SWITCH)
    assert overflow() <= 0
    assert (
        page.evaluate(
            "() => { const v = document.getElementById('viewer'); return v.scrollWidth - v.clientWidth; }"
        )
        <= 0
    )
