"""Does orders in processes of their own, to be killed: a process that forks for each, and whoever gives the orders.

An order is a line of JSON. It is answered by two: `{"pid": …}`, said before the work ends, so that whoever misbehaves
on cue knows whom to kill, and `{"exit": …, "said": …}`, a signal as a negative number. An order with
`kill_after_seconds` has the second alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = -signal.SIGKILL


def serve(do: Callable[[dict[str, Any]], str]) -> None:
    """Do orders until there are no more; what is imported by now is in every process that is forked."""
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.environ["FARTHING_CRASH_AT"] = order.get("crash_at", "")
            os.write(writing, do(order).encode())
            os._exit(0)
        os.close(writing)
        if order.get("kill_after_seconds") is not None:
            time.sleep(order["kill_after_seconds"])
            os.kill(pid, signal.SIGKILL)
        else:
            _say({"pid": pid})
        said = os.read(reading, 4096).decode()
        _, status = os.waitpid(pid, 0)
        os.close(reading)
        _say({"exit": os.waitstatus_to_exitcode(status), "said": said})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Forking:
    """A script that serves orders, running. `pid` is that of the order that is being done."""

    def __init__(self, script: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = 0

    def order(self, facts: dict[str, Any]) -> Any:
        """Have a process do an order; how it ended."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(facts) + "\n")
        self.process.stdin.flush()
        if "kill_after_seconds" not in facts:
            self.pid = json.loads(self.process.stdout.readline())["pid"]
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
