"""The command `farthing`, also as `python -m farthing`."""

import sys


def main() -> None:
    """Run the command, or say what it needs."""
    try:
        from farthing.cli import main as run  # noqa: PLC0415 - a library's users may not have installed its parts
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("farthing: the command needs typer; install it with: pip install 'farthing[cli]'")
    run()


if __name__ == "__main__":
    main()
