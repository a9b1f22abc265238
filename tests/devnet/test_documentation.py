"""The devnet's page: its example runs, and its facts are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from farthing.services.devnet import DEFAULT_CHAIN_ID, DEFAULT_TOKEN_ADDRESS, MULTICALL3_ADDRESS
from farthing.services.devnet.rpc import method_names

PAGE = (Path(__file__).parents[2] / "docs" / "devnet.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/devnet.md", "exec"), {})  # noqa: S102 - our own page
    told = capsys.readouterr().out
    assert DEFAULT_TOKEN_ADDRESS in told
    assert told.endswith("1500000\n")


def test_the_page_names_what_is_there() -> None:
    for fact in (str(DEFAULT_CHAIN_ID), DEFAULT_TOKEN_ADDRESS, MULTICALL3_ADDRESS):
        assert fact in PAGE
    section = PAGE[PAGE.index("## JSON-RPC") :]
    named = set(re.findall(r"`((?:eth|evm|net|web3|anvil|txpool|devnet)_\w+)", section))
    assert len(named) > 40
    assert named <= method_names()
