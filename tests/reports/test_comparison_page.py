"""The comparison page as text: it holds all that it shows and lets nothing in."""

import base64
import hashlib
import html
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pixtell.errors import StorageError
from pixtell.metrics import Score
from pixtell.metrics.significance import Difference
from pixtell.reports import (
    ComparedImage,
    ComparedSystem,
    Comparison,
    Thumbnail,
    comparison_page,
    write_comparison,
)

MakeComparison = Callable[..., Comparison]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %}",
    "a\x00b\x1bc\ud800d",
    "مرحبا \u202eabc",
    "👩‍👩‍👧 & 'quotes'",
    "w" * 3000,
    "two\nlines\u2028three",
]
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def headings(self) -> list[str]:
        return [tag for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


def test_the_page_needs_nothing_but_itself(make_comparison: MakeComparison) -> None:
    page = comparison_page(make_comparison())
    for tag, attributes in Page(page).tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} has an event handler"
            assert name != "style", "the policy forbids it"
            if name in {"src", "href", "srcset", "action", "data", "xlink:href"}:
                assert value.startswith(("#", "data:")), f"{tag} {name}={value[:60]}"
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", page))


def test_the_policy_allows_this_style_and_this_script_alone(make_comparison: MakeComparison) -> None:
    page = comparison_page(make_comparison())
    (policy,) = [tag["content"] for tag in Page(page).all("meta") if "http-equiv" in tag]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        found = re.search(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        assert found
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_every_caption_reference_score_and_picture_is_there(make_comparison: MakeComparison) -> None:
    comparison = make_comparison(systems=3)
    page = Page(comparison_page(comparison))
    for system in comparison.systems:
        assert system.name in page.words
        for caption in system.captions.values():
            assert caption in page.words
    for image in comparison.images:
        assert image.image_id in page.words
        assert all(reference in page.words for reference in image.references)
    assert len(page.all("article")) == len(page.all("img")) == len(comparison.images)
    for image, attributes in zip(comparison.images, page.all("img"), strict=True):
        kind, _, data = attributes["src"].partition(";base64,")
        assert image.thumbnail is not None
        assert base64.b64decode(data) == image.thumbnail.data
        assert kind == ("data:image/webp" if image.thumbnail.data.startswith(b"RIFF") else "data:image/jpeg")
        assert (attributes["width"], attributes["height"]) == ("32", "24")
        assert attributes["alt"] == image.references[0]
        assert attributes["loading"] == "lazy"
    scores = data_of(comparison_page(comparison))["scores"]
    for index, system in enumerate(comparison.systems):
        assert scores[index][0] == list(system.scores["CIDEr-D"].per_image.values())


def test_every_link_within_the_page_leads_somewhere(make_comparison: MakeComparison) -> None:
    page = Page(comparison_page(make_comparison()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ("href", "for", "aria-labelledby", "aria-describedby"):
            if name in attributes and not attributes[name].startswith("data:"):
                assert attributes[name].lstrip("#") in ids


def test_headings_have_no_gap_and_the_language_is_told(make_comparison: MakeComparison) -> None:
    page = Page(comparison_page(make_comparison()))
    levels = [int(heading[1]) for heading in page.headings()]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert page.all("html") == [{"lang": "en"}]


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Difference(0.1, (0.05, 0.15), 0.003), "+0.100 (+0.050 to +0.150)▲ better, p = 0.003"),
        (Difference(-0.1, (-0.15, -0.05), 0.0001), "−0.100 (−0.150 to −0.050)▼ worse, p < 0.001"),  # noqa: RUF001
        (Difference(0.1, (-0.05, 0.15), 0.21), "+0.100 (−0.050 to +0.150)no difference shown, p = 0.210"),  # noqa: RUF001
        (None, "not tested"),
    ],
)
def test_a_difference_says_in_words_whether_it_is_real(
    make_comparison: MakeComparison, difference: Difference | None, words: str
) -> None:
    found = {("model-1", "CIDEr-D"): difference} if difference else {}
    assert words in Page(comparison_page(make_comparison(differences=found))).words


def test_more_of_what_has_no_better_side_is_not_called_better(make_comparison: MakeComparison) -> None:
    found = {("model-1", "vocabulary"): Difference(1.0, (0.5, 1.5), 0.001)}
    words = Page(comparison_page(make_comparison(differences=found))).words
    assert "▲ more, p = 0.001" in words
    assert "better, p" not in words
    assert "1,204" in words


def test_people_stand_beside_the_systems(make_comparison: MakeComparison) -> None:
    yardstick = {"CIDEr-D": Score(0.789, {}, ""), "BLEU-1": Score(0.636, {}, "")}
    words = Page(comparison_page(make_comparison(yardstick=yardstick))).words
    assert "One person against the others" in words
    assert "0.789" in words
    assert "CIDEr-D is the honest gap" in words
    assert "One person" not in Page(comparison_page(make_comparison())).words


def test_a_folder_without_references_has_captions_only(make_comparison: MakeComparison) -> None:
    comparison = make_comparison(references=False)
    page = Page(comparison_page(comparison))
    assert page.all("table") == []
    for word in ("nan", "n/a", "Scores", "References", "references each", "95 %", "One person"):
        assert word not in page.words.replace("no references", "")
    assert {attributes["alt"] for attributes in page.all("img")} == set(
        comparison.systems[0].captions.values()
    )
    assert [metric["label"] for metric in data_of(comparison_page(comparison))["metrics"]] == ["Length"]
    described = {"length": Score(5.0, dict.fromkeys(comparison.systems[0].captions, 5.0), "length")}
    systems = [replace(system, scores=described) for system in comparison.systems]
    page = Page(comparison_page(replace(comparison, systems=systems)))
    assert len(page.all("table")) == 1
    assert "Scores" not in page.words


def test_one_system_has_nothing_to_differ_from(make_comparison: MakeComparison) -> None:
    page = Page(comparison_page(make_comparison(systems=1, differences={})))
    assert not any("ifference" in text for text in page.text)
    assert not any(attributes.get("id") in {"filter-different", "sort-base"} for _, attributes in page.tags)


def test_no_number_is_shown_as_such_and_no_json_breaks(make_comparison: MakeComparison) -> None:
    comparison = make_comparison()
    broken = Score(
        math.nan, {"00.jpg": math.nan, "01.jpg": math.inf, "02.jpg": 0.5}, "", (math.nan, math.nan)
    )
    systems = [replace(system, scores={"CIDEr-D": broken}) for system in comparison.systems]
    page = comparison_page(replace(comparison, systems=systems, differences={}))
    assert "n/a" in page
    assert not re.search(r"\b(nan|inf)\b", Page(page).words, re.IGNORECASE)
    assert data_of(page)["scores"][0][0] == [None, None, 0.5, None, None, None]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_users_write_is_text_and_nothing_else(make_comparison: MakeComparison, text: str) -> None:
    usual = make_comparison()
    system = ComparedSystem(text, {text: text, "b": text}, text, {text: Score(0.5, {text: 0.5}, text)})
    comparison = Comparison(
        title=text,
        systems=[system, replace(system, name=f"{text} 2")],
        images=[ComparedImage(text, [text], usual.images[0].thumbnail), ComparedImage("b", problem=text)],
        warnings=[text],
        notes=[text],
    )
    page = comparison_page(comparison)
    found = Page(page)
    assert len(found.all("script")) == 2
    assert len(found.all("img")) == 1
    page.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", page)
    shown = " ".join(re.sub("[\x00-\x08\x0b-\x1f\ud800]", "\ufffd", text).split())
    assert found.words.count(shown) >= 8
    assert shown[:200] in html.unescape(found.all("img")[0]["alt"])
    assert data_of(page)["ids"] == [text, "b"]


def test_a_very_long_caption_is_folded_up_and_still_whole(make_comparison: MakeComparison) -> None:
    comparison = make_comparison(systems=1, differences={})
    caption = "word " * 10_000 + "end"
    captions = {**comparison.systems[0].captions, "00.jpg": caption}
    page = Page(
        comparison_page(replace(comparison, systems=[replace(comparison.systems[0], captions=captions)]))
    )
    assert caption in page.words
    assert "(10,001 words)" in page.words
    assert any(attributes.get("class") == "long" for attributes in page.all("details"))


def test_a_picture_that_cannot_be_shown_says_why(make_comparison: MakeComparison) -> None:
    images = [ComparedImage("00.jpg", ["One dog."], problem="The file is cut short.")]
    page = Page(comparison_page(replace(make_comparison(), images=images)))
    assert "The file is cut short." in page.words
    assert page.all("img") == []


def test_training_curves_are_drawn_where_they_are_known(make_comparison: MakeComparison) -> None:
    comparison = make_comparison()
    labels = [
        tag["aria-label"] for tag in Page(comparison_page(comparison)).all("svg") if "aria-label" in tag
    ]
    (loss,) = [label for label in labels if label.startswith("Training loss")]
    assert "model-0: from 5 at step 10 to 0.625 at step 80." in loss
    systems = [replace(system, curves=()) for system in comparison.systems]
    assert "Training" not in Page(comparison_page(replace(comparison, systems=systems))).words
    odd = [{"step": 1.0, "loss": math.nan}, {"step": 2.0, "loss": 3.0}]
    page = comparison_page(replace(comparison, systems=[replace(comparison.systems[0], curves=odd)]))
    assert "from 3 at step 2 to 3 at step 2" in page


def test_the_same_comparison_makes_the_same_page(make_comparison: MakeComparison) -> None:
    assert comparison_page(make_comparison()) == comparison_page(make_comparison())


def test_the_file_appears_whole_or_not_at_all(make_comparison: MakeComparison, tmp_path: Path) -> None:
    comparison = make_comparison()
    write_comparison(tmp_path / "new" / "page.html", comparison)
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == comparison_page(comparison)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_comparison(tmp_path / "file" / "page.html", comparison)
    bad = replace(comparison, images=[ComparedImage("a", thumbnail=Thumbnail(b"GIF89a", 1, 1))])
    with pytest.raises(ValueError, match="JPEG, WebP or PNG"):
        write_comparison(tmp_path / "bad.html", bad)
    assert not (tmp_path / "bad.html").exists()


def test_reports_need_no_torch() -> None:
    code = "import sys, pixtell.reports; sys.exit(bool({'torch', 'jinja2', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
