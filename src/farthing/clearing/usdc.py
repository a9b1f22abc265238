"""The rail `usdc`: statements paid and payees paid out by EIP-3009 authorisations on one chain, one USDC for a dollar.

The nonce says what an authorisation is for, so that the chain itself settles each statement and each payout at most
once. What settled is read from the token's logs in finalised blocks, and matched by that nonce alone.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farthing.clearing.rails import FitPayment, RailReport, UnfitPayment
from farthing.clearing.settlement import Movement, PayoutRecord
from farthing.clearing.store import StatementRecord
from farthing.errors import NodeUnavailable, RemoteProtocolError
from farthing.evm.abi import pack_address
from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.hexadecimal import read_data, read_list, read_object, read_quantity, write_data
from farthing.evm.logs import TRANSFER_TOPIC, AuthorizationUsed, Log, Transfer, read_event, read_log
from farthing.evm.node import AskNode, NodeCall, NodeFailure
from farthing.evm.references import statement_reference
from farthing.flow import Flow
from farthing.mechanisms.exact_evm import ExactEvmBuyer, ExactEvmSeller
from farthing.networks import Networks, Token
from farthing.protocol.codec import decode_payment_json, encode_json
from farthing.protocol.facilitator import Outcome, Settle
from farthing.protocol.messages import PaymentPayload, PaymentRequirements
from farthing.protocol.statements import RailTerms

# Blocks that one look at the logs spans: hosted nodes take between 1,000 and 10,000.
BLOCKS_MAX: Final = 1_000
# Of one look: a treasury has some thousand payments a day.
LOGS_MAX: Final = 10_000
RECEIPTS_AT_ONCE: Final = 50
# Where a chain says nothing of finality: deeper than any reorganisation that was seen on a chain in use.
FINAL_DEPTH: Final = 64
# JSON-RPC's "no such method" and "invalid params", and Ethereum's "unknown block".
_NO_SUCH_BLOCK: Final = frozenset({-32601, -32602, -39001})
# A payout's authorisation is open for a day; one that did not settle in it is signed again, under the same nonce.
PAYOUT_SECONDS: Final = 86_400
# An authorisation must be open until the statement's due date, or for this long where that is over or near.
_OPEN_MIN_SECONDS: Final = 86_400
# What a facilitator is told that a statement's window may be: due date and grace at their longest, and some days.
_WINDOW_MAX_SECONDS: Final = 190 * 86_400
_SCHEME: Final = "exact"


class UsdcRail(msgspec.Struct, frozen=True, kw_only=True):
    """The rail for one currency on one network.

    `clearing_network` names the house (`clearing:…`), `treasury` is its address on `token.network`. `first_block` is
    where the chain is read from at the very beginning; None: from the newest finalised block.
    """

    clearing_network: str
    token: Token
    treasury: str
    networks: Networks
    currency: str = "USD"
    first_block: int | None = None
    name: str = "usdc"

    def terms(self, statement: str, valid_before: int) -> RailTerms:
        """Say how a statement can be paid."""
        return RailTerms(
            name=self.name,
            network=self.token.network,
            asset=self.token.address,
            pay_to=self.treasury,
            reference=statement_reference(self.clearing_network, statement),
            valid_before=valid_before,
        )

    def requirements(self, *, amount: int, pay_to: str, seconds: int) -> PaymentRequirements:
        """Write a transfer as x402 has it."""
        return PaymentRequirements(
            scheme=_SCHEME,
            network=self.token.network,
            amount=str(amount),
            asset=self.token.address,
            pay_to=pay_to,
            max_timeout_seconds=seconds,
            extra={"name": self.token.eip712_name, "version": self.token.eip712_version},
        )

    def fit(self, payment: PaymentPayload, record: StatementRecord, *, now_seconds: int) -> FitPayment | UnfitPayment:
        """Judge a payment: amount, treasury, token, nonce, window, signature (a contract wallet's is the chain's)."""
        seller = ExactEvmSeller(self.networks)
        wanted = self.requirements(amount=record.payable, pay_to=self.treasury, seconds=_WINDOW_MAX_SECONDS)
        try:
            signed = seller.read(payment)
        except RemoteProtocolError as error:
            return UnfitPayment("invalid_payload", str(error))
        refusal = seller.check(signed, wanted, now_seconds=now_seconds)
        if refusal is not None:
            return UnfitPayment(refusal.reason, refusal.message)
        if signed.identity.parts[-1] != record.reference:
            return UnfitPayment("wrong_nonce", f"The nonce of this statement's payment is {record.reference}.")
        if signed.valid_before < min(record.due_at, now_seconds + _OPEN_MIN_SECONDS):
            return UnfitPayment("window_too_short", f"The authorisation must be open until {record.due_at}.")
        # What was signed is the payload; the offer around it is ours, so that the facilitator judges it by our terms.
        kept = msgspec.structs.replace(payment, accepted=wanted, resource=None, extensions=None)
        return FitPayment(encode_json(kept).decode(), signed.valid_before)

    def instruct(self, record: StatementRecord) -> Flow[str]:
        """Have the facilitator settle a statement's payment."""
        return self._settle(record.payment, record.statement)

    def pay_out(self, payout: PayoutRecord) -> Flow[str]:
        """Have the facilitator settle a payout; those that arrive together share a transaction there."""
        return self._settle(payout.payment, payout.payout)

    def _settle(self, text: str, key: str) -> Flow[str]:
        payment = decode_payment_json(text.encode())
        outcome: Outcome = yield from Settle(payment, payment.accepted, key)
        return f"{type(outcome).__name__.lower()} {getattr(outcome, 'reason', '')}".rstrip()

    def authorise(self, payout: PayoutRecord) -> Flow[FitPayment]:
        """Sign a payout by the treasury's key (yields `Now` and `SignTypedData`)."""
        wanted = self.requirements(amount=payout.amount, pay_to=payout.address, seconds=PAYOUT_SECONDS)
        buyer = ExactEvmBuyer(self.networks)
        prepared = yield from buyer.pay(wanted, payer=self.treasury, nonce=read_data(payout.reference))
        payment = PaymentPayload(accepted=wanted, payload=msgspec.Raw(encode_json(prepared.payload)))
        return FitPayment(encode_json(payment).decode(), prepared.signed.valid_before)

    # The chain's books

    def report(self, next_block: int | None) -> Flow[RailReport]:
        """Read what moved to and from the treasury, in finalised blocks. Raises `NodeUnavailable`."""
        network = self.token.network
        number, time_seconds = yield from self._final_block()
        begin = next_block if next_block is not None else self.first_block
        if begin is None:
            # Nothing was asked for before this: what came earlier is not ours to explain.
            begin = number
        end = min(number, begin + BLOCKS_MAX - 1)
        if end < begin:
            return RailReport(network, (), begin, time_seconds, complete=True)
        found, end = yield from self._transfers(begin, end)
        hashes = sorted({write_data(log.transaction_hash) for log in found})
        movements: list[Movement] = []
        for first in range(0, len(hashes), RECEIPTS_AT_ONCE):
            calls = tuple(
                NodeCall("eth_getTransactionReceipt", (each,)) for each in hashes[first : first + RECEIPTS_AT_ONCE]
            )
            for receipt in (yield from AskNode(network, calls)):
                movements += self._movements(receipt)
        return RailReport(network, tuple(movements), end + 1, time_seconds, complete=end == number)

    def _transfers(self, begin: int, end: int) -> Flow[tuple[list[Log], int]]:
        """Find the token's transfers to and from the treasury; fewer blocks where those are more than come at once.

        Anybody may send the treasury dust: what a node doesn't give of a thousand blocks it gives of a few.
        """
        treasury = write_data(pack_address(parse_address(self.treasury)))
        topic = write_data(TRANSFER_TOPIC)
        while True:
            where = {"address": self.token.address, "fromBlock": hex(begin), "toBlock": hex(end)}
            answers = yield from AskNode(
                self.token.network,
                (
                    NodeCall("eth_getLogs", ({**where, "topics": [topic, None, treasury]},)),
                    NodeCall("eth_getLogs", ({**where, "topics": [topic, treasury]},)),
                ),
            )
            try:
                return [log for answer in answers for log in _logs(answer)], end
            except NodeUnavailable:
                if end == begin:
                    raise
            end = begin + (end - begin) // 2

    def _final_block(self) -> Flow[tuple[int, int]]:
        known = self.networks.find(self.token.network)
        depth = FINAL_DEPTH if known is None else max(FINAL_DEPTH, known.confirmations)
        (answer,) = yield from AskNode(self.token.network, (NodeCall("eth_getBlockByNumber", ("finalized", False)),))
        if isinstance(answer, NodeFailure) and answer.code not in _NO_SUCH_BLOCK and "not found" not in answer.message:
            # A node in trouble says nothing of what is final, and less must not count for it.
            message = f"The node did not send the finalised block: {answer.message}"
            raise NodeUnavailable(message)
        if isinstance(answer, NodeFailure) or answer is None:
            # A chain that knows no such tag.
            (latest,) = yield from AskNode(self.token.network, (NodeCall("eth_blockNumber"),))
            number = max(0, read_quantity(latest) - depth)
            (answer,) = yield from AskNode(
                self.token.network, (NodeCall("eth_getBlockByNumber", (hex(number), False)),)
            )
        block = read_object(answer)
        return read_quantity(block.get("number")), read_quantity(block.get("timestamp"))

    def _movements(self, receipt: Any) -> list[Movement]:
        """Read a receipt: each transfer to or from the treasury, with the nonce that it was authorised by.

        EIP-3009 emits `AuthorizationUsed` and then makes the transfer, so that an authorisation's transfer is the
        next event of the same payer; a transfer without one before it is a plain one.
        """
        if isinstance(receipt, NodeFailure) or receipt is None:
            message = "The node has logs of a transaction and no receipt of it."
            raise NodeUnavailable(message)
        members = read_object(receipt)
        if read_quantity(members.get("status")) == 0:
            return []
        token, treasury = parse_address(self.token.address), parse_address(self.treasury)
        used: dict[bytes, bytes] = {}
        found: list[Movement] = []
        for log in sorted(_logs(members.get("logs")), key=lambda each: each.index):
            event = read_event(log) if log.address == token else None
            if isinstance(event, AuthorizationUsed):
                used[event.authorizer] = event.nonce
            elif isinstance(event, Transfer):
                nonce = used.pop(event.from_, b"")
                if treasury in {event.from_, event.to} and event.from_ != event.to and event.value:
                    found.append(self._movement(log, event, nonce, incoming=event.to == treasury))
        return found

    def _movement(self, log: Log, event: Transfer, nonce: bytes, *, incoming: bool) -> Movement:
        return Movement(
            network=self.token.network,
            transaction=write_data(log.transaction_hash),
            log_index=log.index,
            block_number=log.block_number,
            incoming=incoming,
            counterparty=checksum_address(event.from_ if incoming else event.to),
            amount=event.value,
            reference=write_data(nonce) if nonce else "",
        )


def _logs(answer: Any) -> list[Log]:
    if isinstance(answer, NodeFailure):
        message = f"The node did not send the logs: {answer.message}"
        raise NodeUnavailable(message)
    return [log for raw in read_list(answer, size_max=LOGS_MAX) if (log := read_log(raw)) is not None]
