# pragma version 0.4.3
# pragma evm-version cancun
"""
@title  A contract wallet with one owner (EIP-1271), for tests of payers that have code
@notice A signature is good when the owner's key made it over the digest itself. `execute` lets the owner act through it.
        An account that delegates its code here (EIP-7702) has no owner but its own key.
"""

HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
MAGIC_VALUE: constant(bytes4) = 0x1626ba7e
REFUSED: constant(bytes4) = 0xffffffff
MAX_SIGNATURE: constant(uint256) = 2048
MAX_CALLDATA: constant(uint256) = 4096

owner: public(address)


@deploy
@payable
def __init__(owner: address):
    self.owner = owner


@external
@payable
def __default__():
    pass


@external
@view
def isValidSignature(hash: bytes32, signature: Bytes[MAX_SIGNATURE]) -> bytes4:
    if len(signature) != 65:
        return REFUSED
    s: bytes32 = extract32(signature, 32)
    if convert(s, uint256) > HALF_ORDER:
        return REFUSED
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    recovered: address = ecrecover(hash, v, extract32(signature, 0), s)
    if recovered == empty(address):
        return REFUSED
    if recovered == self.owner or recovered == self:
        return MAGIC_VALUE
    return REFUSED


@external
@payable
def execute(target: address, amount: uint256, data: Bytes[MAX_CALLDATA]):
    assert msg.sender == self.owner or msg.sender == self, "Wallet: caller is not the owner"
    raw_call(target, data, value=amount)
