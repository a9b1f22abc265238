"""The reason codes of `exact` on EVM: strings that other people's programs compare.

Those of the specification (`x402-specification-v2.md`, section 9) where it has one; else those that the official
packages send (PyPI `x402` 2.25.0, `mechanisms/evm/constants.py` and `http/types.py`).
"""

from __future__ import annotations

from typing import Final

# Section 9 of the specification.
INSUFFICIENT_FUNDS: Final = "insufficient_funds"
INVALID_NETWORK: Final = "invalid_network"
INVALID_PAYMENT_REQUIREMENTS: Final = "invalid_payment_requirements"
UNSUPPORTED_SCHEME: Final = "unsupported_scheme"
RECIPIENT_MISMATCH: Final = "invalid_exact_evm_payload_recipient_mismatch"
SIGNATURE: Final = "invalid_exact_evm_payload_signature"
VALID_AFTER: Final = "invalid_exact_evm_payload_authorization_valid_after"
VALID_BEFORE: Final = "invalid_exact_evm_payload_authorization_valid_before"
VALUE_MISMATCH: Final = "invalid_exact_evm_payload_authorization_value_mismatch"

# The packages' additions.
ASSET_NOT_DEPLOYED: Final = "asset_not_deployed_contract"
EIP3009_NOT_SUPPORTED: Final = "invalid_exact_evm_eip3009_not_supported"
FACTORY_NOT_ALLOWED: Final = "eip6492_factory_not_allowed"
MISSING_EIP712_DOMAIN: Final = "missing_eip712_domain"
NETWORK_MISMATCH: Final = "network_mismatch"
NONCE_ALREADY_USED: Final = "invalid_exact_evm_nonce_already_used"
SIMULATION_FAILED: Final = "invalid_exact_evm_transaction_simulation_failed"
SMART_WALLET_DEPLOYMENT_FAILED: Final = "smart_wallet_deployment_failed"
TOKEN_NAME_MISMATCH: Final = "invalid_exact_evm_token_name_mismatch"  # noqa: S105 - a code, no secret
TOKEN_VERSION_MISMATCH: Final = "invalid_exact_evm_token_version_mismatch"  # noqa: S105 - likewise
UNDEPLOYED_SMART_WALLET: Final = "invalid_exact_evm_payload_undeployed_smart_wallet"
UNSUPPORTED_TRANSFER_METHOD: Final = "unsupported_asset_transfer_method"
