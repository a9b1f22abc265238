"""The mutants of `tests/mutants` can be applied, and name tests that are there."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import breakages
import pytest

if TYPE_CHECKING:
    from tests.mutants.breakages import Mutant

MUTANTS: list[Mutant] = breakages.load()
# The properties of docs/safety.md: sellers, buyers, facilitators, clearing, anywhere.
PROPERTY = re.compile(r"S([1-9]|1[01])|B[1-7]|F[1-8]|C[1-7]|A[1-4]")


def name_of(value: Any) -> str:
    return str(value.name)


@pytest.mark.parametrize("mutant", MUTANTS, ids=name_of)
def test_a_mutant_can_be_applied_and_its_tests_are_there(mutant: Mutant) -> None:
    assert breakages.broken(mutant)
    assert mutant.tests
    assert breakages.missing_tests(mutant) == []
    assert mutant.safety
    assert [each for each in mutant.safety if not PROPERTY.fullmatch(each)] == []


def test_no_two_mutants_have_one_name() -> None:
    assert [name for name, count in Counter(each.name for each in MUTANTS).items() if count > 1] == []
