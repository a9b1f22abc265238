"""The documentation's examples run, and its links lead somewhere. `pages.py` says how."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pages
import pytest

if TYPE_CHECKING:
    from tests.house.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]


class _Later:
    """A fixture that is made when first used: most pages need no chain."""

    def __init__(self, request: pytest.FixtureRequest, name: str) -> None:
        self._request = request
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request.getfixturevalue(self._name), name)


@pytest.fixture
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    environment = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    yield
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.usefixtures("_own_folder")
@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_the_examples_run(path: Path, request: pytest.FixtureRequest) -> None:
    page: Page = pages.Page(path, local=_Later(request, "local"))
    page.run()


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_the_links_lead_somewhere(path: Path) -> None:
    assert pages.broken_links(path) == []


# The runner itself.


def written(folder: Path, text: str) -> Page:
    path = folder / "page.md"
    path.write_text(text, "utf-8")
    page: Page = pages.Page(path)
    return page


def test_blocks_share_a_namespace_run_in_order_and_may_await(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        """
<!-- setup
said = []
replace("https://shop.example", "http://127.0.0.1:1")
-->
```python
import asyncio
said.append("https://shop.example/a")
```
Then:
<!-- not run: nobody is there -->
```python
raise SystemExit
```
```console
$ this is no python
```
```python
async def later() -> str:
    return "later"

said.append(await later())
```
```toml
[a]
b = 1
```
<!-- check
assert said == ["http://127.0.0.1:1/a", "later"]
assert toml.startswith("[a]")
-->
""",
    )
    assert page.run() == 5


@pytest.mark.parametrize(
    "text",
    [
        "```python\nraise ValueError\n```\n",
        "```python\nthis is no python\n```\n",
        "<!-- check\nassert 1 == 2\n-->\n",
        "```toml\na =\n```\n",
        '```json\n{"a": }\n```\n',
        "<!-- not run: -->\n```python\n1\n```\n",
    ],
)
def test_an_example_that_does_not_work_is_noticed(tmp_path: Path, text: str) -> None:
    with pytest.raises((ValueError, SyntaxError, AssertionError)):
        written(tmp_path, text).run()


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A `heading`, twice\n## A heading, twice\n```\n# no heading\n```\n", "utf-8")
    text = """# Own part
[a](there.md) [b](there.md#a-heading-twice) [c](there.md#a-heading-twice-1) [d](#own-part) [e](https://example.com)
[f](nowhere.md) [g](there.md#no-heading) [h](#other-part) `[i](code.md)` [j]
[j]: gone.md
"""
    (tmp_path / "page.md").write_text(text, "utf-8")
    assert pages.broken_links(tmp_path / "page.md") == ["nowhere.md", "there.md#no-heading", "#other-part", "gone.md"]
