"""The USDC contract, function by function, on both nodes; eth-account makes every signature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from farthing.services.devnet.contracts import load_contract

FAR_FUTURE = 2**40
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
ARGUMENTS = "address,address,uint256,uint256,uint256,bytes32"
VRS = ",uint8,bytes32,bytes32"
OVERLOADS = ("vrs", "bytes")
FIELDS = ("from", "to", "value", "validAfter", "validBefore", "nonce")


@pytest.fixture(autouse=True)
def rewound(chain: Any) -> Iterator[None]:
    with chain.devnet.rewound():
        yield


def split(signature: bytes) -> tuple[int, bytes, bytes]:
    return signature[64], signature[:32], signature[32:64]


def overload(name: str, arguments: str, which: str, signature: bytes) -> tuple[str, tuple[Any, ...]]:
    """The function's signature, and the values that end its arguments."""
    if which == "vrs":
        return f"{name}({arguments}{VRS})", split(signature)
    return f"{name}({arguments},bytes)", (signature,)


class Payment:
    """An authorisation and its signature; `words` gives the arguments of a call."""

    def __init__(self, chain: Any, payer: LocalAccount, to: str, struct: str = "Transfer", **changed: Any) -> None:
        domain = changed.pop("domain", {})
        self.message = {
            "from": changed.pop("payer_address", payer.address),
            "to": to,
            "value": 10_000,
            "validAfter": 0,
            "validBefore": FAR_FUTURE,
            "nonce": keccak(text=payer.address + struct),
            **changed,
        }
        signed = chain.typed_signature(payer, f"{struct}WithAuthorization", self.message, **domain)
        self.signature = bytes(signed.signature)
        self.name = f"{struct.lower()}WithAuthorization"

    def call(self, which: str = "vrs", signature: bytes | None = None, **changed: Any) -> tuple[Any, ...]:
        name, end = overload(self.name, ARGUMENTS, which, signature or self.signature)
        words = self.message | changed
        return (name, *(words[field] for field in FIELDS), *end)


def test_describes_itself(chain: Any) -> None:
    assert chain.read("name()", returns="string") == "USDC"
    assert chain.read("symbol()", returns="string") == "USDC"
    assert chain.read("version()", returns="string") == "2"
    assert chain.read("decimals()", returns="uint8") == 6
    supply = chain.rpc("eth_call", {"to": chain.usdc, "data": "0x18160ddd"}, "earliest")
    assert int(supply, 16) == 10 * 1_000_000 * 10**6
    assert chain.read("owner()", returns="address").lower() == chain.devnet.owner[0].lower()
    separator = keccak(
        encode(
            ["bytes32", "bytes32", "bytes32", "uint256", "address"],
            [
                keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak(text="USDC"),
                keccak(text="2"),
                chain.devnet.chain_id,
                chain.usdc,
            ],
        )
    )
    assert chain.read("DOMAIN_SEPARATOR()", returns="bytes32") == separator
    balances = [chain.devnet.usdc_balance(address, "earliest") for address, _ in chain.devnet.accounts]
    assert balances == [1_000_000 * 10**6] * 10


def test_transfer_moves_money_and_logs_it(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payer, payee = chain.funded(usdc=5, eth=1), account()
    receipt = chain.transact(payer, "transfer(address,uint256)", payee.address, 2_000_000)
    assert (chain.balance(payer), chain.balance(payee)) == (3_000_000, 2_000_000)
    [log] = receipt["logs"]
    assert log["address"].lower() == chain.usdc.lower()
    assert log["topics"] == [
        "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
        "0x" + encode(["address"], [payer.address]).hex(),
        "0x" + encode(["address"], [payee.address]).hex(),
    ]
    assert int(log["data"], 16) == 2_000_000
    call = ("transfer(address,uint256)", payee.address, 3_000_001)
    assert chain.refusal(*call, sender=payer.address) == "ERC20: transfer amount exceeds balance"
    zero = "0x" + "00" * 20
    refused = chain.refusal("transfer(address,uint256)", zero, 1, sender=payer.address)
    assert refused == "ERC20: transfer to the zero address"


def test_allowances(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payer, spender, payee = chain.funded(usdc=5, eth=1), chain.funded(eth=1), account()
    pair = (payer.address, spender.address)
    receipt = chain.transact(payer, "approve(address,uint256)", spender.address, 1000)
    assert receipt["logs"][0]["topics"][0] == "0x" + keccak(text="Approval(address,address,uint256)").hex()
    chain.transact(payer, "increaseAllowance(address,uint256)", spender.address, 500)
    chain.transact(payer, "decreaseAllowance(address,uint256)", spender.address, 300)
    assert chain.read("allowance(address,address)", *pair) == 1200
    take = "transferFrom(address,address,uint256)"
    refused = chain.refusal(take, payer.address, payee.address, 1201, sender=spender.address)
    assert refused == "ERC20: transfer amount exceeds allowance"
    chain.transact(spender, take, payer.address, payee.address, 1200)
    assert (chain.read("allowance(address,address)", *pair), chain.balance(payee)) == (0, 1200)
    call = ("decreaseAllowance(address,uint256)", spender.address, 1)
    assert chain.refusal(*call, sender=payer.address) == "ERC20: decreased allowance below zero"


@pytest.mark.parametrize("which", OVERLOADS)
@pytest.mark.parametrize("struct", ["Transfer", "Receive"])
def test_authorisation_pays_once(chain: Any, account: Callable[[], LocalAccount], struct: str, which: str) -> None:
    payer, payee, anybody = chain.funded(usdc=1), chain.funded(eth=1), chain.funded(eth=1)
    payment = Payment(chain, payer, payee.address, struct)
    sender = anybody if struct == "Transfer" else payee
    receipt = chain.transact(sender, *payment.call(which))
    assert (chain.balance(payer), chain.balance(payee)) == (990_000, 10_000)
    used, moved = receipt["logs"]
    nonce = payment.message["nonce"]
    assert used["topics"] == [
        "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5",
        "0x" + encode(["address"], [payer.address]).hex(),
        "0x" + nonce.hex(),
    ]
    assert used["data"] == "0x"
    assert int(moved["data"], 16) == 10_000
    assert chain.read("authorizationState(address,bytes32)", payer.address, nonce, returns="bool")
    for again in OVERLOADS:
        refused = chain.refusal(*payment.call(again), sender=sender.address)
        assert refused == "FiatTokenV2: authorization is used or canceled"


@pytest.mark.parametrize("which", OVERLOADS)
def test_only_the_payee_receives(chain: Any, account: Callable[[], LocalAccount], which: str) -> None:
    payer, payee, thief = chain.funded(usdc=1), account(), account()
    payment = Payment(chain, payer, payee.address, "Receive")
    assert chain.refusal(*payment.call(which), sender=thief.address) == "FiatTokenV2: caller must be the payee"


@pytest.mark.parametrize("which", OVERLOADS)
def test_cancelled_authorisation_pays_nothing(chain: Any, account: Callable[[], LocalAccount], which: str) -> None:
    payer, payee, anybody = chain.funded(usdc=1), account(), chain.funded(eth=1)
    payment = Payment(chain, payer, payee.address)
    nonce = payment.message["nonce"]
    cancellation = {"authorizer": payer.address, "nonce": nonce}
    signature = bytes(chain.typed_signature(payer, "CancelAuthorization", cancellation).signature)
    name, end = overload("cancelAuthorization", "address,bytes32", which, signature)
    forged = bytes(chain.typed_signature(anybody, "CancelAuthorization", cancellation).signature)
    _, forged_end = overload("cancelAuthorization", "address,bytes32", which, forged)
    assert chain.refusal(name, payer.address, nonce, *forged_end) == "FiatTokenV2: invalid signature"
    [log] = chain.transact(anybody, name, payer.address, nonce, *end)["logs"]
    assert log["topics"][0] == "0x" + keccak(text="AuthorizationCanceled(address,bytes32)").hex()
    assert chain.read("authorizationState(address,bytes32)", payer.address, nonce, returns="bool")
    assert chain.refusal(*payment.call()) == "FiatTokenV2: authorization is used or canceled"
    assert chain.refusal(name, payer.address, nonce, *end) == "FiatTokenV2: authorization is used or canceled"


@pytest.mark.parametrize("which", OVERLOADS)
def test_what_was_signed_is_what_counts(chain: Any, account: Callable[[], LocalAccount], which: str) -> None:
    payer, payee, other = chain.funded(usdc=1), account(), account()
    payment = Payment(chain, payer, payee.address)
    changes: list[dict[str, Any]] = [
        {"to": other.address},
        {"from": other.address},
        {"value": 10_001},
        {"validAfter": 1},
        {"validBefore": FAR_FUTURE + 1},
        {"nonce": bytes(32)},
    ]
    for change in changes:
        assert chain.refusal(*payment.call(which, **change)) == "FiatTokenV2: invalid signature"
    for domain in ({"name": "USD Coin"}, {"version": "1"}, {"chainId": 1}, {"verifyingContract": other.address}):
        foreign = Payment(chain, payer, payee.address, domain=domain)
        assert chain.refusal(*foreign.call(which)) == "FiatTokenV2: invalid signature"
    # The other struct of the same fields is another promise.
    mixed = Payment(chain, payer, payee.address, "Receive")
    mixed.name = "transferWithAuthorization"
    assert chain.refusal(*mixed.call(which)) == "FiatTokenV2: invalid signature"


@pytest.mark.parametrize("which", OVERLOADS)
def test_validity_window_is_open_at_both_ends(chain: Any, account: Callable[[], LocalAccount], which: str) -> None:
    payer, payee = chain.funded(usdc=1), account()
    now = chain.devnet.timestamp()
    early = Payment(chain, payer, payee.address, validAfter=now)
    assert chain.refusal(*early.call(which)) == "FiatTokenV2: authorization is not yet valid"
    late = Payment(chain, payer, payee.address, validBefore=now)
    assert chain.refusal(*late.call(which)) == "FiatTokenV2: authorization is expired"
    inside = Payment(chain, payer, payee.address, validAfter=now - 1, validBefore=now + 1)
    name, *values = inside.call(which)
    assert chain.rpc("eth_call", {"to": chain.usdc, "data": pack_call(name, values)}, "latest") == "0x"


def pack_call(name: str, values: list[Any]) -> str:
    types = name[name.index("(") + 1 : -1].split(",")
    return "0x" + (keccak(text=name)[:4] + encode(types, values)).hex()


@pytest.mark.parametrize("which", OVERLOADS)
def test_malleable_and_malformed_signatures(chain: Any, account: Callable[[], LocalAccount], which: str) -> None:
    payer, payee = chain.funded(usdc=1), account()
    payment = Payment(chain, payer, payee.address)
    v, r, s = split(payment.signature)
    high = r + (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big") + bytes([55 - v])
    assert chain.refusal(*payment.call(which, high)) == "ECRecover: invalid signature 's' value"
    assert chain.refusal(*payment.call(which, r + s + bytes([v - 27]))) == "ECRecover: invalid signature 'v' value"
    assert chain.refusal(*payment.call(which, bytes(32) + s + bytes([v]))) == "ECRecover: invalid signature"
    if which == "bytes":
        for wrong in (payment.signature[:64], payment.signature + b"\0"):
            assert chain.refusal(*payment.call(which, wrong)) == "ECRecover: invalid signature length"


def test_payer_with_too_little(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payer, payee = chain.funded(usdc="0.009999"), account()
    payment = Payment(chain, payer, payee.address)
    assert chain.refusal(*payment.call()) == "ERC20: transfer amount exceeds balance"


def test_contract_wallet_pays_by_eip_1271(chain: Any, account: Callable[[], LocalAccount]) -> None:
    owner, payee, deployer = account(), account(), chain.funded(eth=1)
    artefact = load_contract("Wallet")
    code = bytes.fromhex(artefact.init_code[2:]) + encode(["address"], [owner.address])
    wallet = chain.deploy(deployer, code)
    chain.devnet.faucet(wallet, usdc=1)
    payment = Payment(chain, owner, payee.address, payer_address=wallet)
    stranger = Payment(chain, deployer, payee.address, payer_address=wallet)
    for which in OVERLOADS:
        assert chain.refusal(*stranger.call(which)) == "FiatTokenV2: invalid signature"
    assert chain.refusal(*payment.call("bytes", b"\1" * 300)) == "FiatTokenV2: invalid signature"
    chain.transact(deployer, *payment.call("bytes"))
    assert (chain.balance(wallet), chain.balance(payee)) == (990_000, 10_000)
    # A contract that knows nothing of EIP-1271 pays nothing, whoever signs.
    silent = Payment(chain, owner, payee.address, payer_address=chain.devnet.multicall3)
    assert chain.refusal(*silent.call("bytes")) == "FiatTokenV2: invalid signature"


@pytest.mark.parametrize("which", OVERLOADS)
def test_permit(chain: Any, account: Callable[[], LocalAccount], which: str) -> None:
    payer, spender, anybody = account(), account(), chain.funded(eth=1)
    message = {"owner": payer.address, "spender": spender.address, "value": 77, "nonce": 0, "deadline": 2**256 - 1}
    signature = bytes(chain.typed_signature(payer, "Permit", message).signature)
    name, end = overload("permit", "address,address,uint256,uint256", which, signature)
    words = (payer.address, spender.address, 77, 2**256 - 1)
    chain.transact(anybody, name, *words, *end)
    assert chain.read("allowance(address,address)", payer.address, spender.address) == 77
    assert chain.read("nonces(address)", payer.address) == 1
    assert chain.refusal(name, *words, *end) == "EIP2612: invalid signature"
    expired = (payer.address, spender.address, 77, chain.devnet.timestamp() - 1)
    assert chain.refusal(name, *expired, *end) == "FiatTokenV2: permit is expired"


def test_pause_stops_all_that_moves(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payer, payee = chain.funded(usdc=1, eth=1), account()
    chain.transact(chain.owner, "pause()")
    payment = Payment(chain, payer, payee.address)
    calls: list[tuple[Any, ...]] = [
        *(payment.call(which) for which in OVERLOADS),
        ("transfer(address,uint256)", payee.address, 1),
        ("transferFrom(address,address,uint256)", payer.address, payee.address, 1),
        ("approve(address,uint256)", payee.address, 1),
        ("cancelAuthorization(address,bytes32,bytes)", payer.address, bytes(32), bytes(65)),
        (f"permit(address,address,uint256,uint256{VRS})", payer.address, payee.address, 1, 0, 27, bytes(32), bytes(32)),
        ("mint(address,uint256)", payee.address, 1),
    ]
    for call in calls:
        assert chain.refusal(*call, sender=payer.address) == "Pausable: paused"
    chain.transact(chain.owner, "unpause()")
    chain.transact(payer, *payment.call())


def test_blocked_accounts_neither_pay_nor_are_paid(chain: Any, account: Callable[[], LocalAccount]) -> None:
    payer, payee, anybody = chain.funded(usdc=1, eth=1), account(), account()
    payment = Payment(chain, payer, payee.address)
    for blocked in (payer, payee):
        chain.transact(chain.owner, "blacklist(address)", blocked.address)
        assert chain.read("isBlacklisted(address)", blocked.address, returns="bool")
        for which in OVERLOADS:
            assert chain.refusal(*payment.call(which)) == "Blacklistable: account is blacklisted"
        refused = chain.refusal("transfer(address,uint256)", payee.address, 1, sender=payer.address)
        assert refused == "Blacklistable: account is blacklisted"
        chain.transact(chain.owner, "unBlacklist(address)", blocked.address)
    # The token blocks itself, so that nobody loses money by paying it.
    refused = chain.refusal("transfer(address,uint256)", chain.usdc, 1, sender=payer.address)
    assert refused == "Blacklistable: account is blacklisted"
    chain.transact(payer, *payment.call())
    refused = chain.refusal("blacklist(address)", payer.address, sender=anybody.address)
    assert refused == "Blacklistable: caller is not the blacklister"


def test_only_the_owner_mints_burns_and_hands_over(chain: Any, account: Callable[[], LocalAccount]) -> None:
    somebody, successor = account(), chain.funded(eth=1)
    supply = chain.read("totalSupply()")
    mint = ("mint(address,uint256)", somebody.address, 5)
    assert chain.refusal(*mint, sender=somebody.address) == "FiatToken: caller is not a minter"
    assert chain.refusal("pause()", sender=somebody.address) == "Pausable: caller is not the pauser"
    handover = ("transferOwnership(address)", successor.address)
    assert chain.refusal(*handover, sender=somebody.address) == "Ownable: caller is not the owner"
    chain.transact(chain.owner, *handover)
    chain.transact(successor, "mint(address,uint256)", successor.address, 50)
    assert chain.read("totalSupply()") == supply + 50
    chain.transact(successor, "burn(uint256)", 20)
    assert (chain.read("totalSupply()"), chain.balance(successor)) == (supply + 30, 30)
    assert chain.refusal("burn(uint256)", 31, sender=successor.address) == "FiatToken: burn amount exceeds balance"


def test_unknown_and_short_calls_revert(chain: Any) -> None:
    whole = "0x" + keccak(text=f"transferWithAuthorization({ARGUMENTS}{VRS})")[:4].hex()
    for data in ("0x", "0x12", "0xdeadbeef", whole, whole + "00" * 287):
        with pytest.raises(Exception, match="revert"):
            chain.rpc("eth_call", {"to": chain.usdc, "data": data}, "latest")


def test_accounts_of_the_devnet_are_those_of_their_keys(chain: Any) -> None:
    for address, key in (*chain.devnet.accounts, chain.devnet.owner):
        assert Account.from_key(key).address == address
