"""A signer across HTTP: JSON-RPC `eth_signTypedData_v4`, as wallets, nodes and signing services speak it.

The key stays where it is. What comes back is believed only where it recovers to the address.
"""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import Annotated, Any, Final

import msgspec

from farthing.errors import ConfigError, SignerError
from farthing.evm.addresses import AddressInvalid, checksum_address, parse_address
from farthing.evm.signatures import SignatureInvalid, recover_address, split_signature
from farthing.evm.signing import TypedMessage
from farthing.world.http import HttpClient, HttpTrouble, check_url, is_loopback, origin_of
from farthing.world.loop import run_blocking

# A person may have to press a button on a device.
SIGN_TIMEOUT_SECONDS: Final = 120.0
# A signature and its envelope have some 200 bytes; a list of accounts is no larger than this either.
ANSWER_MAX_BYTES: Final = 65_536
# JSON-RPC 2.0, section 5.1: what a service says that wants the typed data as text instead of an object.
_INVALID_PARAMS: Final = -32602
_STATUS_OK: Final = 200

_Shown = Annotated[str, msgspec.Meta(max_length=4096)]


class _Error(msgspec.Struct, frozen=True):
    code: int
    message: _Shown = ""


class _Answer(msgspec.Struct, frozen=True):
    result: Any = None
    error: _Error | None = None


class RemoteSigner:
    """Has messages signed by a service at `url`, for one address. Implements `farthing.evm.signing.Signer`.

    `url` is https, or on this machine; `headers` (a bearer token, for example) are sent along and shown nowhere.
    """

    __slots__ = ("_address", "_client", "_headers", "_ids", "_url")

    def __init__(self, url: str, *, address: str = "", headers: dict[str, str] | None = None) -> None:
        """Sign for `address`; by default for the service's only account (`eth_accounts`).

        Raises `ConfigError` for a URL or an address that can't be used, and `SignerError` where the service does not
        say which account it signs for.
        """
        check_url(url, "the signer")
        if not url.startswith("https://") and not is_loopback(url):
            raise ConfigError(f"The signer at {origin_of(url)} is reached by https, or on this machine only.")
        self._url = url
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._client = HttpClient()
        self._ids = itertools.count(1)
        try:
            self._address = parse_address(address) if address else b""
        except AddressInvalid as error:
            raise ConfigError(f"The signer's address: {error}") from None
        if not address:
            self._address = run_blocking(self._only_account())

    @property
    def address(self) -> str:
        """The EIP-55 address that signatures recover to."""
        return checksum_address(self._address)

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """Have a message signed, and wait: 65 bytes `r ‖ s ‖ v`, low s, v 27 or 28. Raises `SignerError`."""
        return run_blocking(self._sign(message))

    def signing(self, message: TypedMessage) -> Coroutine[Any, Any, bytes]:
        """Have a message signed, to be awaited."""
        return self._sign(message)

    def close(self) -> None:
        """Close its connections. A later signature opens new ones."""
        run_blocking(self._client.aclose())

    def __repr__(self) -> str:
        """Show address and origin; paths and headers hold keys."""
        return f"RemoteSigner({self.address}, {origin_of(self._url)})"

    async def _sign(self, message: TypedMessage) -> bytes:
        typed = message.to_json()
        answer = await self._ask("eth_signTypedData_v4", [self.address, typed])
        if answer.error is not None and answer.error.code == _INVALID_PARAMS:
            # MetaMask's own form is JSON as text.
            answer = await self._ask("eth_signTypedData_v4", [self.address, msgspec.json.encode(typed).decode()])
        signature = _signature(self._result(answer))
        try:
            parts = split_signature(signature)
            signer = recover_address(message.digest(), signature)
        except SignatureInvalid as error:
            raise SignerError(f"The signer at {origin_of(self._url)} gave no signature: {error}") from None
        if signer != self._address:
            raise SignerError(
                f"The signer at {origin_of(self._url)} signed for {checksum_address(signer)}, not {self.address}."
            )
        return parts.r + parts.s + bytes((parts.v,))

    async def _only_account(self) -> bytes:
        accounts = self._result(await self._ask("eth_accounts", []))
        try:
            found = [parse_address(each) for each in msgspec.convert(accounts, list[str])]
        except (msgspec.ValidationError, AddressInvalid):
            raise SignerError(f"The signer at {origin_of(self._url)} gave no list of accounts; name one.") from None
        if len(found) != 1:
            raise SignerError(
                f"The signer at {origin_of(self._url)} has {len(found)} accounts; say which one pays (--from ADDRESS)."
            )
        return found[0]

    async def _ask(self, method: str, params: list[Any]) -> _Answer:
        call = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            answer = await self._client.request(
                "POST",
                self._url,
                headers=self._headers,
                body=msgspec.json.encode(call),
                timeout_seconds=SIGN_TIMEOUT_SECONDS,
                max_bytes=ANSWER_MAX_BYTES,
            )
        except HttpTrouble as error:
            raise SignerError(f"The signer did not answer. {error}") from None
        try:
            return msgspec.json.decode(answer.body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = "" if answer.status == _STATUS_OK else f" (HTTP {answer.status})"
            raise SignerError(f"The signer at {origin_of(self._url)} did not answer in JSON-RPC{said}.") from None

    def _result(self, answer: _Answer) -> Any:
        if answer.error is not None:
            said = ascii(answer.error.message[:160])[1:-1]
            raise SignerError(f"The signer at {origin_of(self._url)} refused: {said} ({answer.error.code}).")
        return answer.result


def _signature(result: Any) -> bytes:
    if not isinstance(result, str):
        return b""
    try:
        return bytes.fromhex(result.removeprefix("0x"))
    except ValueError:
        return b""
