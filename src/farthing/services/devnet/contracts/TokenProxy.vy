# pragma version 0.4.3
# pragma evm-version cancun
"""
@title  What stands at the token's address: a proxy, as the token of public chains is one
@notice Every call is the implementation's, run on this contract's storage. The devnet's is never upgraded.
@dev    The gas of a payment is the point: a slot and an account more to be warmed, once in a transaction. Answers are cut
        after MAX_ANSWER bytes; the token's longest is a name of three words.
"""

MAX_ANSWER: constant(uint256) = 128

# The implementation's own variables come first, so that this one stands far behind them.
_theirs: uint256[2**32]
implementation: address


@external
@payable
@raw_return
def __default__() -> Bytes[MAX_ANSWER]:
    return raw_call(self.implementation, msg.data, max_outsize=MAX_ANSWER, is_delegate_call=True)
