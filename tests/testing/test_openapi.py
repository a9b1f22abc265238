"""schemathesis over the facilitator's OpenAPI, against the running application: no 500, answers as described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from farthing.services.facilitator import FacilitatorService, read_config
from farthing.services.facilitator.app import make_app
from farthing.services.facilitator.auth import Tokens
from farthing.services.facilitator.openapi import openapi_document
from farthing.testing import Town, strategies
from farthing.testing.nearly_valid import nearly_valid
from farthing.world.loop import run_blocking

CONFIG = """
store = "{store}"
[wallet]
key_env = "KEY"
[[network]]
id = "{network}"
rpc_urls = ["{url}"]
[[network.token]]
address = "{usdc}"
symbol = "USDC"
decimals = 6
eip712_name = "USDC"
eip712_version = "2"
"""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# An example takes some milliseconds; seven operations share a few seconds.
EXAMPLES = 60


@pytest.fixture(scope="session")
def facilitator_schema(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    store: Path = tmp_path_factory.mktemp("openapi") / "facilitator.sqlite3"
    devnet = town.devnet
    config = read_config(CONFIG.format(store=store, network=devnet.network, url=devnet.url, usdc=devnet.usdc))
    service = FacilitatorService.from_config(config, environment={"KEY": town.account(eth=1).key})
    run_blocking(service.start())
    try:
        yield schemathesis.openapi.from_asgi("/openapi.json", make_app(service, Tokens({})))
    finally:
        run_blocking(service.aclose())


PATHS = openapi_document(authenticated=False)["paths"]
# Every operation as it should be asked; and asked wrongly, where there is anything to be wrong with.
ASKED = [
    (method.upper(), path, mode)
    for path, operations in PATHS.items()
    for method, operation in operations.items()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or "requestBody" in operation or "parameters" in operation
]


@pytest.mark.parametrize(("method", "path", "mode"), ASKED, ids=str)
def test_A3_the_facilitator_answers_as_its_document_says(
    facilitator_schema: Any, method: str, path: str, mode: GenerationMode
) -> None:
    operation = facilitator_schema[path][method]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    answers()


@pytest.mark.parametrize("path", ["/settle", "/verify"])
def test_S10_a_request_that_is_nearly_valid_is_answered_as_described(facilitator_schema: Any, path: str) -> None:
    operation = facilitator_schema[path]["POST"]
    told: Counter[int] = Counter()

    @settings(max_examples=2 * EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(nearly_valid(strategies.verify_requests(known=True)) | nearly_valid(strategies.verify_requests_v1()))
    def answers(body: bytes) -> None:
        case = operation.Case(body=body, media_type="application/json")
        told[case.call_and_validate(checks=CHECKS).status_code] += 1

    answers()
    assert set(told) == {200, 400}  # verdicts, and refusals of what is no request
