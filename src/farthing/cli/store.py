"""`farthing store`: whether a store can be opened by this version, and how it is brought forward."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from farthing.errors import ConfigError

if TYPE_CHECKING:
    from farthing.world.store_schema import FamilyReport

EXIT_TROUBLE: Final = 1

ROLES: Final = ("buyer", "seller", "facilitator", "clearing", "edge")
StorePlace = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        envvar="FARTHING_STORE",
        help="The store: a file, or postgresql://user@host/name.",
    ),
]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role", metavar="ROLE", help="Whose tables: buyer, seller, facilitator, clearing, edge (repeatable)."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each role.")]

store = typer.Typer(name="store", rich_markup_mode=None, no_args_is_help=True, help="Check and migrate stores.")


@store.command("check")
def check(*, place: StorePlace = "", role: Roles = None, as_json: AsJson = False) -> None:
    """Say which version a store is at, whether this Farthing can open it, and whether its tables are as they should be.

    Nothing is changed. Exit codes: 0 all is well, 1 it is behind, newer, or differs.

    \b
    Examples:
      farthing store check --store facilitator.sqlite3
      farthing store check --store postgresql://farthing@db.example/shop --role seller
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from farthing.world.store_schema import check_store  # noqa: PLC0415 - heavy parts only when run
    from farthing.world.store_url import shown  # noqa: PLC0415

    reports = check_store(_named(place), _roles(role))
    for report in reports:
        _show(report, as_json=as_json)
    if not reports:
        print(f"There are no tables of Farthing in {shown(place)}.")
    raise typer.Exit(0 if reports and all(report.good for report in reports) else EXIT_TROUBLE)


@store.command("migrate")
def migrate(*, place: StorePlace = "", role: Roles = None, as_json: AsJson = False) -> None:
    """Bring a store forward to this version, all of it or nothing, and check it. A new one needs --role.

    Services migrate their own stores when they start; this does it ahead, under the rights of the tables' owner.

    \b
    Examples:
      farthing store migrate --store seller.sqlite3
      farthing store migrate --store postgresql://owner@db.example/shop --role facilitator
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from farthing.world.store_schema import migrate_store  # noqa: PLC0415 - heavy parts only when run

    good = True
    for before, after in migrate_store(_named(place), _roles(role)):
        if not as_json and before.number != after.number:
            print(f"{after.family:<12} {before.number:04} -> {after.number:04}")
        _show(after, as_json=as_json)
        good = good and after.good
    raise typer.Exit(0 if good else EXIT_TROUBLE)


def _named(place: str) -> str:
    if not place:
        raise ConfigError("Name the store: --store FILE or --store postgresql://user@host/name, or FARTHING_STORE.")
    return place


def _roles(names: list[str] | None) -> tuple[str, ...]:
    for name in names or ():
        if name not in ROLES:
            raise ConfigError(f"--role {name}: there are {', '.join(ROLES)}.")
    return tuple(names or ())


def _show(report: FamilyReport, *, as_json: bool) -> None:
    if as_json:
        facts = {"role": report.family, "number": report.number, "newest": report.newest, "good": report.good}
        print(json.dumps(facts | {"trouble": report.trouble, "differences": list(report.differences)}))
        return
    if report.trouble:
        said = report.trouble
    elif report.number == 0:
        said = "no tables; run: farthing store migrate --role " + report.family
    elif report.number < report.newest:
        said = "behind; run: farthing store migrate"
    else:
        said = "its tables differ" if report.differences else "as it should be"
    print(f"{report.family:<12} {report.number:04} of {report.newest:04}  {said}")
    for difference in report.differences:
        print(f"  {difference}")
