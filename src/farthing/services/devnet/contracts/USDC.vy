# pragma version 0.4.3
# pragma evm-version cancun
"""
@title  USDC of the devnet: a 6-decimal dollar token, written from the standards
@notice EIP-20, EIP-712, EIP-2612, EIP-3009 and EIP-1271 payers, with pause and block-list. It behaves, and refuses with
        the same words, as the token that x402 payments use on public chains, so that a facilitator can't tell them apart.
@dev    Vyper has no overloads: the `bytes signature` functions are declared by name, their `(v, r, s)` twins are
        dispatched by selector in `__default__` (their arguments have a fixed length, which raw slices need).
        Nothing is immutable and the domain is computed when asked, so that the runtime code can stand at any address
        and on any chain id, placed there by a genesis file. All roles (minter, pauser, block-lister) are the owner's.
"""

event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    value: uint256

event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256

event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

event AuthorizationCanceled:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

event Mint:
    minter: indexed(address)
    to: indexed(address)
    amount: uint256

event Burn:
    burner: indexed(address)
    amount: uint256

event Pause: pass
event Unpause: pass

event Blacklisted:
    account: indexed(address)

event UnBlacklisted:
    account: indexed(address)

event OwnershipTransferred:
    previousOwner: address
    newOwner: address

name: public(constant(String[4])) = "USDC"
symbol: public(constant(String[4])) = "USDC"
currency: public(constant(String[3])) = "USD"
version: public(constant(String[1])) = "2"
decimals: public(constant(uint8)) = 6

DOMAIN_TYPEHASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
PERMIT_TYPEHASH: public(constant(bytes32)) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
TRANSFER_WITH_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
RECEIVE_WITH_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
CANCEL_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256(
    "CancelAuthorization(address authorizer,bytes32 nonce)"
)

# Half the order of secp256k1: a larger `s` is the malleable twin of a smaller one (EIP-2).
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
# isValidSignature(bytes32,bytes), left-aligned in a word: the answer that EIP-1271 asks for.
MAGIC_VALUE: constant(bytes32) = 0x1626ba7e00000000000000000000000000000000000000000000000000000000
# A contract wallet's signature may be long (WebAuthn, several owners). Memory is laid out for the maximum.
MAX_SIGNATURE: constant(uint256) = 2048

owner: public(address)
paused: public(bool)
totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])
authorizationState: public(HashMap[address, HashMap[bytes32, bool]])
isBlacklisted: public(HashMap[address, bool])


@deploy
def __init__(owner: address):
    self.owner = owner
    log OwnershipTransferred(previousOwner=empty(address), newOwner=owner)


# EIP-20

@external
def transfer(to: address, amount: uint256) -> bool:
    self._require_not_paused()
    self._require_not_blacklisted(msg.sender)
    self._require_not_blacklisted(to)
    self._transfer(msg.sender, to, amount)
    return True


# `from` and `value` are words of Vyper's: they are `owner` and `amount` here, and the build puts the standards' names into
# the ABI.
@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    self._require_not_paused()
    self._require_not_blacklisted(msg.sender)
    self._require_not_blacklisted(owner)
    self._require_not_blacklisted(to)
    allowed: uint256 = self.allowance[owner][msg.sender]
    assert amount <= allowed, "ERC20: transfer amount exceeds allowance"
    self._transfer(owner, to, amount)
    self.allowance[owner][msg.sender] = unsafe_sub(allowed, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    self._require_not_paused()
    self._approve(msg.sender, spender, amount)
    return True


@external
def increaseAllowance(spender: address, increment: uint256) -> bool:
    self._require_not_paused()
    self._approve(msg.sender, spender, self.allowance[msg.sender][spender] + increment)
    return True


@external
def decreaseAllowance(spender: address, decrement: uint256) -> bool:
    self._require_not_paused()
    allowed: uint256 = self.allowance[msg.sender][spender]
    assert decrement <= allowed, "ERC20: decreased allowance below zero"
    self._approve(msg.sender, spender, unsafe_sub(allowed, decrement))
    return True


# EIP-712 and EIP-2612

@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    return self._domain_separator()


@external
def permit(owner: address, spender: address, amount: uint256, deadline: uint256, signature: Bytes[MAX_SIGNATURE]):
    self._require_not_paused()
    self._permit(owner, spender, amount, deadline, signature)


# EIP-3009

@external
def transferWithAuthorization(
    owner: address, to: address, amount: uint256, validAfter: uint256, validBefore: uint256, nonce: bytes32,
    signature: Bytes[MAX_SIGNATURE],
):
    self._require_open(owner, to)
    self._transfer_with_authorization(
        TRANSFER_WITH_AUTHORIZATION_TYPEHASH, owner, to, amount, validAfter, validBefore, nonce, signature
    )


@external
def receiveWithAuthorization(
    owner: address, to: address, amount: uint256, validAfter: uint256, validBefore: uint256, nonce: bytes32,
    signature: Bytes[MAX_SIGNATURE],
):
    self._require_open(owner, to)
    self._receive_with_authorization(owner, to, amount, validAfter, validBefore, nonce, signature)


@external
def cancelAuthorization(authorizer: address, nonce: bytes32, signature: Bytes[MAX_SIGNATURE]):
    self._cancel_authorization(authorizer, nonce, signature)


@external
def __default__():
    # The overloads by (v, r, s). abi_decode refuses words that are no address or no uint8, as a declared argument would;
    # a call that is too short fails in slice.
    selector: bytes4 = empty(bytes4)
    if len(msg.data) >= 4:
        selector = convert(slice(msg.data, 0, 4), bytes4)
    if selector == method_id(
        "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
        output_type=bytes4,
    ):
        owner: address = empty(address)
        to: address = empty(address)
        amount: uint256 = 0
        valid_after: uint256 = 0
        valid_before: uint256 = 0
        nonce: bytes32 = empty(bytes32)
        v: uint8 = 0
        r: bytes32 = empty(bytes32)
        s: bytes32 = empty(bytes32)
        owner, to, amount, valid_after, valid_before, nonce, v, r, s = abi_decode(
            slice(msg.data, 4, 288),
            (address, address, uint256, uint256, uint256, bytes32, uint8, bytes32, bytes32),
        )
        self._require_open(owner, to)
        self._transfer_with_authorization(
            TRANSFER_WITH_AUTHORIZATION_TYPEHASH, owner, to, amount, valid_after, valid_before, nonce,
            self._packed(v, r, s),
        )
    elif selector == method_id(
        "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
        output_type=bytes4,
    ):
        owner: address = empty(address)
        to: address = empty(address)
        amount: uint256 = 0
        valid_after: uint256 = 0
        valid_before: uint256 = 0
        nonce: bytes32 = empty(bytes32)
        v: uint8 = 0
        r: bytes32 = empty(bytes32)
        s: bytes32 = empty(bytes32)
        owner, to, amount, valid_after, valid_before, nonce, v, r, s = abi_decode(
            slice(msg.data, 4, 288),
            (address, address, uint256, uint256, uint256, bytes32, uint8, bytes32, bytes32),
        )
        self._require_open(owner, to)
        self._receive_with_authorization(
            owner, to, amount, valid_after, valid_before, nonce, self._packed(v, r, s)
        )
    elif selector == method_id("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)", output_type=bytes4):
        owner: address = empty(address)
        nonce: bytes32 = empty(bytes32)
        v: uint8 = 0
        r: bytes32 = empty(bytes32)
        s: bytes32 = empty(bytes32)
        owner, nonce, v, r, s = abi_decode(slice(msg.data, 4, 160), (address, bytes32, uint8, bytes32, bytes32))
        self._cancel_authorization(owner, nonce, self._packed(v, r, s))
    elif selector == method_id(
        "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", output_type=bytes4
    ):
        owner: address = empty(address)
        spender: address = empty(address)
        amount: uint256 = 0
        deadline: uint256 = 0
        v: uint8 = 0
        r: bytes32 = empty(bytes32)
        s: bytes32 = empty(bytes32)
        owner, spender, amount, deadline, v, r, s = abi_decode(
            slice(msg.data, 4, 224), (address, address, uint256, uint256, uint8, bytes32, bytes32)
        )
        self._require_not_paused()
        self._permit(owner, spender, amount, deadline, self._packed(v, r, s))
    else:
        raise


# The owner's acts

@external
def mint(to: address, amount: uint256) -> bool:
    self._require_not_paused()
    assert msg.sender == self.owner, "FiatToken: caller is not a minter"
    self._require_not_blacklisted(to)
    assert to != empty(address), "FiatToken: mint to the zero address"
    assert amount > 0, "FiatToken: mint amount not greater than 0"
    self.totalSupply += amount
    self.balanceOf[to] = unsafe_add(self.balanceOf[to], amount)
    log Mint(minter=msg.sender, to=to, amount=amount)
    log Transfer(sender=empty(address), receiver=to, value=amount)
    return True


@external
def burn(amount: uint256):
    self._require_not_paused()
    assert msg.sender == self.owner, "FiatToken: caller is not a minter"
    assert amount > 0, "FiatToken: burn amount not greater than 0"
    assert amount <= self.balanceOf[msg.sender], "FiatToken: burn amount exceeds balance"
    self.totalSupply -= amount
    self.balanceOf[msg.sender] = unsafe_sub(self.balanceOf[msg.sender], amount)
    log Burn(burner=msg.sender, amount=amount)
    log Transfer(sender=msg.sender, receiver=empty(address), value=amount)


@external
def pause():
    assert msg.sender == self.owner, "Pausable: caller is not the pauser"
    self.paused = True
    log Pause()


@external
def unpause():
    assert msg.sender == self.owner, "Pausable: caller is not the pauser"
    self.paused = False
    log Unpause()


@external
def blacklist(account: address):
    assert msg.sender == self.owner, "Blacklistable: caller is not the blacklister"
    self.isBlacklisted[account] = True
    log Blacklisted(account=account)


@external
def unBlacklist(account: address):
    assert msg.sender == self.owner, "Blacklistable: caller is not the blacklister"
    self.isBlacklisted[account] = False
    log UnBlacklisted(account=account)


@external
def transferOwnership(newOwner: address):
    assert msg.sender == self.owner, "Ownable: caller is not the owner"
    assert newOwner != empty(address), "Ownable: new owner is the zero address"
    log OwnershipTransferred(previousOwner=self.owner, newOwner=newOwner)
    self.owner = newOwner


# The mechanics

@internal
@view
def _require_not_paused():
    assert not self.paused, "Pausable: paused"


@internal
@view
def _require_not_blacklisted(account: address):
    assert not self.isBlacklisted[account], "Blacklistable: account is blacklisted"


@internal
@view
def _require_open(owner: address, to: address):
    self._require_not_paused()
    self._require_not_blacklisted(owner)
    self._require_not_blacklisted(to)


@internal
def _transfer(owner: address, to: address, amount: uint256):
    assert owner != empty(address), "ERC20: transfer from the zero address"
    assert to != empty(address), "ERC20: transfer to the zero address"
    balance: uint256 = self.balanceOf[owner]
    assert amount <= balance, "ERC20: transfer amount exceeds balance"
    self.balanceOf[owner] = unsafe_sub(balance, amount)
    # The supply bounds every balance, so that the sum can't overflow.
    self.balanceOf[to] = unsafe_add(self.balanceOf[to], amount)
    log Transfer(sender=owner, receiver=to, value=amount)


@internal
def _approve(owner: address, spender: address, amount: uint256):
    assert owner != empty(address), "ERC20: approve from the zero address"
    assert spender != empty(address), "ERC20: approve to the zero address"
    self.allowance[owner][spender] = amount
    log Approval(owner=owner, spender=spender, value=amount)


@internal
@view
def _domain_separator() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPEHASH, keccak256(name), keccak256(version), chain.id, self))


@internal
@view
def _digest(struct_hash: bytes32) -> bytes32:
    return keccak256(concat(b"\x19\x01", self._domain_separator(), struct_hash))


@internal
@pure
def _packed(v: uint8, r: bytes32, s: bytes32) -> Bytes[MAX_SIGNATURE]:
    return concat(r, s, convert(v, bytes1))


@internal
@view
def _is_valid_signature(signer: address, digest: bytes32, signature: Bytes[MAX_SIGNATURE]) -> bool:
    # An account with code answers for itself (EIP-1271); that includes one that delegates its code (EIP-7702).
    if signer.is_contract:
        success: bool = False
        answer: Bytes[32] = b""
        success, answer = raw_call(
            signer,
            abi_encode(digest, signature, method_id=method_id("isValidSignature(bytes32,bytes)")),
            max_outsize=32,
            is_static_call=True,
            revert_on_failure=False,
        )
        return success and len(answer) == 32 and convert(answer, bytes32) == MAGIC_VALUE
    assert len(signature) == 65, "ECRecover: invalid signature length"
    r: bytes32 = extract32(signature, 0)
    s: bytes32 = extract32(signature, 32)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    assert convert(s, uint256) <= HALF_ORDER, "ECRecover: invalid signature 's' value"
    assert v == 27 or v == 28, "ECRecover: invalid signature 'v' value"
    recovered: address = ecrecover(digest, v, r, s)
    assert recovered != empty(address), "ECRecover: invalid signature"
    return recovered == signer


@internal
def _permit(owner: address, spender: address, amount: uint256, deadline: uint256, signature: Bytes[MAX_SIGNATURE]):
    # The largest deadline means none, as with the real one; no clock reaches it.
    assert block.timestamp <= deadline, "FiatTokenV2: permit is expired"
    nonce: uint256 = self.nonces[owner]
    self.nonces[owner] = unsafe_add(nonce, 1)
    digest: bytes32 = self._digest(keccak256(abi_encode(PERMIT_TYPEHASH, owner, spender, amount, nonce, deadline)))
    assert self._is_valid_signature(owner, digest, signature), "EIP2612: invalid signature"
    self._approve(owner, spender, amount)


@internal
def _receive_with_authorization(
    owner: address, to: address, amount: uint256, valid_after: uint256, valid_before: uint256, nonce: bytes32,
    signature: Bytes[MAX_SIGNATURE],
):
    # Only the payee may call: nobody can take the authorisation out of the payee's own transaction and send it first.
    assert to == msg.sender, "FiatTokenV2: caller must be the payee"
    self._transfer_with_authorization(
        RECEIVE_WITH_AUTHORIZATION_TYPEHASH, owner, to, amount, valid_after, valid_before, nonce, signature
    )


@internal
def _transfer_with_authorization(
    typehash: bytes32, owner: address, to: address, amount: uint256, valid_after: uint256, valid_before: uint256,
    nonce: bytes32, signature: Bytes[MAX_SIGNATURE],
):
    assert block.timestamp > valid_after, "FiatTokenV2: authorization is not yet valid"
    assert block.timestamp < valid_before, "FiatTokenV2: authorization is expired"
    assert not self.authorizationState[owner][nonce], "FiatTokenV2: authorization is used or canceled"
    digest: bytes32 = self._digest(
        keccak256(abi_encode(typehash, owner, to, amount, valid_after, valid_before, nonce))
    )
    assert self._is_valid_signature(owner, digest, signature), "FiatTokenV2: invalid signature"
    self.authorizationState[owner][nonce] = True
    log AuthorizationUsed(authorizer=owner, nonce=nonce)
    self._transfer(owner, to, amount)


@internal
def _cancel_authorization(authorizer: address, nonce: bytes32, signature: Bytes[MAX_SIGNATURE]):
    self._require_not_paused()
    assert not self.authorizationState[authorizer][nonce], "FiatTokenV2: authorization is used or canceled"
    digest: bytes32 = self._digest(keccak256(abi_encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce)))
    assert self._is_valid_signature(authorizer, digest, signature), "FiatTokenV2: invalid signature"
    self.authorizationState[authorizer][nonce] = True
    log AuthorizationCanceled(authorizer=authorizer, nonce=nonce)
