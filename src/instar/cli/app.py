"""The frame of the command line: what every command shares. Commands themselves live in the modules that it names.

Exit codes: 0 done, 1 a defect of instar's own, 2 to 6 the families of :mod:`instar.errors` (2 also for arguments that
cannot be understood), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Final

import typer
from typer.main import get_command

from instar.cli import atomupd, device, output, publisher
from instar.cli.stopping import INTERRUPTED
from instar.errors import InstarError

__all__ = ["app", "run"]

_DEFECT: Final = 1

# Which extra brings a package that a command turned out to need.
_EXTRAS: Final = {
    "fastcdc": "publish",
    "hdiffpatch": "publish",
    "numpy": "publish",
    "pyfastcdc": "publish",
    "granian": "server",
    "starlette": "server",
}

app = typer.Typer(
    name="instar",
    help="Signed, small, atomic, self-healing updates for apps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # the shape that typer calls
    if wanted:
        try:
            output.say(f"instar {version('instar')}")
        except PackageNotFoundError:
            output.say("instar (not installed, run from its sources)")
        raise typer.Exit


@app.callback()
def _instar(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the program an error came from.")] = False,
    home: Annotated[Path, typer.Option("-C", metavar="DIR", help="The publisher's folder, with instar.toml.")] = Path(),
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    output.settings.debug = debug or bool(os.environ.get("INSTAR_DEBUG"))
    output.settings.home = home


for _commands in (publisher, device, atomupd):
    _commands.register(app)


def run(arguments: Sequence[str], *, program: typer.Typer = app) -> int:
    """Run one command.

    Args:
        arguments: what stands behind the program's name.
        program: the commands that there are.

    Returns:
        The exit code. Nothing escapes: what went wrong has been said on the standard error.

    """
    output.settings.debug = bool(os.environ.get("INSTAR_DEBUG"))
    try:
        get_command(program).main(args=list(arguments), prog_name="instar", standalone_mode=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else _DEFECT
        if code == INTERRUPTED:  # typer catches Ctrl-C, and says nothing
            output.complain("stopped.")
        return code
    except KeyboardInterrupt:
        output.complain("stopped.")
        return INTERRUPTED
    except InstarError as error:
        output.complain(error.message, hint=error.hint)
        _trace()
        return error.exit_code
    except ModuleNotFoundError as error:
        return _missing(error)
    except Exception as error:  # noqa: BLE001  # the last door: a person gets a sentence, not a stack
        output.complain(f"an unexpected error, {type(error).__name__}: {error}", hint="Run it again with --debug.")
        _trace()
        return _DEFECT
    return 0


def _missing(error: ModuleNotFoundError) -> int:
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    _trace()
    if extra is None:
        output.complain(f"an unexpected error: {error}", hint="Run it again with --debug.")
        return _DEFECT
    output.complain(
        f"this command needs the package {error.name!r}.",
        hint=f"Install it with: pip install 'instar[{extra}]'",
    )
    return 2


def _trace() -> None:
    if output.settings.debug:
        sys.stderr.write(traceback.format_exc())
