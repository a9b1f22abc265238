"""The edge's log on both engines: appended once, uploaded in its order, forgotten when it may be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from farthing.mechanisms.batch_credit.verify import NONCE_KEPT_SECONDS
from farthing.seller.answers import Answer
from farthing.seller.repeats import IDENTIFIER_KEPT_SECONDS, Bound
from farthing.world.connection import Connection
from farthing.world.database import open_database
from farthing.world.edge_answers import FIND
from farthing.world.edge_store import EdgeStore, LoggedLine, UploadRecord
from farthing.world.migrations import load_migrations
from farthing.world.pending import Pending

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


def test_C2_copies_in_one_batch_are_logged_once_and_the_first_is_new(store: EdgeStore) -> None:
    """What a batch holds is one statement, which tells how many rows are new, and not which."""
    store.add_lease("le-1", 1, PAYER, 10_000).result()
    assert store.log(line(1)).result()
    batch = [line(0), line(1), line(2), line(0), line(3)]
    assert store._database.submit(lambda at: store._log_together(at, batch)).result() == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert sorted(each[2] for each in store.recent(100)) == [line(number).id for number in range(4)]
    assert [(each.count, each.spent) for each in store.open_leases()] == [(4, 4_000)]


def test_C2_numbers_go_on_where_they_were_when_a_log_comes_forward(store_url: str) -> None:
    """Uploads go by them: a number that is given again would be taken for one that is uploaded."""
    landed = open_database(store_url, family="edge", migrations=load_migrations("edge")[:2])

    def fill(at: Connection) -> None:
        insert = (
            "INSERT INTO edge_commitment (id, edge, payer, nonce, expires, lease, amount, key_id, line) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        for number in (1, 2, 3):
            at.execute(insert, (line(number).id, "edge-1", PAYER, "n", 100, "", 1_000, "key", b"{}"))
        note = "INSERT INTO edge_sent (edge, seq, payer, id) VALUES (?, ?, ?, ?)"
        at.execute(note, ("edge-1", 1, PAYER, line(1).id))
        at.execute("DELETE FROM edge_commitment WHERE seq > 1")

    landed.submit(fill).result()
    landed.close()
    store = EdgeStore(store_url, "edge-1")
    assert not store.log(line(1)).result()
    assert store.log(line(2)).result()
    lines, notes, _, _ = store.waiting(10)
    assert lines[0].seq == 1
    assert [each.seq > 3 for each in lines] == [False, True]
    assert [(each.seq, each.id) for each in notes] == [(1, line(1).id)]
    store.close()


def test_C2_what_was_logged_is_uploaded_in_order_and_kept_until_it_is_answered(store: EdgeStore) -> None:
    store.add_lease("le-1", 1, PAYER, 10_000).result()
    for number in range(5):
        store.log(line(number)).result()
    store.note_sent(PAYER, line(3).id, line(3).expires)
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


NOW = 90
ANSWER = Answer(200, (("content-type", "text/plain"), ("set-cookie", "a=\xe9")), b"\x00the text")


def bound(number: int, scope: str = "scope", answer: Answer | None = ANSWER, expires: int = 100) -> Bound:
    return Bound(scope, PAYER, line(number).id, f"print-{number}", f"said-{number}", expires, answer)


def find(store: EdgeStore, scope: str = "scope", now_seconds: int = NOW) -> Bound | None:
    found = store.find_bound(scope, now_seconds)
    return found.result(30) if isinstance(found, Pending) else found


@pytest.mark.parametrize("uploaded", [False, True])
def test_C2_a_repeat_by_another_process_is_noted_by_who_uploads_its_line(
    store: EdgeStore, store_url: str, *, uploaded: bool
) -> None:
    other = EdgeStore(store_url, "edge-1.2")
    assert store.log_bound(line(1), bound(1), NOW).result() == "committed"
    if uploaded:
        made = UploadRecord(1, 1, store.waiting(10)[0][-1].seq, 0, 7, b"body")
        store.add_upload(made).result()
        store.acknowledge(made, b"{}").result()
    assert other.is_left("edge-1") is not uploaded
    other.note_repeated("scope")
    other.prune(0).result()  # behind the note, which nobody waits for
    assert other.waiting(10)[1] == []
    assert [each.id for each in store.waiting(10)[1]] == [line(1).id]
    # Also where the process that took it has ended: another one passes it on.
    assert other.is_left("edge-1")
    other.close()


def test_S7_an_id_is_bound_once_with_its_commitment_over_all_processes(store: EdgeStore, store_url: str) -> None:
    other = EdgeStore(store_url, "edge-1.2")
    assert find(store) is None
    assert store.log_bound(line(1), bound(1), NOW).result() == "committed"
    assert other.log_bound(line(1), bound(1, answer=None), NOW).result() == "known"
    assert other.log_bound(line(2), bound(2), NOW).result() == "taken"
    assert find(other) == bound(1)
    # What was not bound is not on record.
    assert [each[2] for each in store.recent(0)] == [line(1).id]
    assert store.log_bound(line(3), bound(3, "else", answer=None), NOW).result() == "committed"
    assert find(store, "else") == bound(3, "else", answer=None)
    other.close()


def test_S7_of_many_at_once_each_id_is_bound_once(store: EdgeStore, store_url: str) -> None:
    other = EdgeStore(store_url, "edge-1.2")
    waiting = [
        (number, (store, other)[number % 2].log_bound(line(number), bound(number, f"scope-{number // 4}"), NOW))
        for number in range(40)
    ]
    became = [pending.result(30) for _, pending in waiting]
    assert (became.count("committed"), became.count("taken")) == (10, 30)
    kept = [found.commitment_id for each in range(10) if (found := find(store, f"scope-{each}")) is not None]
    assert sorted(kept) == sorted(each[2] for each in store.recent(0))
    other.close()


def test_S7_a_commitment_that_came_without_its_id_is_counted_once(store: EdgeStore) -> None:
    store.add_lease("le-1", 1, PAYER, 10_000).result()
    assert store.log(line(1)).result()
    assert store.log_bound(line(1), bound(1), NOW).result() == "known"
    assert store.log_bound(line(2), bound(2, "else"), NOW).result() == "committed"
    assert [(each.count, each.spent) for each in store.open_leases()] == [(2, 2_000)]


def test_S7_A1_answers_are_dropped_with_their_promises_and_ids_some_time_later(store: EdgeStore) -> None:
    assert store.log_bound(line(1), bound(1), NOW).result() == "committed"
    open_until = 100 + NONCE_KEPT_SECONDS
    assert store.log_bound(line(2), bound(2, "two", expires=500), open_until).result() == "committed"
    assert find(store, now_seconds=open_until) == bound(1)
    assert store.log_bound(line(3), bound(3, "three", expires=500), open_until + 1).result() == "committed"
    assert find(store, now_seconds=open_until + 1) == bound(1, answer=None)
    # It is that promise's still, and then anybody's.
    assert store.log_bound(line(4), bound(4), open_until + 2).result() == "taken"
    free = open_until + IDENTIFIER_KEPT_SECONDS + 1
    assert find(store, now_seconds=free) is None
    assert store.log_bound(line(5), bound(5, expires=free), free).result() == "committed"
    assert find(store, now_seconds=free) == bound(5, expires=free)
    store.prune(free + IDENTIFIER_KEPT_SECONDS + NONCE_KEPT_SECONDS + 1).result()
    assert store._database.fetch(FIND, ("scope", 0)) == []


def test_C2_an_answer_that_was_given_again_is_noted_once(store: EdgeStore) -> None:
    store.log_bound(line(1), bound(1), NOW).result()
    for _ in range(3):
        store.note_repeated("scope")
    store.note_repeated("nobody's")
    store.log(line(2)).result()
    assert [(each.payer, each.id) for each in store.waiting(10)[1]] == [(PAYER, line(1).id)]
