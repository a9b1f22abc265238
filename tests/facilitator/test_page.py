"""The page `docs/facilitator.md`: its tables are those of the code, and its examples work."""

from __future__ import annotations

import re
from pathlib import Path

from farthing.facilitator.states import as_markdown
from farthing.services.facilitator import read_config
from farthing.services.facilitator.config import assets_of, networks_of

PAGE = (Path(__file__).parents[2] / "docs" / "facilitator.md").read_text(encoding="utf-8")


def test_the_states_on_the_page_are_those_of_the_code() -> None:
    # `python -m farthing.facilitator.states` writes what belongs between the two comments.
    assert f"do not edit -->\n\n{as_markdown()}\n<!-- end -->" in PAGE


def test_the_configuration_on_the_page_is_one() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = read_config(text)
    assert {network for network, _ in assets_of(config, networks_of(config))} == {"eip155:8453", "eip155:402402"}


def test_the_examples_on_the_page_compile_and_import() -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "docs/facilitator.md", "exec"), {})  # noqa: S102 - our own page
