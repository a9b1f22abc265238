"""Compiles the contracts: `python -m farthing.services.devnet.contracts` writes the artefacts that are checked in."""

from __future__ import annotations

import copy
import importlib
import sys
from typing import Any, Final, get_args

import msgspec

from farthing.services.devnet.contracts import FOLDER, Contract, ContractName

# Vyper keeps some of the standards' argument names for itself. Names are no part of a selector, so the ABI that people
# read and libraries use for named arguments takes the standards' back: (entry, our name) → standard's name.
_STANDARD_NAMES: Final = {
    ("Transfer", "sender"): "from",
    ("Transfer", "receiver"): "to",
    ("transferFrom", "owner"): "from",
    ("transferWithAuthorization", "owner"): "from",
    ("receiveWithAuthorization", "owner"): "from",
}
_AMOUNT_STAYS: Final = frozenset({"mint", "burn", "Mint", "Burn"})
_PACKED_SIGNATURE: Final = {"name": "signature", "type": "bytes"}
_SPLIT_SIGNATURE: Final = (
    {"name": "v", "type": "uint8"},
    {"name": "r", "type": "bytes32"},
    {"name": "s", "type": "bytes32"},
)


def compile_contract(name: ContractName) -> Contract:
    """Compile one contract. Raises `ImportError` without Vyper and Vyper's own errors for a source that is wrong."""
    # Vyper takes seconds to import, and is installed for tests only.
    vyper: Any = importlib.import_module("vyper")
    compiler: Any = importlib.import_module("vyper.compiler")

    path = FOLDER / f"{name}.vy"
    output: dict[str, Any] = compiler.compile_code(
        path.read_text(encoding="utf-8"),
        contract_path=path.name,
        output_formats=("abi", "bytecode", "bytecode_runtime", "layout"),
        no_bytecode_metadata=True,  # it holds a hash of the path
    )
    slots = output["layout"].get("storage_layout", {})
    return Contract(
        name=name,
        compiler=f"vyper {vyper.__version__.split('+')[0]}",
        abi=tuple(_standard_abi(output["abi"])),
        init_code=output["bytecode"],
        runtime_code=output["bytecode_runtime"],
        storage_slots={variable: place["slot"] for variable, place in slots.items()},
    )


def render(contract: Contract) -> bytes:
    """Return the artefact's file: JSON that a diff can be read in."""
    return msgspec.json.format(msgspec.json.encode(contract), indent=1) + b"\n"


def main() -> int:
    """Write every artefact."""
    for name in get_args(ContractName):
        contract = compile_contract(name)
        (FOLDER / f"{name}.json").write_bytes(render(contract))
        sys.stdout.write(f"{name}: {len(contract.runtime_code) // 2 - 1} bytes\n")
    return 0


def _standard_abi(abi: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the ABI the standards' names, and the overloads that `__default__` dispatches."""
    entries: list[dict[str, Any]] = []
    overloaded = False
    for original in abi:
        entry = copy.deepcopy(original)
        for argument in entry.get("inputs", ()):
            _rename(entry.get("name", ""), argument)
        entries.append(entry)
        inputs = entry.get("inputs", [])
        if inputs and {key: inputs[-1].get(key) for key in _PACKED_SIGNATURE} == _PACKED_SIGNATURE:
            if entry["name"] == "isValidSignature":
                continue
            overloaded = True
            entries.append({**entry, "inputs": [*inputs[:-1], *copy.deepcopy(_SPLIT_SIGNATURE)]})
    # Where `__default__` does nothing but dispatch, there is no fallback for a caller to use.
    return [entry for entry in entries if not (overloaded and entry["type"] == "fallback")]


def _rename(entry_name: str, argument: dict[str, Any]) -> None:
    name = argument["name"]
    if name == "amount" and entry_name not in _AMOUNT_STAYS:
        argument["name"] = "value"
    argument["name"] = _STANDARD_NAMES.get((entry_name, name), argument["name"])
    for component in argument.get("components", ()):
        _rename(entry_name, component)


if __name__ == "__main__":
    raise SystemExit(main())
