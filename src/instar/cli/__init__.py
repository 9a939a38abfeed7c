"""The command line. The only floor that reads the environment, asks a person, prints and decides an exit code."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the ``instar`` program with the arguments of this process, and end the process."""
    try:
        from instar.cli.app import run  # noqa: PLC0415  # a device may have the library without what commands need
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        sys.stderr.write(
            f"instar: the command line needs the package {error.name!r}. Install it with: pip install 'instar[cli]'\n",
        )
        sys.exit(2)
    except KeyboardInterrupt:  # while the program itself was being loaded
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
