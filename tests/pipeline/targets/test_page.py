"""The pages of the targets: fresh, and with everything that the profile says."""

import pytest
from smallmodels import TARGETS, target

from pipeline.targets import library, page
from pipeline.targets.rules import sentence

SHIPPED = library.names(TARGETS)
PAGES = TARGETS / "pages"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_committed_page_is_fresh(name):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert text == page.markdown(target(name)), f"write it again: pipeline targets {name} --markdown"


def test_the_committed_table_is_fresh_and_there_is_no_other_page():
    expected = page.overview(target(name) for name in SHIPPED)
    assert (PAGES / "README.md").read_text(encoding="utf-8") == expected
    assert {p.stem for p in PAGES.glob("*")} == {*SHIPPED, "README"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_page_says_all_that_the_profile_says(name):
    loaded, text = target(name), page.markdown(target(name))
    for key, figure in loaded.figures.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {key} |")]
        assert f"| {figure.confidence} |" in row
        assert (" unknown " in row) == (figure.value is None)
        assert figure.source in text
    for operator in loaded.operators.values():
        assert operator.source in text
        assert all(sentence(use) in text for use in operator.rules)
    for facts in (loaded.absent.values(), loaded.notes, loaded.unknown(), [loaded.contract_note, loaded.title]):
        assert all(fact in text for fact in facts)
    assert all(sentence(use) in text for use in loaded.rules)


def test_what_is_unknown_stands_on_the_page():
    text = page.markdown(target("kirin-970"))
    assert "None is known, so every operator is a fallback." in text
    assert "- operators: the operators of Huawei's HiAI DDK are not public" in text
    assert "Everything: a GPU runs any operator (full freedom)." in page.markdown(target("jetson-xavier-nx-gpu"))
    assert "No such chip exists." in page.markdown(target("edgetpu-ddr"))
    assert "No such chip exists." not in page.markdown(target())
    assert "Nothing that the profile asks for." in page.markdown(target("conv-only"))
    assert "At most 1 NPU partition (" in page.markdown(target())


def test_a_bar_does_not_break_a_table():
    assert page.overview([target().model_copy(update={"title": "a | b"})]).splitlines()[-1].count(" | ") == 3
