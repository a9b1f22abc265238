"""The checked-in artefacts: compiled again and compared, their selectors and hashes, Multicall3, and equal gas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
from eth_abi.abi import decode, encode
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from farthing.services.devnet import MULTICALL3_ADDRESS, Devnet
from farthing.services.devnet.contracts import FOLDER, ContractName, load_contract
from farthing.services.devnet.contracts.__main__ import compile_contract, render
from farthing.services.devnet.genesis import TOKEN_IMPLEMENTATION_ADDRESS

# Known from the standards and from the contracts on public chains.
TYPE_HASHES = {
    "TRANSFER_WITH_AUTHORIZATION_TYPEHASH()": "7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267",
    "RECEIVE_WITH_AUTHORIZATION_TYPEHASH()": "d099cc98ef71107a616c4f0f941f04c322d8e254fe26b3c6668db87aae413de8",
    "CANCEL_AUTHORIZATION_TYPEHASH()": "158b0a9edf7a828aad02f63cd515c68ef2f50ba807396f6d12842833a1597429",
    "PERMIT_TYPEHASH()": "6e71edae12b1b97f4d1f60370fef10105fa2faae0126114a169c64845d6126c9",
}
USDC_SELECTORS = {
    "a9059cbb", "23b872dd", "095ea7b3", "70a08231", "dd62ed3e", "18160ddd", "06fdde03", "95d89b41", "313ce567",
    "3644e515", "7ecebe00", "d505accf", "9fd5a6cf", "54fd4d50", "e94a0102", "e3ee160e", "cf092995", "ef55bec6",
    "88b7ab63", "5a049a70", "b7b72899", "8456cb59", "3f4ba83a", "5c975abb", "f9f92be4", "1a895266", "fe575a87",
    "40c10f19", "42966c68", "8da5cb5b",
}  # fmt: skip
MULTICALL3_SELECTORS = {
    "252dba42", "82ad56cb", "174dea71", "c3077fa9", "3e64a696", "ee82ac5e", "42cbb15c", "3408e470", "a8b0574e",
    "72425d9d", "86d516e8", "0f28c97d", "4d2301cc", "27e86d6e", "bce38bd7", "399542e9",
}  # fmt: skip


@pytest.mark.parametrize("name", get_args(ContractName))
def test_artefact_is_what_the_source_compiles_to(name: ContractName) -> None:
    assert render(compile_contract(name)) == (FOLDER / f"{name}.json").read_bytes()


def selectors(name: ContractName) -> set[str]:
    return {
        keccak(text=f"{entry['name']}({','.join(_type(each) for each in entry['inputs'])})")[:4].hex()
        for entry in load_contract(name).abi
        if entry["type"] == "function"
    }


def _type(argument: dict[str, Any]) -> str:
    if not argument["type"].startswith("tuple"):
        return str(argument["type"])
    inside = ",".join(_type(each) for each in argument["components"])
    return f"({inside}){argument['type'].removeprefix('tuple')}"


def test_selectors_are_those_of_the_public_contracts() -> None:
    assert selectors("USDC") >= USDC_SELECTORS
    assert selectors("Multicall3") == MULTICALL3_SELECTORS


def test_type_hashes_are_those_of_the_standards(chain: Any) -> None:
    for getter, expected in TYPE_HASHES.items():
        assert chain.read(getter, returns="bytes32").hex() == expected


def test_runtime_code_is_where_it_belongs(chain: Any) -> None:
    for name, address in (
        ("TokenProxy", chain.usdc),
        ("USDC", TOKEN_IMPLEMENTATION_ADDRESS),
        ("Multicall3", MULTICALL3_ADDRESS),
    ):
        assert chain.rpc("eth_getCode", address, "latest") == load_contract(name).runtime_code


def test_init_code_deploys_the_same_token(chain: Any, account: Callable[[], LocalAccount]) -> None:
    owner = chain.funded(eth=1)
    artefact = load_contract("USDC")
    code = bytes.fromhex(artefact.init_code[2:]) + encode(["address"], [owner.address])
    token = chain.send(owner, data=code, gas=5_000_000)["contractAddress"]
    assert chain.rpc("eth_getCode", token, "latest") == artefact.runtime_code
    chain.transact(owner, "mint(address,uint256)", owner.address, 12, to=token)
    assert chain.read("balanceOf(address)", owner.address, to=token) == 12


# Multicall3

CALL3 = "(address,bool,bytes)[]"
CALL3_VALUE = "(address,bool,uint256,bytes)[]"
RESULTS = "(bool,bytes)[]"


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def call_multicall(chain: Any, pack: Callable[..., str], signature: str, *values: Any, **fields: Any) -> bytes:
    request = {"to": MULTICALL3_ADDRESS, "data": pack(signature, *values), **fields}
    return bytes.fromhex(chain.rpc("eth_call", request, "latest")[2:])


def test_multicall_aggregates(chain: Any, pack: Callable[..., str]) -> None:
    holder = chain.devnet.accounts[0][0]
    balance = bytes.fromhex(pack("balanceOf(address)", holder)[2:])
    failing = bytes.fromhex(pack("transfer(address,uint256)", holder, 1)[2:])
    amount = word(chain.balance(holder))
    three = [(chain.usdc, False, balance), (chain.usdc, True, failing)]
    [results] = decode([RESULTS], call_multicall(chain, pack, f"aggregate3({CALL3})", three))
    assert results[0] == (True, amount)
    assert results[1][0] is False
    assert b"ERC20: transfer amount exceeds balance" in results[1][1]
    [results] = decode(
        [RESULTS],
        call_multicall(
            chain,
            pack,
            "tryAggregate(bool,(address,bytes)[])",
            *[False, [(chain.usdc, balance), (chain.usdc, failing)]],
        ),
    )
    assert [success for success, _ in results] == [True, False]
    number, answers = decode(
        ["uint256", "bytes[]"],
        call_multicall(chain, pack, "aggregate((address,bytes)[])", [(chain.usdc, balance)] * 3),
    )
    assert number == chain.devnet.block_number()
    assert list(answers) == [amount] * 3
    for name in ("tryBlockAndAggregate(bool,(address,bytes)[])", "blockAndAggregate((address,bytes)[])"):
        first = (True,) if name.startswith("try") else ()
        answer = call_multicall(chain, pack, name, *first, [(chain.usdc, balance)])
        number, _, results = decode(["uint256", "bytes32", RESULTS], answer)
        assert results == ((True, amount),)


def test_multicall_reverts_whole_where_a_call_may_not_fail(chain: Any, pack: Callable[..., str]) -> None:
    failing = bytes.fromhex(pack("transfer(address,uint256)", chain.usdc, 1)[2:])
    for call in (
        (f"aggregate3({CALL3})", [(chain.usdc, False, failing)]),
        ("tryAggregate(bool,(address,bytes)[])", True, [(chain.usdc, failing)]),
        ("aggregate((address,bytes)[])", [(chain.usdc, failing)]),
        ("blockAndAggregate((address,bytes)[])", [(chain.usdc, failing)]),
        (f"aggregate3Value({CALL3_VALUE})", [(chain.usdc, False, 0, failing)]),
    ):
        assert chain.refusal(*call, to=MULTICALL3_ADDRESS) == "Multicall3: call failed"


def test_multicall_passes_value_on(chain: Any, pack: Callable[..., str], account: Callable[[], LocalAccount]) -> None:
    sender, one, two = chain.funded(eth=1), account(), account()
    calls = [(one.address, False, 5, b""), (two.address, False, 7, b"")]
    data = pack(f"aggregate3Value({CALL3_VALUE})", calls)
    assert chain.send(sender, to=MULTICALL3_ADDRESS, data=data, value=12)["status"] == "0x1"
    assert [chain.devnet.eth_balance(each.address) for each in (one, two)] == [5, 7]
    assert chain.send(sender, to=MULTICALL3_ADDRESS, data=data, value=13)["status"] == "0x0"


def test_multicall_knows_the_block(chain: Any, pack: Callable[..., str]) -> None:
    chain.devnet.mine(2)
    whole = False
    block = chain.rpc("eth_getBlockByNumber", "latest", whole)

    def read(name: str, returns: str = "uint256") -> Any:
        return chain.read(name, returns=returns, to=MULTICALL3_ADDRESS)

    assert read("getBlockNumber()") == int(block["number"], 16)
    assert read("getCurrentBlockTimestamp()") == int(block["timestamp"], 16)
    assert read("getCurrentBlockGasLimit()") == int(block["gasLimit"], 16)
    assert read("getBasefee()") == int(block["baseFeePerGas"], 16)
    assert read("getChainId()") == chain.devnet.chain_id
    assert read("getCurrentBlockCoinbase()", "address") == block["miner"]
    assert read("getCurrentBlockDifficulty()") == int(block["mixHash"], 16)
    assert "0x" + read("getLastBlockHash()", "bytes32").hex() == block["parentHash"]
    holder = chain.devnet.accounts[0][0]
    balance = chain.read("getEthBalance(address)", holder, to=MULTICALL3_ADDRESS)
    assert balance == chain.devnet.eth_balance(holder)
    parent = int(block["number"], 16) - 1
    parent_hash = chain.read("getBlockHash(uint256)", parent, to=MULTICALL3_ADDRESS, returns="bytes32")
    assert "0x" + parent_hash.hex() == block["parentHash"]
    future = chain.read("getBlockHash(uint256)", parent + 2**200, to=MULTICALL3_ADDRESS, returns="bytes32")
    assert future == bytes(32)


# Gas: py-evm against anvil


def test_both_nodes_charge_the_same_gas(devnet_pyevm: Devnet, devnet_anvil: Devnet, request: Any) -> None:
    used = [_gas_of_payments(request, node) for node in (devnet_pyevm, devnet_anvil)]
    assert used[0] == used[1]
    assert all(gas < 100_000 for gas in used[0][:2])


def _gas_of_payments(request: Any, devnet: Devnet) -> list[int]:
    """The gas of both overloads, a second payment to the same payee, a plain transfer and a multicall."""
    chain = request.getfixturevalue("chain_type")(devnet)
    pack = request.getfixturevalue("pack")
    payer, payee, sender = (chain.named(f"gas {role}") for role in ("payer", "payee", "sender"))
    with devnet.rewound():
        devnet.faucet(payer.address, usdc=5, eth=1)
        devnet.faucet(sender.address, eth=1)
        receipts = []
        calls = []
        for index in range(4):
            nonce = keccak(text=f"gas {index}")
            message = {"from": payer.address, "to": payee.address, "value": 10_000}
            message |= {"validAfter": 0, "validBefore": 2**40, "nonce": nonce}
            signed = chain.typed_signature(payer, "TransferWithAuthorization", message)
            signature = bytes(signed.signature)
            arguments = "address,address,uint256,uint256,uint256,bytes32"
            values = (payer.address, payee.address, 10_000, 0, 2**40, nonce)
            if index % 2:
                call = pack(f"transferWithAuthorization({arguments},bytes)", *values, signature)
            else:
                vrs = (signature[64], signature[:32], signature[32:64])
                call = pack(f"transferWithAuthorization({arguments},uint8,bytes32,bytes32)", *values, *vrs)
            calls.append(call)
        receipts += [chain.send(sender, to=chain.usdc, data=call) for call in calls[:2]]
        joined = [(chain.usdc, False, bytes.fromhex(call[2:])) for call in calls[2:]]
        receipts.append(chain.send(sender, to=MULTICALL3_ADDRESS, data=pack(f"aggregate3({CALL3})", joined)))
        receipts.append(chain.send(sender, to=payee.address, value=1))
        receipts.append(chain.send(sender, to=chain.usdc, data=calls[0]))  # used already: reverts
        assert [each["status"] for each in receipts] == ["0x1"] * 4 + ["0x0"]
        return [int(each["gasUsed"], 16) for each in receipts]
