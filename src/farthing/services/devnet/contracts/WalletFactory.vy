# pragma version 0.4.3
# pragma evm-version cancun
"""
@title  A factory of contract wallets at addresses that are known beforehand (CREATE2), for tests of ERC-6492
@notice Give it the wallet's init code, as a blueprint (ERC-5202). A wallet that is there already can't be made again.
"""

blueprint: public(address)


event Created:
    wallet: indexed(address)
    owner: indexed(address)


@deploy
def __init__(blueprint: address):
    self.blueprint = blueprint


@external
def create(owner: address, salt: bytes32) -> address:
    wallet: address = create_from_blueprint(self.blueprint, owner, salt=salt)
    log Created(wallet=wallet, owner=owner)
    return wallet
