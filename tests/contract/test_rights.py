"""The threat model's table says what the broker is told."""

from __future__ import annotations

from tests.contract.rights import BEGIN, END, PAGE, between_marks, table


def test_the_page_shows_the_rights_that_the_broker_grants() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert (page.count(BEGIN), page.count(END)) == (1, 1)
    assert between_marks(page) == table(), "run python -m tests.contract.rights"


def test_nobody_elsewhere_may_speak_as_the_controller_or_under_another_name() -> None:
    for line in table().splitlines()[2:]:
        topic = line.split("`")[1]
        if "publish" in line:
            assert topic in ("models/+/infer", "{topic of a binding, outside}") or "{own name}" in topic
