"""The frame of the command line: exit codes, what is said on which stream, and nothing that escapes."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import typer

from instar.cli.app import run
from instar.errors import (
    Busy,
    Cancelled,
    Conflict,
    Expired,
    InstallFailed,
    InstarError,
    Misconfigured,
    NotFound,
    Unavailable,
    Untrusted,
)


def program_that(does: Callable[[], object]) -> typer.Typer:
    program = typer.Typer()

    @program.command()
    def command() -> None:
        does()

    return program


def raising(error: BaseException) -> typer.Typer:
    def fail() -> None:
        raise error

    return program_that(fail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InstarError("x."), 1),
        (Misconfigured("x."), 2),
        (Untrusted("x."), 3),
        (Expired("x.", since=datetime.now(UTC)), 3),
        (Unavailable("x."), 4),
        (NotFound("x."), 4),
        (Cancelled("x."), 4),
        (InstallFailed("x."), 5),
        (Busy("x."), 6),
        (Conflict("x."), 6),
    ],
)
def test_each_family_of_errors_has_its_code(error: InstarError, code: int) -> None:
    assert run([], program=raising(error)) == code


def test_an_error_is_said_on_the_standard_error_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    run([], program=raising(Misconfigured("The thing [bold]is[/bold] missing.", hint="Make it.")))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "instar: The thing [bold]is[/bold] missing.\n        Make it.\n")


def test_ctrl_c_ends_with_130_and_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], program=raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "instar: stopped.\n"


def test_a_defect_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], program=raising(ZeroDivisionError("by zero"))) == 1
    said = capsys.readouterr().err
    assert said.startswith("instar: an unexpected error, ZeroDivisionError: by zero")
    assert "--debug" in said
    assert "Traceback" not in said


def test_with_the_variable_a_defect_shows_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAR_DEBUG", "1")
    run([], program=raising(ZeroDivisionError("by zero")))
    assert "in fail" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "extra"), [("numpy", "publish"), ("granian.constants", "server")])
def test_a_missing_package_names_the_extra_that_brings_it(
    capsys: pytest.CaptureFixture[str], module: str, extra: str
) -> None:
    assert run([], program=raising(ModuleNotFoundError("No module", name=module))) == 2
    assert f"pip install 'instar[{extra}]'" in capsys.readouterr().err


def test_a_missing_module_of_instars_own_is_a_defect() -> None:
    assert run([], program=raising(ModuleNotFoundError("No module", name="instar.nothing"))) == 1


def test_without_the_extra_the_program_says_how_to_get_it() -> None:
    code = "import sys\nsys.modules['typer'] = None\nimport instar.cli\ninstar.cli.main()\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "pip install 'instar[cli]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["--help"], 0), (["release", "--help"], 0), (["nonsense"], 2), (["release"], 2), ([], 2)],
)
def test_help_is_no_error_and_nonsense_is_one(arguments: list[str], code: int) -> None:
    assert run(arguments) == code


PUBLISHERS = "init release promote rollout halt resume yank list show verify refresh serve floor prune rotate"
DEVICES = "install adopt check update status confirm rollback repair uninstall"


@pytest.mark.parametrize("commands", [PUBLISHERS, DEVICES])
def test_every_command_is_there(capsys: pytest.CaptureFixture[str], commands: str) -> None:
    run(["--help"])
    shown = capsys.readouterr().out
    assert [command for command in commands.split() if f" {command} " not in shown] == []


def test_starting_the_program_loads_nothing_of_the_publishers_half() -> None:
    code = "import sys, instar.cli.app; print(*(n for n in ('numpy', 'hdiffpatch', 'granian') if n in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_a_server_that_only_promotes_and_halts_needs_no_numpy() -> None:
    code = "import sys, instar.publish; print(*(n for n in ('numpy', 'hdiffpatch', 'pyfastcdc') if n in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
