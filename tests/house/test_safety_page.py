"""The page of safety and the tests hold together."""

from __future__ import annotations

import re

import safety_page

PAGE = safety_page.PAGE.read_text("utf-8")
# Properties of parts that are being built: they go from here when their tests come.
NOT_YET: set[str] = set()
ALL = [f"{letter}{n}" for letter, count in (("S", 11), ("B", 7), ("F", 8), ("A", 4)) for n in range(1, count + 1)]


def test_the_page_has_a_place_for_each_property_under_its_heading() -> None:
    ids = safety_page.ids_of_page(PAGE)
    assert [each for each in ids if not each.startswith("C")] == ALL
    assert [each for each in ids if f"\n### {each}: " not in PAGE] == []


def test_each_property_has_tests() -> None:
    tests = safety_page.tests_by_id()
    assert [each for each in safety_page.ids_of_page(PAGE) if each not in tests and each not in NOT_YET] == []


def test_no_test_is_named_by_a_property_that_is_not_on_the_page() -> None:
    # Those of the clearing house have their place when it has one.
    ids = set(safety_page.ids_of_page(PAGE))
    assert {each for each in safety_page.tests_by_id() if each[0] in "SBFA"} - ids == set()


def test_what_the_page_says_of_tests_and_mutants_is_so() -> None:
    # What came since is no error, only missing: `python tests/house/safety_page.py` writes it.
    tests, areas = safety_page.tests_by_id(), safety_page.areas_by_id()
    lines = safety_page.proofs_of_page(PAGE)
    assert set(lines) == set(safety_page.ids_of_page(PAGE))
    for name, line in lines.items():
        there = {f"../{path.relative_to(safety_page.ROOT)}" for path in tests.get(name, [])}
        there |= {f"../tests/mutants/{area}.toml" for area in areas.get(name, [])}
        said = set(re.findall(r"\]\(([^)]+)\)", line))
        assert said <= there, f"{name}: write it anew by python tests/house/safety_page.py"
        assert said or name in NOT_YET


def test_each_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", PAGE))
    assert named
    roots = (safety_page.ROOT, safety_page.ROOT / "src" / "farthing")
    assert sorted(each for each in named if not any((root / each).is_file() for root in roots)) == []
