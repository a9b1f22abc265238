"""`python -m bench [NAME …] [--json]`: run the benches named, or all, and print a line for each figure.

`python -m bench soak [--help]` is apart: minutes of load, with options of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from bench import machine

# Name on the command line, and the module whose `run()` gives the figures.
BENCHES = {
    "verify_cpu": "bench.verify_cpu",
    "sign_cpu": "bench.sign_cpu",
    "signature_verify": "bench.signature_verify",
    "http_open": "bench.http_open",
    "http_unpaid": "bench.http_unpaid",
    "http_paid": "bench.http_paid",
    "http_paid_verified": "bench.http_paid_verified",
    "commitment": "bench.commitment",
    "settle": "bench.settle",
    "joined_gas": "bench.joined_gas",
    "import": "bench.importing",
    "hostile": "bench.hostile",
    "clearing_ingest": "bench.clearing_ingest",
    "close": "bench.clearing_close",
}


def main(arguments: list[str]) -> int:
    """Run; 0 if every target is met, 1 if one is missed."""
    if arguments[:1] == ["soak"]:  # it takes minutes and options of its own
        from bench import soak  # noqa: PLC0415 - only who asks for it pays for its import

        return soak.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, and nothing else")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    # With --json the machine goes to the other stream, so that every line of this one is a figure.
    beside = sys.stderr if options.json else sys.stdout
    print(machine.to_text(), file=beside, flush=True)
    missed = False
    for name in options.names or BENCHES:
        for figure in importlib.import_module(BENCHES[name]).run():
            missed = missed or figure.met is False
            print(json.dumps(figure.to_json()) if options.json else figure.to_text(), flush=True)
            for note in figure.notes:
                print(f"  {note}", file=beside, flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
