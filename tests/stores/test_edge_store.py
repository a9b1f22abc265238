"""The edge's log on both engines: appended once, uploaded in its order, forgotten when it may be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from farthing.world.edge_store import EdgeStore, LoggedLine, UploadRecord

PAYER = "https://crawler.example"


@pytest.fixture
def store(store_url: str) -> Iterator[EdgeStore]:
    opened = EdgeStore(store_url, "edge-1")
    yield opened
    opened.close()


def line(number: int, *, lease: str = "le-1", expires: int = 100) -> LoggedLine:
    return LoggedLine(PAYER, f"sha256:{number:064x}", f"nonce-{number}", expires, lease, 1_000, "key", b"{}")


def test_C2_a_commitment_is_logged_once_over_all_processes(store: EdgeStore, store_url: str) -> None:
    other = EdgeStore(store_url, "edge-1.2")
    assert store.log(line(1)).result()
    assert not store.log(line(1)).result()
    assert not other.log(line(1)).result()
    assert other.log(line(2)).result()
    assert sorted(each[2] for each in store.recent(100)) == [line(1).id, line(2).id]
    other.close()


def test_C2_what_was_logged_is_uploaded_in_order_and_kept_until_it_is_answered(store: EdgeStore) -> None:
    store.add_lease("le-1", 1, PAYER, 10_000).result()
    for number in range(5):
        store.log(line(number)).result()
    store.note_sent(PAYER, line(3).id)
    store.log(line(9, lease="")).result()
    lines, notes, last_seq, _ = store.waiting(4)
    assert [each.seq for each in lines] == sorted(each.seq for each in lines)
    assert len(lines) == 4
    assert [each.id for each in notes] == [line(3).id]
    assert (last_seq, store.behind()) == (0, 6)
    upload = UploadRecord(1, store.next_sequence(1), lines[-1].seq, notes[-1].note, 7, b"body")
    store.add_upload(upload).result()
    assert store.pending_upload() == upload
    assert not store.lease_is_uploaded("le-1")
    store.acknowledge(upload, b"{}").result()
    assert store.pending_upload() is None
    assert store.behind() == 2
    assert [(each.count, each.spent) for each in store.open_leases()] == [(5, 5_000)]
    store.prune(101).result()
    assert [each[2] for each in store.recent(0)] == [line(4).id, line(9).id]
    # A number is never given twice: what is logged now comes after all that was.
    store.log(line(10)).result()
    assert [each.seq for each in store.waiting(10)[0]][-1] > lines[-1].seq
    store.close_lease("le-1").result()
    assert store.open_leases() == []
