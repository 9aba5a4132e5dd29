"""The page: complete, self-contained, accessible, and nothing from a report runs in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest

from optimizer import words
from optimizer.page import page
from optimizer.report import Row
from tests.reports import GATE, bare, full

TIMES = "\N{MULTIPLICATION SIGN}"
VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """Every element, its attributes; that all are closed in order; and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def read() -> Reader:
    return Reader(page(full()))


def test_the_page_needs_nothing_from_elsewhere_and_runs_no_script(read: Reader) -> None:
    for tag, attributes in read.elements:
        assert tag not in {"script", "iframe", "img", "object", "form"}
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        assert (attributes.get("href") or "data:,") == "data:,"
    assert not re.search(r"https?://|@import|url\(", page(full()))


def test_every_table_has_a_caption_and_headers_with_a_scope(read: Reader) -> None:
    tags = [tag for tag, _ in read.elements]
    assert tags.count("caption") == tags.count("table") >= 8
    assert {attributes.get("scope") for tag, attributes in read.elements if tag == "th"} == {"col", "row"}


def test_every_plot_has_a_title_and_a_description_of_its_own(read: Reader) -> None:
    plots = [attributes for tag, attributes in read.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(plots) == 3
    named = {attributes.get("id") for _, attributes in read.elements}
    for attributes in plots:
        assert named.issuperset((attributes["aria-labelledby"] or "").split())
    identities = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(identities) == len(set(identities))


def test_every_part_of_the_report_is_on_the_page(read: Reader) -> None:
    report = full()
    for wanted in (
        *(row.name for row in report.rows),
        *(found.made for found in report.candidates),
        *(layer.name for layer in report.layers["x86-cpu"]),
        *(cut.name for cut in report.pruned[0].groups),
        *report.pruned[0].barriers,
        *report.pruned[0].blocks,
        *(split.digest for split in report.splits),
        *(use.what for use in report.test_uses),
        *(reason for found in report.rejected for reason in found.reasons),
        *report.notes,
        *report.versions,
        "1,471,088",
        f"12.0 {TIMES} smaller",
        "remembered from an earlier run",
        "2 in all; 1 of them could change what is released",
        "Zeros do not speed up int8 on a CPU; they pay in the compressed file.",
        'scheme = "int8"',
    ):
        assert wanted in read.text, wanted


def test_latency_of_another_class_of_device_is_marked_as_an_estimate(read: Reader) -> None:
    assert sum(tag == "abbr" for tag, _ in read.elements) == 1
    assert "an estimate, shown and not judged" in read.text


def test_a_report_with_next_to_nothing_is_a_page_too_and_its_words_are_no_markup() -> None:
    text = page(bare())
    read = Reader(text)
    assert not read.open
    assert "<b>height</b>" in read.text
    assert "<b>" not in text
    assert "None," not in read.text
    assert "None " not in read.text
    assert "nan" not in read.text


def test_a_name_cannot_break_out_of_a_plot() -> None:
    row = Row(name="</svg><script>alert(1)</script>", bytes=10, accuracy_validation=0.5, latency_ms=1.0)
    text = page(msgspec.structs.replace(full(), rows=(row,)))
    assert "<script" not in text


def test_without_labels_the_plot_shows_agreement() -> None:
    report = full()
    silent = msgspec.structs.replace(report.float_model, accuracy_validation=None)
    read = Reader(page(msgspec.structs.replace(report, float_model=silent)))
    assert "agreement with the float model" in read.text


def test_figures_are_readable() -> None:
    assert words.size(31_208) == "31.2 kB"
    assert words.size(9_216) == "9.22 kB"
    assert words.size(999) == "999 bytes"
    assert words.size(3_810_000) == "3.81 MB"
    assert words.milliseconds(0.0421) == "0.042 ms"
    assert words.milliseconds(12.34) == "12.3 ms"
    assert words.seconds(102.4) == "1 min 42 s"
    assert words.seconds(7300) == "2 h 1 min"
    assert words.points(-0.0025) == "\N{MINUS SIGN}0.25 points"
    assert words.points(-0.00001) == "0.00 points"
    assert words.times(373_288, 31_208, "smaller", "larger") == f"12.0 {TIMES} smaller"
    assert words.times(10, 20, "fewer", "more") == f"2.0 {TIMES} more"
    assert words.times(10, 10.1, "fewer", "more") == "the same"
    assert words.times(None, 3, "fewer", "more") == ""
    assert {words.count(None), words.size(None), words.share(None), words.points(None), words.seconds(None)} == {
        "\N{EN DASH}"
    }


def test_a_verdict_is_told_in_plain_words() -> None:
    told = words.verdict(GATE, "test")
    assert told.startswith(
        "Passed the gate: on 397 rows of test it loses 0.25 points of accuracy; up to 1.00 may be lost."
    )
    assert "at most 0.91 points" in told
    strict = msgspec.structs.replace(GATE, passed=False, strict=True, loss=-0.005)
    assert "Did not pass" in words.verdict(strict, "validation")
    assert "it gains 0.50 points" in words.verdict(strict, "validation")
    assert "this strict gate" in words.verdict(strict, "validation")
    silent = msgspec.structs.replace(GATE, loss=None, bound_95=None)
    assert "judged without labels" in words.verdict(silent, "validation")


def test_our_rows_stand_out_and_equal_profiles_share_a_mark(read: Reader) -> None:
    shown = [attributes for tag, attributes in read.elements if tag == "rect" and "ours" in (attributes["class"] or "")]
    assert len(shown) == 3
    assert "x86-cpu, rpi4: pruned to 25 %, int8" in read.text


def test_the_layers_at_fault_are_marked_by_what_they_do_alone_where_that_is_known(read: Reader) -> None:
    assert read.text.count("\N{BLACK DOWN-POINTING SMALL TRIANGLE}") == 6
    report = full()
    alone = [msgspec.structs.replace(found, own_sqnr_db=40.0 + at) for at, found in enumerate(report.layers["rpi4"])]
    silent = msgspec.structs.replace(alone[-1], sqnr_db=None, own_sqnr_db=None, max_error=None)
    told = Reader(page(msgspec.structs.replace(report, layers={"rpi4": (*alone[:-1], silent)}))).text
    assert "if this operator alone is rounded" in told
    assert "\N{BLACK DOWN-POINTING SMALL TRIANGLE} 42.0 dB" in told
    assert "\N{BLACK DOWN-POINTING SMALL TRIANGLE} 43.0 dB" not in told
