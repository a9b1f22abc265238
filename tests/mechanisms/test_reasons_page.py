"""The page `docs/reasons.md`: a row for every code that is sent or raised, and none for one that isn't."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reason_codes import problem_kinds, reason_codes
from x402.mechanisms.evm import constants

from farthing.mechanisms.exact_evm import reasons

PAGE = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text(encoding="utf-8")
# Scopes of budgets and statuses make up the rest of these codes.
FAMILIES = {"over_per_host", "over_per_hour", "over_per_day", "over_per_session", "over_total", "http_\u2026"}
# In an answer nothing of these is ever sent to Farthing; the page names the families in words.
FOREIGN = re.compile(r"(?:invalid_permit2|permit2|invalid_upto_evm|upto|erc20_approval)_")


def rows(title: str) -> dict[str, tuple[str, str]]:
    """The rows of the section with this title: code → cause and cure."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found: dict[str, tuple[str, str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            _, cause, cure = cells
            codes = re.findall(r"`([^`]+)`", cells[0])
            assert not set(codes) & set(found), codes
            found |= dict.fromkeys(codes, (cause, cure))
    assert found, title
    return found


OURS = {
    **rows("A payment is refused"),
    **rows("Nobody knows yet"),
    **rows("A buyer's own reasons"),
    **rows("On credit"),
}
THEIRS = rows("Codes of other implementations")
KINDS = rows("Problems")


def test_every_code_in_the_source_has_a_row_and_every_row_a_code() -> None:
    assert set(OURS) - FAMILIES == reason_codes()
    assert set(OURS) >= FAMILIES


def test_every_kind_of_problem_has_a_row_and_every_row_a_kind() -> None:
    assert set(KINDS) == problem_kinds()


def test_every_code_of_the_mechanism_is_among_them() -> None:
    codes = {value for name, value in vars(reasons).items() if name.isupper()}
    assert codes <= set(rows("A payment is refused"))


def test_every_code_of_the_official_package_is_understood_on_the_page() -> None:
    official = {value for name, value in vars(constants).items() if name.startswith("ERR_")}
    missing = {code for code in official - set(OURS) - set(THEIRS) if not FOREIGN.match(code)}
    assert missing == set()
    assert not set(THEIRS) & set(OURS)


@pytest.mark.parametrize("code", sorted({**OURS, **THEIRS, **KINDS}))
def test_a_row_says_cause_and_cure(code: str) -> None:
    cause, cure = {**OURS, **THEIRS, **KINDS}[code]
    assert cause
    assert cure
