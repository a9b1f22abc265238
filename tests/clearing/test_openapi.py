"""schemathesis over the clearing house's OpenAPI, as everybody who may call: no 500, answers as described."""

from __future__ import annotations

import gzip
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import Parties, Served, Town, serving, website

from farthing.protocol.clearing import LeaseClose, LeaseRequest, Sent, UploadHeader
from farthing.protocol.codec import encode_json
from farthing.protocol.statements import DisputedLine, DisputeRequest, StatementPayment
from farthing.services.clearing import read_config
from farthing.services.clearing.api import (
    DOORS,
    AssignRequest,
    DecisionRequest,
    Door,
    FundRequest,
    GuaranteeRequest,
    KeyRequest,
    PayeeRequest,
    PayerRequest,
    PayerStateRequest,
    TakeRequest,
    TokenRequest,
)
from farthing.services.clearing.app import make_app
from farthing.services.clearing.callers import Operators
from farthing.testing.nearly_valid import nearly_valid
from farthing.world.loop import run_blocking

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# An example takes some milliseconds; twenty-eight doors, asked rightly and wrongly, share half a minute.
EXAMPLES: Final = 30
BODY_TOO_LARGE: Final = 413
# Of the examples: those that name what is there.
KNOWN_SHARE: Final = 0.6
ROLES: Final = ("operator", "edge", "payer", "payee", "", "nobody")


@schemathesis.serializer("application/gzip")
def gzipped(_context: Any, value: Any) -> bytes:
    """An upload of whatever is drawn: packed as it should be, what is in it is nonsense."""
    return gzip.compress(value if isinstance(value, bytes) else str(value).encode("utf-8", "replace"), 1, mtime=0)


class Stage(NamedTuple):
    """A house with something in it: tokens by role, and the names that are there, by the part of a path."""

    schema: Any
    tokens: dict[str, str]
    names: dict[str, list[str]]
    bodies: dict[str, list[Any]]


@pytest.fixture(scope="module")
def stage(devnet_pyevm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    texts: dict[str, str] = {}
    town = Town(devnet_pyevm, tmp_path_factory.mktemp("openapi"))
    with website(texts) as authority:
        context = serving(town, town.facilitator(), private=authority)
        served = run_blocking(context.__aenter__())
        try:
            furnished = run_blocking(furnish(town, served, authority, texts))
            app = make_app(served.service, Operators(read_config(town.config()).server, town.environment))
            yield Stage(schemathesis.openapi.from_asgi("/openapi.json", app), *furnished)
        finally:
            run_blocking(context.__aexit__(None, None, None))


async def furnish(
    town: Town, served: Served, authority: str, texts: dict[str, str]
) -> tuple[dict[str, str], dict[str, list[str]], dict[str, list[Any]]]:
    """Have pages read, a window closed, a line disputed; give tokens, the names of what is there, and good bodies."""
    parties = await Parties(town, served, authority).open(texts)
    lines = await parties.read_pages(3)
    await served.operator.post("/window/close")
    statement, status = await parties.statement()
    wrong = {"lines": [{"id": lines[0].id, "reason": "not_authorized"}]}
    (dispute,) = await parties.payer.post(f"/statements/{status.statement}/disputes", wrong)
    payee = await served.client("news", "payee", "news")
    await served.operator.post("/tokens", {"name": "spare", "role": "payee", "subject": "news"})
    clients = {"operator": served.operator, "edge": parties.edge, "payer": parties.payer, "payee": payee}
    tokens = {role: client.headers["Authorization"] for role, client in clients.items()}
    names = {
        "edge": ["edge-1.2"],
        "statement": [status.statement],
        "line": [lines[0].id, lines[1].id],
        "payee": ["news"],
        "name": ["spare"],
        "dispute": [dispute["dispute"]],
        "payer": [town.crawler.directory],
        "after": ["", "0", "1", "\u0663", "9" * 19, "9" * 5_000],
        "state": ["issued", "settled"],
        "format": ["csv", "ndjson"],
        "pending": ["", "1"],
        "what": [
            *("payers", "payees", "windows", "leases", "payouts", "covers", "movements"),
            *("suspense", "disputes", "tokens", "audit"),
        ],
    }
    return tokens, names, good_bodies(town, names, town.pay(status, statement.rail), authority)


def good_bodies(town: Town, names: dict[str, list[str]], payment: StatementPayment, authority: str) -> dict[str, Any]:
    """Bodies that fit what is there, by the path of their door; for uploads, lines."""
    crawler, agent = town.crawler, town.crawler.directory
    edge, line, now = "edge-1", names["line"][1], int(time.time())
    lines = [crawler.commit(f"/again/{number}", at=now, domain=authority) for number in range(20)]
    return {
        "/leases": [LeaseRequest(edge, 1, f"again-{number}", agent, "1000", "USD", 60) for number in range(20)],
        "/leases/close": [LeaseClose("no-lease", 1, 1, "10000"), LeaseClose("no-lease", 1, 1, "10000", edge)],
        "/statements/{statement}/disputes": [DisputeRequest((DisputedLine(line, "wrong_amount", "I saw less."),))],
        "/statements/{statement}/payment": [payment, StatementPayment(prepaid=True)],
        "/payers": [PayerRequest(agent, "50000000"), PayerRequest("https://another.example", "1")],
        "/payers/state": [
            PayerStateRequest(agent, "active"),
            PayerStateRequest("https://another.example", "suspended"),
        ],
        # As the operator's, and as the payer's own: of a key that signs nothing here.
        "/payers/keys": [KeyRequest("k" * 43, agent, now - 60), KeyRequest("k" * 43)],
        "/payees": [PayeeRequest("blog", "blog.example", town.address("payee"))],
        "/tokens": [TokenRequest(f"edge-b{number}", "edge", "blog") for number in range(20)],
        "/disputes/{dispute}": [DecisionRequest(granted=False, note="It was served.")],
        "/suspense": [AssignRequest("0x" + "ab" * 32, 0, agent)],
        "/reserve/fund": [FundRequest("0x" + "ab" * 32, 0)],
        "/reserve/take": [TakeRequest(f"take-{number}", "1", "news") for number in range(20)],
        "/payees/{payee}/guarantee": [GuaranteeRequest(guaranteed=True), GuaranteeRequest(guaranteed=False)],
        "/uploads": [*lines, crawler.record, Sent(agent, lines[0].id)],
    }


# Every door as it should be asked; and asked wrongly, where there is anything to be wrong with.
ASKED: Final = [
    (door, mode)
    for door in DOORS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or door.takes or door.takes_upload or door.query or "{" in door.path
]


def ask(stage: Stage, case: Any, role: str) -> Any:
    """Ask as one of the roles; the answer is held to the document."""
    headers = {"Authorization": stage.tokens.get(role, "Bearer nobodys-token")} if role else {}
    return case.call_and_validate(checks=CHECKS, headers=headers)


@pytest.mark.parametrize(("door", "mode"), ASKED, ids=[f"{door.method} {door.path} {mode}" for door, mode in ASKED])
def test_A3_the_clearing_house_answers_as_its_document_says(stage: Stage, door: Door, mode: GenerationMode) -> None:
    operation = stage.schema[door.path][door.method]
    negative = mode is GenerationMode.NEGATIVE
    # Half of them by who may ask, about what is there.
    who = st.sampled_from(door.roles or ("",)) | st.sampled_from(ROLES)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), who, st.randoms(use_true_random=False))
    def answers(case: Any, role: str, chance: Any) -> None:
        if chance.random() < KNOWN_SHARE and not negative:
            for given in (case.path_parameters or {}, case.query or {}):
                given.update([(name, chance.choice(stage.names[name])) for name in given if name in stage.names])
        answer = ask(stage, case, role)
        # What a query names beside is passed over, and the token is ours whatever was drawn.
        if negative and not door.query and answer.status_code != BODY_TOO_LARGE:
            case.validate_response(answer, checks=[negative_data_rejection])

    answers()


@pytest.mark.parametrize("door", [door for door in DOORS if door.takes], ids=lambda door: door.path)
def test_A3_a_request_that_is_nearly_valid_is_answered_as_described(stage: Stage, door: Door) -> None:
    told = nearly(stage, door, nearly_valid(st.sampled_from(stage.bodies[door.path])))
    assert 400 in told
    assert len(told) > 1


def test_A3_an_upload_that_is_nearly_valid_is_answered_as_described(stage: Stage) -> None:
    door = next(door for door in DOORS if door.takes_upload)
    header = st.integers(1, 2**53).map(lambda sequence: UploadHeader("edge-1", 1, sequence))
    line: Any = st.sampled_from(stage.bodies[door.path])
    heads = header.map(encode_json) | nearly_valid(header)
    uploads = st.tuples(heads, st.lists(nearly_valid(line) | line.map(encode_json), max_size=4))
    assert {200, 400} <= set(nearly(stage, door, uploads.map(lambda drawn: b"\n".join([drawn[0], *drawn[1]]))))


def nearly(stage: Stage, door: Door, bodies: st.SearchStrategy[bytes]) -> Counter[int]:
    """Ask as who may, about what is there, with bodies that are drawn; the statuses told."""
    operation = stage.schema[door.path][door.method]
    told: Counter[int] = Counter()

    @settings(
        max_examples=2 * EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies)
    def answers(body: bytes) -> None:
        media_type = "application/gzip" if door.takes_upload else "application/json"
        names = {name: stage.names[name][0] for name in re.findall(r"{(\w+)}", door.path)}
        case = operation.Case(body=body, media_type=media_type, path_parameters=names)
        told[ask(stage, case, door.roles[0]).status_code] += 1

    answers()
    return told
