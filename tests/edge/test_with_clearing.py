"""Edges, a clearing house and a crawler in real processes, killed at every step: billed once, never lost (C2, C3)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import pytest

from farthing.errors import PaymentError

if TYPE_CHECKING:
    from tests.edge.network import ClearingNetwork, Process
    from tests.local_services import LocalServices

    from farthing.clients import Buyer

PAGES = 5


@pytest.fixture(scope="module")
def network(local: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClearingNetwork]:
    from network import ClearingNetwork  # noqa: PLC0415 - beside this file

    with ClearingNetwork(local, tmp_path_factory.mktemp("network")) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    """A name for an edge of one test's own."""
    return f"edge-{secrets.token_hex(4)}"


def fetch(client: httpx2.Client, url: str) -> int:
    """Fetch a page, or 0 where nothing came."""
    try:
        return client.get(url).status_code
    except (httpx2.TransportError, PaymentError):
        return 0


def test_C2_pages_read_at_two_edges_stand_on_one_statement_once(network: ClearingNetwork, name: str) -> None:
    edges = [network.start_edge(f"{name}-{each}") for each in ("a", "b")]
    buyer = network.buyer(name, [each.url for each in edges])
    client = network.client(buyer)
    for edge in edges:
        for number in range(PAGES):
            assert client.get(f"{edge.url}/articles/{number}").status_code == 200
        assert client.get(f"{edge.url}/about").text == "the text of /about"
    for edge in edges:
        network.wait_uploaded(edge)
    lines = network.lines(*edges)
    # What was promised for a page that turned out to be free is served without a receipt, and never billed.
    promised = {each.promise.promise_id: each for each in buyer.journal.promises() if each.receipt is not None}
    assert {line["id"] for line in lines} == set(promised)
    assert len(lines) == 2 * PAGES
    assert all(each.purchase.state == "settled" for each in promised.values())
    assert sum(int(line["charged"]) for line in lines) == 2 * PAGES * 1_000


class Killed(NamedTuple):
    """What an edge that was killed leaves: who reads it, its successor, and the numbers of the pages left to read."""

    buyer: Buyer
    client: httpx2.Client
    again: Process
    left: list[int]


def killed_at(network: ClearingNetwork, name: str, place: str, folder: str) -> Killed:
    """Read pages at an edge that is killed when it comes to a place for the second time, and start it again."""
    edge = network.start_edge(name, crash_at=f"{place}#2")
    buyer = network.buyer(name, [edge.url])
    client = network.client(buyer)
    left = [number for number in range(PAGES) if fetch(client, f"{edge.url}/{folder}/{number}") != 200]
    network.wait(lambda: edge.died)
    return Killed(buyer, client, network.start_edge(name, port=int(edge.url.rpartition(":")[2])), left)


PLACES = ["after:TakeCommitment", "before:Commit", "after:Commit", "after:NoteSent"]


@pytest.mark.parametrize("place", PLACES)
def test_C2_an_edge_that_is_killed_loses_nothing_and_bills_nothing_twice(
    network: ClearingNetwork, name: str, place: str
) -> None:
    buyer, client, again, left = killed_at(network, name, place, "articles")
    # The same requests again: what is open presents the same promise.
    for number in left:
        fetch(client, f"{again.url}/articles/{number}")
    network.wait_uploaded(again)
    lines = network.lines(again)
    ids = [line["id"] for line in lines]
    promised = {each.promise.promise_id: each for each in buyer.journal.promises()}
    with_receipt = {name for name, each in promised.items() if each.receipt is not None}
    assert len(ids) == len(set(ids))
    assert with_receipt <= set(ids) <= set(promised)
    assert len(promised) == PAGES


@pytest.mark.parametrize("place", ["before:CommitBound", "after:CommitBound", "after:NoteSent"])
def test_S7_C2_an_edge_that_is_killed_gives_the_answer_that_was_lost_and_bills_it_once(
    network: ClearingNetwork, name: str, place: str
) -> None:
    buyer, client, again, left = killed_at(network, name, place, "kept")
    for number in left:
        assert client.get(f"{again.url}/kept/{number}").text == f"the text of /kept/{number}"
    network.wait_uploaded(again)
    ids = [line["id"] for line in network.lines(again)]
    promised = {each.promise.promise_id: each for each in buyer.journal.promises()}
    assert len(ids) == len(set(ids)) == PAGES
    assert set(ids) == set(promised)
    assert all(each.receipt is not None for each in promised.values())


def test_C2_two_processes_of_one_edge_upload_with_one_token(network: ClearingNetwork, name: str) -> None:
    edges = [network.start_edge(name), network.start_edge(name)]
    buyer = network.buyer(name, [each.url for each in edges])
    client = network.client(buyer)
    # The second process has a port of its own here, and so another domain than the payee's: that of the last one.
    assert [fetch(client, f"{each.url}/articles/1") for each in edges] == [200, 200]
    for each in edges:
        network.wait_uploaded(each)
    assert len(network.lines(edges[1])) == 1


def test_C2_a_clearing_house_that_is_killed_loses_no_upload(network: ClearingNetwork, name: str) -> None:
    edge = network.start_edge(name)
    buyer = network.buyer(name, [edge.url])
    client = network.client(buyer)
    assert fetch(client, f"{edge.url}/articles/0") == 200
    port = int(network.clearing.url.rpartition(":")[2])
    network.clearing.kill()
    assert [fetch(client, f"{edge.url}/articles/{number}") for number in range(1, PAGES)] == [200] * (PAGES - 1)
    network.start_clearing(port)
    network.wait_uploaded(edge)
    assert len(network.lines(edge)) == PAGES


def test_C2_an_edge_killed_over_and_over_ends_with_the_same_books(network: ClearingNetwork, name: str) -> None:
    edge: Process = network.start_edge(name)
    port = int(edge.url.rpartition(":")[2])
    buyer = network.buyer(name, [edge.url])
    client = network.client(buyer)
    for round_number in range(3):
        for number in range(PAGES):
            fetch(client, f"{edge.url}/articles/{round_number}{number}")
        edge.kill()
        edge = network.start_edge(name, port=port)
    network.wait_uploaded(edge)
    ids = [line["id"] for line in network.lines(edge)]
    promised = {each.promise.promise_id for each in buyer.journal.promises() if each.receipt is not None}
    assert len(ids) == len(set(ids)) == 3 * PAGES
    assert promised <= set(ids)
