"""How the payer of `farthing demo deferred` settles its statement."""

from __future__ import annotations

import msgspec

from farthing.demo.deferred_parts import House
from farthing.evm.addresses import checksum_address, parse_address
from farthing.evm.typed_data import Domain, TransferWithAuthorization
from farthing.mechanisms.exact_evm.payload import ExactDetail, write_payload
from farthing.protocol.codec import encode_json
from farthing.protocol.messages import PaymentPayload, PaymentRequirements
from farthing.protocol.statements import Statement, StatementPayment, StatementStatus
from farthing.services.devnet import Devnet
from farthing.world.keys import LocalSigner


def pay(house: House, statement: Statement, status: StatementStatus, signer: LocalSigner, devnet: Devnet) -> None:
    """Accept the statement and pay it, as `house` knows the payer."""
    rail = statement.rail
    authorization = TransferWithAuthorization(
        from_=parse_address(signer.address),
        to=parse_address(rail.pay_to),
        value=int(status.payable),
        valid_after=0,
        valid_before=rail.valid_before,
        nonce=bytes.fromhex(rail.reference[2:]),
    )
    domain = Domain("USDC", "2", devnet.chain_id, parse_address(rail.asset))
    signature = signer.sign_typed_data(authorization.bind(domain))
    detail = ExactDetail(devnet.chain_id, parse_address(rail.asset), authorization, signature)
    accepted = PaymentRequirements(
        scheme="exact",
        network=rail.network,
        amount=status.payable,
        asset=rail.asset,
        pay_to=checksum_address(authorization.to),
        max_timeout_seconds=3_600,
        extra={"name": "USDC", "version": "2"},
    )
    payment = StatementPayment(PaymentPayload(accepted, msgspec.Raw(encode_json(write_payload(detail)))))
    house.ask("POST", f"/statements/{statement.id}/payment", msgspec.json.decode(encode_json(payment)))
