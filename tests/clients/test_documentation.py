"""The page for buyers does what it says: its blocks run, one after the other, against a shop."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from shop import Shop, offer

from farthing.buyer.policy import Policy
from farthing.networks import KNOWN

PAGE = Path(__file__).parents[2] / "docs" / "buyer.md"
BASE_USDC = KNOWN.tokens("eip155:8453")[0].address


def test_the_examples_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FARTHING_KEY", "01" * 32)
    on_base: dict[str, Any] = {"network": "eip155:8453", "asset": BASE_USDC}
    on_base["extra"] = {"name": "USD Coin", "version": "2"}
    shop.network = "eip155:8453"
    shop.offers = {"/report": (offer(10_000, **on_base),), "/dear": (offer(10**9, **on_base),)}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block.replace("https://api.example.com", shop.url), str(PAGE), "exec"), names)  # noqa: S102
    names["buyer"].close()
    assert capsys.readouterr().out.count("the goods") == 3
    assert len(shop.transfers) == 4


def test_the_defaults_are_those_of_the_page() -> None:
    page = PAGE.read_text("utf-8")
    policy = Policy()
    assert '| `per_request` | the most that one request may cost | `"$0.10"` |' in page
    assert "| 3600 |" in page
    assert (policy.per_request_value, policy.max_validity_seconds) == (10**17, 3600)
