"""The comparison page in chromium, opened from disk: it sorts, filters, keeps its state in the address, asks
the network for nothing, fits a phone, and tells a screen reader what is what.

Chromium is the system's own, never a downloaded one; it is started once, and stopped.
"""

import io
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pixtell.metrics import Score
from pixtell.reports import ComparedImage, Comparison, Thumbnail, write_comparison

pytestmark = pytest.mark.chromium
MakeComparison = Callable[..., Comparison]
DESKTOP, PHONE = (1280, 900), (360, 740)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 10_000  # milliseconds until a wait fails

# For each text that is shown: its contrast with what lies behind it, where that is below 4.5.
LOW_CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parse(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parse(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${walker.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""


@dataclass
class Watched:
    """A page with all that it asked for and complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: Path, state: str = "") -> Page:
        self.page.goto("about:blank")
        self.page.goto(path.as_uri() + state)
        return self.page

    def shown_ids(self) -> list[str]:
        return self.page.locator("article:not([hidden]) h3").all_text_contents()

    @property
    def count(self) -> Any:
        return expect(self.page.get_by_role("status"))

    def sort(self, **choices: str) -> list[str]:
        for label, choice in choices.items():
            self.page.get_by_label(label.replace("_", " "), exact=True).select_option(label=choice)
        return self.shown_ids()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS, timeout=30_000
        )
        try:
            yield launched
        finally:
            launched.close()


@pytest.fixture
def watch(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Opens pages of a size; at the end none may have gone to the network or complained."""
    watched: list[Watched] = []

    def open_page(size: tuple[int, int] = DESKTOP, **options: Any) -> Watched:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(PATIENCE)
        found = Watched(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("dialog", lambda dialog: (found.complaints.append(dialog.message), dialog.dismiss()))
        watched.append(found)
        return found

    yield open_page
    for found in watched:
        found.page.context.close()
        assert found.complaints == []
        assert found.requests
        assert all(url.startswith(("file:", "data:", "about:")) for url in found.requests)
        assert len({url.partition("#")[0] for url in found.requests if url.startswith("file:")}) == 1


@pytest.fixture(scope="module")
def path(make_comparison: MakeComparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three systems on twelve pictures; one score is no number."""
    comparison = make_comparison(
        systems=3, images=12, yardstick={"CIDEr-D": Score(0.8, {}, ""), "BLEU-1": Score(0.7, {}, "")}
    )
    first = comparison.systems[0]
    scores = first.scores["CIDEr-D"]
    broken = replace(scores, per_image={**scores.per_image, "03.jpg": math.nan})
    systems = [replace(first, scores={**first.scores, "CIDEr-D": broken}), *comparison.systems[1:]]
    path = tmp_path_factory.mktemp("page") / "a page #1?.html"
    write_comparison(path, replace(comparison, systems=systems, warnings=["Mind the number of pictures."]))
    return path


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen_and_can_be_read(
    watch: Callable[..., Watched], path: Path, size: tuple[int, int], scheme: str
) -> None:
    page = watch(size, color_scheme=scheme).open(path)
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    page.get_by_role("link", name="The pictures", exact=True).click()
    assert page.evaluate(
        "Promise.all([...document.images].slice(0, 2).map((image) => image.decode().then(() => image.width)))"
    )
    page.get_by_label("Metric", exact=True).select_option(label="BLEU-1")
    assert page.evaluate(LOW_CONTRAST) == []


def test_on_a_phone_two_systems_and_a_person_stand_side_by_side(
    watch: Callable[..., Watched], make_comparison: MakeComparison, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    write_comparison(path, make_comparison(yardstick={"CIDEr-D": Score(0.8, {}, "", (0.7, 0.9))}))
    page = watch(PHONE).open(path)
    table = page.get_by_role("region", name="How good the captions are")
    assert table.evaluate("region => region.scrollWidth <= region.clientWidth")
    assert page.evaluate(LOW_CONTRAST) == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_tall_narrow_picture_takes_no_more_than_a_screen(
    watch: Callable[..., Watched], make_comparison: MakeComparison, tmp_path: Path, size: tuple[int, int]
) -> None:
    usual = make_comparison(images=1)
    stream = io.BytesIO()
    Image.new("RGB", (16, 320)).save(stream, "WEBP")
    tall = replace(usual.images[0], thumbnail=Thumbnail(stream.getvalue(), 16, 320))
    path = tmp_path / "page.html"
    write_comparison(path, replace(usual, images=[tall]))
    page = watch(size).open(path)
    page.locator("#pictures").scroll_into_view_if_needed()
    box = page.locator("article img").bounding_box()
    assert box is not None
    assert box["height"] < size[1]


def test_pictures_are_sorted(watch: Callable[..., Watched], path: Path) -> None:
    watched = watch()
    watched.open(path)
    ids = [f"{index:02}.jpg" for index in range(12)]
    values = {
        number: {name: (7 * i + 4 * number * i) % 10 for i, name in enumerate(ids)} for number in range(3)
    }
    values[0]["03.jpg"] = math.nan

    def expected(key: Callable[[str], float]) -> list[str]:
        return sorted(ids, key=lambda name: (math.isnan(key(name)), key(name)))

    assert watched.shown_ids() == ids
    gain = watched.sort(Sort_by="Difference, highest first")
    assert gain == expected(lambda name: values[0][name] - values[1][name])
    notes = watched.page.locator("article .sorted-by").all_text_contents()
    assert notes[0].startswith("B \u2212 A in CIDEr-D: +")
    assert notes[-1] == "B \u2212 A in CIDEr-D: n/a"
    loss = watched.sort(Sort_by="Difference, lowest first", for_system="C model-2", minus_system="B model-1")
    assert loss == expected(lambda name: values[2][name] - values[1][name])
    watched.count.to_have_text("12 pictures, sorted by C \u2212 B in CIDEr-D, lowest first")
    best = watched.sort(Sort_by="Score, highest first", of_metric="BLEU-1", for_system="A model-0")
    assert best == sorted(ids, key=lambda name: int(name[:2]) * 7 % 10)
    assert watched.sort(of_metric="CIDEr-D")[-1] == "03.jpg"
    assert watched.sort(Sort_by="Score, lowest first")[-1] == "03.jpg"
    assert watched.sort(Sort_by="Captions least alike first")[-6:] == ids[::2]
    assert watched.sort(Sort_by="Image id") == watched.sort(Sort_by="Order given") == ids
    assert watched.page.locator("article .sorted-by").first.is_hidden()


def test_pictures_are_filtered_as_words_are_typed(watch: Callable[..., Watched], path: Path) -> None:
    watched = watch()
    page = watched.open(path)
    words, clear = page.get_by_role("searchbox"), page.get_by_role("button", name="Clear filter")
    expect(clear).to_be_disabled()
    queries = {"DOG": 2, "dog cat": 0, '"red ball"': 12, '"ball red"': 0, "red ball snow": 6, "07.jpg": 1}
    for query, count in (queries | {'"a cat" snow': 2, "   ": 12, "“a cat": 2}).items():
        words.fill(query)
        said = {12: "12 pictures", 0: re.compile("None of 12 pictures")}
        watched.count.to_have_text(said.get(count, f"{count} of 12 pictures"))
        assert len(watched.shown_ids()) == count
    words.fill("dog")
    page.get_by_label("Only where the captions differ").check()
    watched.count.to_contain_text("None of 12")
    clear.click()
    watched.count.to_have_text("12 pictures")
    expect(words).to_be_focused()
    expect(page.get_by_label("Only where the captions differ")).not_to_be_checked()
    page.get_by_label("Only where the captions differ").check()
    assert watched.shown_ids() == [f"{index:02}.jpg" for index in range(1, 12, 2)]


def test_a_link_shows_the_same_again(watch: Callable[..., Watched], path: Path) -> None:
    watched = watch()
    page = watched.open(path)
    watched.sort(Sort_by="Difference, highest first", for_system="C model-2")
    page.get_by_role("searchbox").fill('"red & ball" 100% <b>')
    watched.count.to_contain_text("None of 12")
    state = page.evaluate("location.hash")
    other = watch(PHONE)
    assert other.open(path, state).get_by_role("searchbox").input_value() == '"red & ball" 100% <b>'
    other.page.get_by_role("button", name="Clear filter").click()
    page.get_by_role("button", name="Clear filter").click()
    assert other.shown_ids() == watched.shown_ids()
    assert other.page.get_by_label("for system").input_value() == "C"
    page.evaluate("location.hash = '#q=cat'")
    watched.count.to_have_text("2 of 12 pictures")
    page.get_by_role("link", name="Distributions").click()
    watched.count.to_have_text("2 of 12 pictures")  # a link within the page is no state


def test_a_broken_link_does_no_harm(watch: Callable[..., Watched], path: Path) -> None:
    watched = watch()
    for state in (
        "#sort=nonsense&metric=__proto__&system=Z",
        "#q=%E0%A4%A",
        "#q=<img src=x onerror=alert(1)>",
    ):
        watched.open(path, state)
        watched.count.to_contain_text("12 pictures")
        assert watched.page.locator("article").count() == 12


def test_without_javascript_everything_can_be_read(
    watch: Callable[..., Watched], path: Path, make_comparison: MakeComparison
) -> None:
    page = watch(java_script_enabled=False).open(path)
    text = page.locator("body").text_content() or ""
    for system in make_comparison(systems=3, images=12).systems:
        assert all(caption in text for caption in system.captions.values())
    assert "need JavaScript" in text
    expect(page.get_by_role("searchbox")).to_have_count(0)
    summary = page.locator("summary", has_text="BLEU-1")
    summary.click()
    expect(page.get_by_role("img", name="Histogram of BLEU-1").first).to_be_visible()


def test_a_screen_reader_is_told_what_is_what(watch: Callable[..., Watched], path: Path) -> None:
    page = watch().open(path)
    page.get_by_label("Sort by").select_option("gain")
    session = page.context.new_cdp_session(page)
    nodes = [node for node in session.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]

    def names(role: str) -> list[str]:
        return [node.get("name", {}).get("value", "") for node in nodes if node["role"]["value"] == role]

    assert names("searchbox") == ["Filter by words"]
    assert names("combobox") == ["Metric", "Sort by", "of metric", "for system", "minus system"]
    assert names("checkbox") == ["Only where the captions differ"]
    assert names("button") == ["Clear filter"]
    for role in ("link", "image", "region", "heading", "columnheader", "rowheader"):
        assert names(role), role
        assert all(names(role)), role
    for name in ("00.jpg", "11.jpg"):
        expect(page.get_by_role("article", name=name)).to_have_count(1)
    for landmark in ("main", "banner", "contentinfo", "navigation", "search", "status", "note"):
        assert len(names(landmark)) == 1, landmark
    assert names("RootWebArea") == ["Some models"]
    assert any("model-1" in name for name in names("columnheader"))


def test_the_keyboard_is_enough_and_its_place_is_seen(watch: Callable[..., Watched], path: Path) -> None:
    page = watch().open(path)
    visited = []
    for _ in range(25):
        page.keyboard.press("Tab")
        visited.append(
            page.evaluate(
                "(e => [e.id || e.className || e.tagName, getComputedStyle(e).outlineStyle])"
                "(document.activeElement)"
            )
        )
    places = [place for place, _ in visited]
    assert places[0] == "skip"
    assert {"scroll", "figure-metric", "filter-text", "filter-different", "sort"} <= set(places)
    assert all(outline != "none" for place, outline in visited if place != "BODY")
    page.get_by_label("Sort by").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("status")).to_contain_text("sorted by B")


def test_captions_without_references_and_hostile_texts(
    watch: Callable[..., Watched], make_comparison: MakeComparison, tmp_path: Path
) -> None:
    comparison = make_comparison(references=False)
    hostile = "</script><img src=x onerror=alert(1)>" + "w" * 400 + " \u202eabc مرحبا 👩‍👩‍👧"
    systems = [
        replace(
            system,
            name=f"{hostile}{number}",
            captions={**system.captions, "00.jpg": f"{hostile} word " * 900},
        )
        for number, system in enumerate(comparison.systems)
    ]
    images = [*comparison.images, ComparedImage(hostile, problem=hostile)]
    path = tmp_path / "page.html"
    write_comparison(
        path, replace(comparison, systems=systems, images=images, title=hostile, notes=[hostile])
    )
    watched = watch(PHONE)
    page = watched.open(path)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    assert watched.sort(Sort_by="Number, highest first")[0] == "00.jpg"
    page.locator("article details").first.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    page.get_by_role("searchbox").fill(hostile)
    watched.count.to_contain_text("of 7 pictures")
    assert "NaN" not in page.locator("body").inner_text()
