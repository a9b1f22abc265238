"""A facilitator across HTTP, behind the same interface as one in the process (`farthing.protocol.facilitator`).

SAFETY S2 and F3: trouble on the way is never a verdict. A settlement that was not clearly answered is `Unknown`; a
verification that was not clearly answered raises `FacilitatorUnavailable`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

import msgspec

from farthing.errors import FacilitatorUnavailable, RemoteProtocolError
from farthing.flow import Effect
from farthing.protocol.codec import decode_supported, decode_verify_response, decode_with, encode_json
from farthing.protocol.facilitator import (
    HTTP_CLIENT_ERRORS,
    NOT_JUDGED,
    Facilitator,
    FindPayment,
    Outcome,
    PaymentsAsked,
    PaymentsFound,
    PaymentStatus,
    Settle,
    Unknown,
    Verify,
    read_settlement,
)
from farthing.protocol.http import IDEMPOTENCY_KEY, STATUS_OK
from farthing.protocol.messages import (
    PaymentPayload,
    PaymentRequirements,
    SupportedResponse,
    VerifyRequest,
    VerifyResponse,
)
from farthing.world.http import HttpAnswer, HttpClient, HttpTrouble, check_url, is_loopback, origin_of

# A verification is one round trip to a node; hosted facilitators answer in 0.1 to 2 seconds.
VERIFY_TIMEOUT_SECONDS = 10.0
# A settlement waits for blocks: 2 seconds on Base, 12 on Ethereum, and some of them full.
SETTLE_TIMEOUT_SECONDS = 60.0
# Of an answer's body. A settlement is half a kilobyte; a large `/supported` some ten.
ANSWER_MAX_BYTES = 262_144
# How much of a refusing answer is repeated in a message.
EXCERPT_MAX_CHARS = 200

STATUS_NOT_FOUND = 404
PROBLEM_JSON = "application/problem+json"
UNEXPECTED_VERIFY_ERROR = "unexpected_verify_error"
UNEXPECTED_SETTLE_ERROR = "unexpected_settle_error"

Headers: TypeAlias = Mapping[str, str]
HeadersSource: TypeAlias = Headers | Callable[[], "Headers | Awaitable[Headers]"]

_status_decoder = msgspec.json.Decoder(PaymentStatus)
_statuses_decoder = msgspec.json.Decoder(PaymentsFound)


class RemoteFacilitator:
    """A facilitator at `url` (`https://host/base`; `/verify` and the others are added to its path)."""

    def __init__(
        self,
        url: str,
        *,
        headers: HeadersSource | None = None,
        verify_timeout_seconds: float = VERIFY_TIMEOUT_SECONDS,
        settle_timeout_seconds: float = SETTLE_TIMEOUT_SECONDS,
        client: HttpClient | None = None,
    ) -> None:
        """Take the URL, and what every request carries: `headers`, or a function, async or not, that gives them.

        Raises `ConfigError` for a URL that is none; warns where a token would travel in the clear.
        """
        self._base = check_url(url, "the facilitator").rstrip("/")
        if "?" in url:
            warnings.warn(f"The query of the facilitator's URL ({origin_of(url)}) is left out.", stacklevel=2)
            self._base = self._base.partition("?")[0].rstrip("/")
        if urlsplit(url).scheme == "http" and not is_loopback(url):
            warnings.warn(
                f"{origin_of(url)} is reached in the clear: a token or a payment can be read on the way. Use https.",
                stacklevel=2,
            )
        self._headers = headers
        self._verify_timeout_seconds = verify_timeout_seconds
        self._settle_timeout_seconds = settle_timeout_seconds
        self._client = client or HttpClient()

    def __repr__(self) -> str:
        return f"RemoteFacilitator({origin_of(self._base)!r})"

    async def supported(self) -> SupportedResponse:
        """Ask which kinds are settled there. Raises `FacilitatorUnavailable`."""
        answer = await self._ask("GET", "/supported")
        if answer.status != STATUS_OK:
            raise self._unavailable(answer, "/supported")
        try:
            return decode_supported(answer.body)
        except RemoteProtocolError as error:
            raise FacilitatorUnavailable(f"{origin_of(self._base)}/supported: {error}") from error

    async def verify(self, payment: PaymentPayload, requirements: PaymentRequirements) -> VerifyResponse:
        """Have a payment judged. Raises `FacilitatorUnavailable` for whatever is not clearly a verdict.

        A verdict is a 200 with a VerifyResponse, or a 4xx that judged the payment and says `isValid: false` and why.
        """
        answer = await self._ask("POST", "/verify", encode_json(VerifyRequest(payment, requirements)))
        try:
            response = decode_verify_response(answer.body)
        except RemoteProtocolError as error:
            raise self._unavailable(answer, "/verify") from error
        reason = response.invalid_reason or ""
        refused = not response.is_valid and reason != UNEXPECTED_VERIFY_ERROR
        if answer.status == STATUS_OK and (response.is_valid or refused):
            return response
        if answer.status in HTTP_CLIENT_ERRORS and answer.status not in NOT_JUDGED and refused and reason:
            return response
        raise self._unavailable(answer, "/verify")

    async def settle(
        self, payment: PaymentPayload, requirements: PaymentRequirements, *, idempotency_key: str
    ) -> Outcome:
        """Have a payment settled. Whatever is not clearly a settlement or a refusal is `Unknown`; nothing is raised."""
        try:
            body = encode_json(VerifyRequest(payment, requirements))
            answer = await self._send("POST", "/settle", body, idempotency_key, self._settle_timeout_seconds)
        except HttpTrouble as error:
            return Unknown(UNEXPECTED_SETTLE_ERROR, str(error))
        except Exception as error:  # noqa: BLE001 - the caller's headers, a bug: none of it is a verdict
            return Unknown(UNEXPECTED_SETTLE_ERROR, f"The settlement could not be asked for: {type(error).__name__}.")
        return read_settlement(answer.status, answer.body)

    async def find(self, payment_id: str) -> PaymentStatus | None:
        """Ask what became of a payment, by payment id or transaction hash; None where it is not known there.

        Raises `FacilitatorUnavailable`, also where the facilitator has no `/payments`: a 404 counts as an answer only
        as problem details.
        """
        answer = await self._ask("GET", "/payments/" + quote(payment_id, safe=""))
        if answer.status == STATUS_NOT_FOUND and answer.media_type == PROBLEM_JSON:
            return None
        if answer.status != STATUS_OK:
            raise self._unavailable(answer, "/payments")
        try:
            return decode_with(_status_decoder, answer.body, what="/payments answer")
        except RemoteProtocolError as error:
            raise FacilitatorUnavailable(f"{origin_of(self._base)}/payments: {error}") from error

    async def find_many(self, payment_ids: tuple[str, ...]) -> tuple[PaymentStatus, ...]:
        """Ask what became of these payments, at most `PAYMENTS_MAX`; those that are not known there are left out.

        Raises `FacilitatorUnavailable`, also where the facilitator has no `POST /payments`.
        """
        answer = await self._ask("POST", "/payments", encode_json(PaymentsAsked(payment_ids)))
        if answer.status != STATUS_OK:
            raise self._unavailable(answer, "/payments")
        try:
            return decode_with(_statuses_decoder, answer.body, what="/payments answer").payments
        except RemoteProtocolError as error:
            raise FacilitatorUnavailable(f"{origin_of(self._base)}/payments: {error}") from error

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, body: bytes = b"") -> HttpAnswer:
        try:
            return await self._send(method, path, body, "", self._verify_timeout_seconds)
        except HttpTrouble as error:
            raise FacilitatorUnavailable(str(error)) from error
        except Exception as error:
            # Of the caller's own function no words are repeated: they may hold the token.
            message = f"{origin_of(self._base)}{path} was not asked: {type(error).__name__}."
            raise FacilitatorUnavailable(message) from error

    async def _send(
        self, method: str, path: str, body: bytes, idempotency_key: str, timeout_seconds: float
    ) -> HttpAnswer:
        headers = {"Accept": "application/json", **await self._own_headers()}
        if body:
            headers["Content-Type"] = "application/json"
        if idempotency_key:
            headers[IDEMPOTENCY_KEY] = idempotency_key
        return await self._client.request(
            method,
            self._base + path,
            headers=headers,
            body=body,
            timeout_seconds=timeout_seconds,
            max_bytes=ANSWER_MAX_BYTES,
        )

    async def _own_headers(self) -> Headers:
        if self._headers is None:
            return {}
        given = self._headers() if callable(self._headers) else self._headers
        return await given if inspect.isawaitable(given) else given

    def _unavailable(self, answer: HttpAnswer, path: str) -> FacilitatorUnavailable:
        excerpt = ascii(answer.body[:EXCERPT_MAX_CHARS].decode("utf-8", "replace"))
        advice = " Check the token in `headers`." if answer.status in (401, 403) else ""
        return FacilitatorUnavailable(
            f"{origin_of(self._base)}{path} answered {answer.status} with no verdict: {excerpt}.{advice}"
        )


def facilitator_handlers(facilitator: Facilitator) -> dict[type[Effect[Any]], Any]:
    """Handlers of `Verify`, `Settle` and `FindPayment`, for a `Performer`; remote or in the process alike."""

    def verify(effect: Verify) -> Awaitable[VerifyResponse]:
        return facilitator.verify(effect.payment, effect.requirements)

    def settle(effect: Settle) -> Awaitable[Outcome]:
        return facilitator.settle(effect.payment, effect.requirements, idempotency_key=effect.idempotency_key)

    def find(effect: FindPayment) -> Awaitable[PaymentStatus | None]:
        return facilitator.find(effect.payment_id)

    return {Verify: verify, Settle: settle, FindPayment: find}
