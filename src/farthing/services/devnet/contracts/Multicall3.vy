# pragma version 0.4.3
# pragma evm-version cancun
"""
@title  Multicall3 of the devnet: many calls in one, with the functions and selectors of the contract that stands at
        0xcA11bde05977b3631167028862bE2a173976CA11 on public chains
@dev    Vyper's lists are bounded, where the original's are not: at most MAX_CALLS calls of MAX_CALLDATA bytes, answers
        cut after MAX_ANSWER bytes. Never grant it an allowance: anybody can call through it.
"""

struct Call:
    target: address
    callData: Bytes[MAX_CALLDATA]

struct Call3:
    target: address
    allowFailure: bool
    callData: Bytes[MAX_CALLDATA]

struct Call3Value:
    target: address
    allowFailure: bool
    amount: uint256
    callData: Bytes[MAX_CALLDATA]

struct Result:
    success: bool
    returnData: Bytes[MAX_ANSWER]

# Memory is laid out for the maximum and paid for by its square, so these are as small as payments allow: a hundred of
# them in one transaction, and a reason in words where one is refused.
MAX_CALLS: constant(uint256) = 100
MAX_CALLDATA: constant(uint256) = 1024
MAX_ANSWER: constant(uint256) = 256


@external
@payable
def aggregate(calls: DynArray[Call, MAX_CALLS]) -> (uint256, DynArray[Bytes[MAX_ANSWER], MAX_CALLS]):
    answers: DynArray[Bytes[MAX_ANSWER], MAX_CALLS] = []
    for call: Call in calls:
        result: Result = self._call(call.target, 0, call.callData)
        assert result.success, "Multicall3: call failed"
        answers.append(result.returnData)
    return block.number, answers


@external
@payable
def tryAggregate(requireSuccess: bool, calls: DynArray[Call, MAX_CALLS]) -> DynArray[Result, MAX_CALLS]:
    return self._try_aggregate(requireSuccess, calls)


@external
@payable
def tryBlockAndAggregate(
    requireSuccess: bool, calls: DynArray[Call, MAX_CALLS]
) -> (uint256, bytes32, DynArray[Result, MAX_CALLS]):
    # A block's own hash is not known inside it: the original answers zero as well.
    return block.number, empty(bytes32), self._try_aggregate(requireSuccess, calls)


@external
@payable
def blockAndAggregate(calls: DynArray[Call, MAX_CALLS]) -> (uint256, bytes32, DynArray[Result, MAX_CALLS]):
    return block.number, empty(bytes32), self._try_aggregate(True, calls)


@external
@payable
def aggregate3(calls: DynArray[Call3, MAX_CALLS]) -> DynArray[Result, MAX_CALLS]:
    # Not through _call, which copies: here the gas of each call counts.
    results: DynArray[Result, MAX_CALLS] = []
    for call: Call3 in calls:
        success: bool = False
        answer: Bytes[MAX_ANSWER] = b""
        success, answer = raw_call(call.target, call.callData, max_outsize=MAX_ANSWER, revert_on_failure=False)
        assert success or call.allowFailure, "Multicall3: call failed"
        results.append(Result(success=success, returnData=answer))
    return results


@external
@payable
def aggregate3Value(calls: DynArray[Call3Value, MAX_CALLS]) -> DynArray[Result, MAX_CALLS]:
    spent: uint256 = 0
    results: DynArray[Result, MAX_CALLS] = []
    for call: Call3Value in calls:
        spent += call.amount
        result: Result = self._call(call.target, call.amount, call.callData)
        assert result.success or call.allowFailure, "Multicall3: call failed"
        results.append(result)
    assert msg.value == spent, "Multicall3: value mismatch"
    return results


@external
@view
def getBlockHash(blockNumber: uint256) -> bytes32:
    return self._block_hash(blockNumber)


@external
@view
def getLastBlockHash() -> bytes32:
    return self._block_hash(block.number - 1)


@external
@view
def getBlockNumber() -> uint256:
    return block.number


@external
@view
def getCurrentBlockCoinbase() -> address:
    return block.coinbase


@external
@view
def getCurrentBlockDifficulty() -> uint256:
    return convert(block.prevrandao, uint256)


@external
@view
def getCurrentBlockGasLimit() -> uint256:
    return block.gaslimit


@external
@view
def getCurrentBlockTimestamp() -> uint256:
    return block.timestamp


@external
@view
def getEthBalance(addr: address) -> uint256:
    return addr.balance


@external
@view
def getBasefee() -> uint256:
    return block.basefee


@external
@view
def getChainId() -> uint256:
    return chain.id


@internal
@view
def _block_hash(number: uint256) -> bytes32:
    # Vyper's blockhash reverts out of its range, where the opcode answers zero.
    if number >= block.number or number + 256 < block.number:
        return empty(bytes32)
    return blockhash(number)


@internal
@payable
def _call(target: address, amount: uint256, data: Bytes[MAX_CALLDATA]) -> Result:
    success: bool = False
    answer: Bytes[MAX_ANSWER] = b""
    success, answer = raw_call(target, data, max_outsize=MAX_ANSWER, value=amount, revert_on_failure=False)
    return Result(success=success, returnData=answer)


@internal
@payable
def _try_aggregate(require_success: bool, calls: DynArray[Call, MAX_CALLS]) -> DynArray[Result, MAX_CALLS]:
    results: DynArray[Result, MAX_CALLS] = []
    for call: Call in calls:
        result: Result = self._call(call.target, 0, call.callData)
        assert result.success or not require_success, "Multicall3: call failed"
        results.append(result)
    return results
