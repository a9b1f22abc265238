"""`python tests/fuzz/run.py [--seconds N] TARGET…`: fuzz for a bounded time; what escapes a reader is shown and kept.

With atheris (libFuzzer, guided by coverage) where it is installed, else with hypothesis' own search. The exit status is
0 where nothing escaped. An input that made something escape lies in the folder `--crashes`, and can be given back:

    python tests/fuzz/run.py --repeat crash-… exact_evm
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
# A reader that takes longer than this for what fits in a header is a way to keep a server busy.
SLOW_SECONDS = 5
INPUT_MAX_BYTES = 16_384
# What libFuzzer may use before it says that something leaks or grows.
MEMORY_MAX_MEGABYTES = 2_048


def has_atheris() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def fuzz_with_atheris(name: str, seconds: int, crashes: Path) -> int:
    """Run libFuzzer in a process of its own, since it ends the one that it runs in."""
    with tempfile.TemporaryDirectory(prefix="farthing-fuzz-") as folder:
        command = [sys.executable, str(Path(__file__)), "--child", name, folder, str(seconds), str(crashes)]
        return subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": str(HERE)}).returncode


def child(name: str, folder: str, seconds: str, crashes: str) -> None:
    """The process that fuzzes."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: PLC0415 - where it is installed

    with atheris.instrument_imports(include=["farthing"]):
        from targets import TARGETS  # noqa: PLC0415 - instrumented as it is imported

    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (Path(folder) / f"seed-{number}").write_bytes(seed)
    options = [
        sys.argv[0],
        folder,
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_MAX_BYTES}",
        f"-timeout={SLOW_SECONDS}",
        f"-rss_limit_mb={MEMORY_MAX_MEGABYTES}",
        f"-artifact_prefix={crashes}/",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup(options, target.read)
    atheris.Fuzz()


def fuzz_with_hypothesis(name: str, seconds: int, crashes: Path) -> int:
    """Search with what hypothesis draws: the seeds, mangled."""
    from hypothesis import HealthCheck, given, settings  # noqa: PLC0415 - either engine, not both
    from hypothesis import strategies as st  # noqa: PLC0415 - likewise
    from targets import TARGETS  # noqa: PLC0415 - likewise

    target = TARGETS[name]
    deadline, last, ran = time.monotonic() + seconds, b"", 0
    mangled = st.builds(
        lambda seed, start, length, piece: (
            seed[: start % (len(seed) + 1)] + piece + seed[start % (len(seed) + 1) + length :]
        ),
        st.sampled_from(target.seeds),
        st.integers(0, INPUT_MAX_BYTES),
        st.integers(0, 20),
        st.binary(max_size=12)
        | st.sampled_from([b"[" * 100, b"[" * 2_000, b'"', b"\\", b"1e999", b"null", b"\xff", b"\xed\xa0\x80"]),
    )

    @settings(max_examples=1_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mangled | st.binary(max_size=200))
    def once(data: bytes) -> None:
        nonlocal last, ran
        last, ran = data, ran + 1
        target.read(data)

    try:
        while time.monotonic() < deadline:
            once()
    except Exception:
        crash = crashes / f"crash-{name}"
        crash.write_bytes(last)
        print(f"{name}: {crash} made this escape:", file=sys.stderr)
        raise
    print(f"{name}: {ran} inputs, nothing escaped")
    return 0


def repeat(name: str, path: Path) -> None:
    """Give one input back to its reader."""
    from targets import TARGETS  # noqa: PLC0415 - as above

    TARGETS[name].read(path.read_bytes())
    print(f"{name}: {path} is read or refused in good order")


def main(arguments: list[str]) -> int:
    """Fuzz each target named, or all."""
    sys.path.insert(0, str(HERE))
    if arguments[:1] == ["--child"]:
        child(*arguments[1:])
        return 0
    parser = argparse.ArgumentParser(prog="python tests/fuzz/run.py", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--engine", choices=("atheris", "hypothesis"), help="atheris where it is installed")
    parser.add_argument("--crashes", type=Path, default=Path.cwd(), help="where inputs are kept that made one")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="give one input to the target, and nothing else")
    options = parser.parse_args(arguments)
    from targets import TARGETS  # noqa: PLC0415 - beside this file

    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target called {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    names = options.targets or list(TARGETS)
    if options.repeat is not None:
        for name in names:
            repeat(name, options.repeat)
        return 0
    engine = options.engine or ("atheris" if has_atheris() else "hypothesis")
    fuzz = fuzz_with_atheris if engine == "atheris" else fuzz_with_hypothesis
    return max(fuzz(name, options.seconds, options.crashes) for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
