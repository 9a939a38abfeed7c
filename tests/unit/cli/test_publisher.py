"""The publisher's commands, run inside this process: what they take, what they print, which code they end with."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from instar.cli.app import run
from instar.trust.keys import create_key
from tests.support.projects import bundle


@dataclass
class Shell:
    """A publisher in their project's folder."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run a command; give what it printed."""
        self.capture.readouterr()
        ended = run([str(argument) for argument in arguments])
        printed = self.capture.readouterr()
        assert ended == code, f"{arguments}: {ended}\n{printed.out}\n{printed.err}"
        return printed.err if code else printed.out

    def there(self, *arguments: object, code: int = 0) -> str:
        return self.run(*arguments, "-C", self.project, code=code)

    def json(self, *arguments: object) -> Any:
        return json.loads(self.there(*arguments, "--json"))

    def release(self, version: str, *options: object) -> str:
        tree = bundle(self.folder / f"bundle-{version}", version)
        return self.there("release", tree, "--version", version, "--effort", "fast", *options)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


@pytest.fixture
def founded(shell: Shell) -> Shell:
    shell.run("init", shell.project, "--product", "myapp", "--no-passphrase")
    return shell


def test_a_publishers_day(founded: Shell) -> None:
    (founded.folder / "notes.md").write_text("# New\n- all of it\n")
    founded.release("1.0.0")
    said = founded.release(
        "1.1.0", "--percent", 10, "--notes", founded.folder / "notes.md", "--meta", "commit=abc", "--only", "cpu=a,b"
    )
    assert "Released myapp 1.1.0 for" in said
    assert "in stable to 10 %" in said
    assert "50 %" in founded.there("rollout", "1.1.0", "--percent", 50)
    assert "of 100 %" in founded.there("rollout", "1.1.0", "--percent", 100, "--ramp", "2d")
    assert "Promoted 1.1.0" in founded.there("promote", "1.1.0", "--to", "beta")
    assert "halted" in founded.there("halt", "1.1.0")
    assert "Resumed" in founded.there("resume", "1.1.0", "--channel", "stable")
    assert "1.1.0" in founded.there("list")
    shown = founded.there("show", "1.1.0")
    assert "all of it" in shown
    assert "abc" in shown
    assert "yanked" in founded.there("yank", "1.1.0")
    assert "The security floor is 1.0.0" in founded.there("floor", "1.0.0")
    assert "Nothing had to be renewed" in founded.there("refresh")
    assert "The online key is" in founded.there("rotate", "online", "--no-passphrase")
    assert "Would remove 0" in founded.there("prune", "--dry-run")
    assert "Everything is as it was signed." in founded.there("verify")


def test_every_report_is_there_for_programs_too(founded: Shell) -> None:
    tree = bundle(founded.folder / "b")
    released = founded.json("release", tree, "--version", "1.0", "--platform", "linux-x86_64", "--effort", "fast")
    assert released["version"] == "1.0"
    assert released["size"] == sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    assert founded.json("promote", "1.0", "--to", "beta")[0]["channel"] == "beta"
    assert founded.json("rollout", "1.0", "--channel", "beta", "--percent", "2.5")[0]["target_percent"] == 2.5
    assert [row["state"] for row in founded.json("halt", "1.0")] == ["halted", "halted"]
    assert [row["state"] for row in founded.json("resume", "1.0")] == ["offered", "offered"]
    listed = founded.json("list")
    assert [row["version"] for row in listed["releases"]] == ["1.0"]
    assert [row["channel"] for row in listed["releases"][0]["channels"]] == ["beta", "stable"]
    assert founded.json("show", "1.0")["platforms"][0]["files"] == 3
    assert founded.json("floor", "1.0") == {"floor": "1.0", "before": None}
    assert founded.json("refresh", "--all")["renewed"][0] == "myapp"
    assert founded.json("prune")["objects"] == []
    assert founded.json("verify")["sound"] is True
    assert founded.json("yank", "1.0", "--channel", "beta")[0]["state"] == "yanked"
    assert founded.json("rotate", "owner", "--no-passphrase")["key"] == "owner"


def test_verify_ends_with_3_and_names_every_problem(founded: Shell) -> None:
    founded.release("1.0")
    pack = next((founded.project / "repository" / "packs").rglob("*.pack"))
    pack.write_bytes(pack.read_bytes()[:-1])
    founded.capture.readouterr()
    assert run(["verify", "-C", str(founded.project)]) == 3
    assert f"WRONG packs/{pack.parent.name}/{pack.name}" in founded.capture.readouterr().out
    assert run(["verify", "--json", "-C", str(founded.project)]) == 3
    assert json.loads(founded.capture.readouterr().out)["problems"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["release", "x", "--version", "one"], "not a version"),
        (["release", "x", "--version", "1", "--platform", "Win"], "cannot be a name"),
        (["release", "x", "--version", "1", "--channel", "a b"], "cannot be a name"),
        (["release", "x", "--version", "1", "--percent", "101"], "between 0 and 100"),
        (["release", "x", "--version", "1", "--percent", "nan"], "between 0 and 100"),
        (["release", "x", "--version", "1", "--ramp", "soon"], "no duration"),
        (["release", "x", "--version", "1", "--ramp", "0d"], "takes some time"),
        (["release", "x", "--version", "1", "--only", "cpu"], "--only is KEY=VALUE"),
        (["release", "x", "--version", "1", "--only", "cpu="], "values of it"),
        (["release", "x", "--version", "1", "--meta", "=b"], "--meta is KEY=VALUE"),
        (["release", "x", "--version", "1", "--effort", "most"], "'fast' or 'best'"),
        (["release", "x", "--version", "1", "--base-releases", "-1"], "0 to 64"),
        (["release", "x", "--version", "1", "--notes", "nowhere"], "notes nowhere cannot be read"),
        (["release", "x", "--version", "1"], "The folder x cannot be read"),
        (["rotate", "other"], "'owner' or 'online'"),
        (["show", "1.0"], "no release 1.0"),
        (["halt", "1.0"], "No channel has 1.0"),
        (["prune", "--keep", "0"], "At least one"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_2(founded: Shell, arguments: list[str], said: str) -> None:
    assert said in founded.there(*arguments, code=2)


def test_outside_a_project_commands_say_where_to_go(shell: Shell) -> None:
    assert "`instar init`" in shell.run("list", "-C", shell.folder, code=2)


def test_the_folder_can_be_named_before_the_command_too(founded: Shell) -> None:
    assert "No releases yet" in founded.run("-C", founded.project, "list")
    assert "No releases yet" in founded.run("-C", founded.folder, "list", "-C", "project")


def test_what_cannot_be_read_is_named_once_and_in_words(founded: Shell) -> None:
    tree = bundle(founded.folder / "b")
    said = founded.there("release", tree, "--version", "1.0", "--notes", founded.folder / "nowhere.md", code=2)
    assert "nowhere.md cannot be read: No such file or directory." in said
    assert "UTF-8" not in said
    (founded.folder / "notes.md").write_bytes(b"\xff")
    said = founded.there("release", tree, "--version", "1.0", "--notes", founded.folder / "notes.md", code=2)
    assert "UTF-8" in said
    said = founded.there("release", tree, "--version", "1.0", "--effort", "max", code=2)
    assert "--effort is 'fast' or 'best', not 'max'." in said
    (founded.project / "root.json").unlink()
    (founded.project / "root.json").mkdir()
    assert "Errno" not in founded.there("list", code=2)
    (founded.project / "instar.toml").unlink()
    (founded.project / "instar.toml").mkdir()
    assert "Errno" not in founded.there("list", code=2)


def test_the_folder_without_settings_is_named_in_full(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shell.folder)
    assert f"There is no instar.toml in {shell.folder}." in shell.run("list", code=2)


class TestInit:
    def test_it_refuses_a_second_time(self, founded: Shell) -> None:
        assert "holds a project already" in founded.run(
            "init", founded.project, "--product", "myapp", "--no-passphrase", code=2
        )

    def test_a_product_with_an_impossible_name_is_refused_before_anything_is_made(self, shell: Shell) -> None:
        shell.run("init", shell.project, "--product", "My App", "--no-passphrase", code=2)
        assert not shell.project.exists()

    def test_where_nobody_can_be_asked_it_says_how_to_give_a_passphrase(self, shell: Shell) -> None:
        said = shell.run("init", shell.project, "--product", "myapp", code=2)
        assert "nobody to ask" in said
        assert "INSTAR_PASSPHRASE" in said

    def test_a_passphrase_from_the_environment_encrypts_the_keys(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET", "hunter2")
        shell.run("init", shell.project, "--product", "myapp", "--passphrase-env", "SECRET")
        assert b"ENCRYPTED" in (shell.project / "keys" / "owner.pem").read_bytes()
        shell.release("1.0", "--passphrase-env", "SECRET")
        monkeypatch.setenv("INSTAR_PASSPHRASE", "hunter2")
        shell.release("1.1")
        monkeypatch.setenv("INSTAR_PASSPHRASE", "wrong")
        tree = bundle(shell.folder / "b")
        assert "does not open" in shell.there("release", tree, "--version", "1.2", code=2)
        monkeypatch.setenv("SECRET", "")
        assert "SECRET is empty" in shell.there("halt", "1.1", "--passphrase-env", "SECRET", code=2)
        monkeypatch.delenv("SECRET")
        assert "SECRET is not set" in shell.there("halt", "1.1", "--passphrase-env", "SECRET", code=2)

    def test_a_passphrase_and_none_exclude_each_other(self, shell: Shell) -> None:
        shell.run("init", shell.project, "--product", "a", "--no-passphrase", "--passphrase-env", "X", code=2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_report_that_cannot_be_written_is_no_defect(founded: Shell, options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        command = program("list", "-C", founded.project, *options)
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 5
    assert "could not be written: No space left on device." in done.stderr
    assert "is done" in done.stderr


ERASE_LINE = "\x1b[2K"


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "instar", *(str(argument) for argument in arguments)]


def at_a_terminal(arguments: list[str], *answers: tuple[str, str]) -> tuple[int, str]:
    """Run a program at a terminal of its own, and answer its questions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking while threads run; the child executes at once
        child, terminal = pty.fork()
    if child == 0:
        os.environ.pop("INSTAR_PASSPHRASE", None)
        os.execv(arguments[0], arguments)  # noqa: S606  # the test's own program
    shown, left = "", list(answers)
    with contextlib.suppress(OSError):  # how a terminal says that nobody is at the other end any more
        while block := os.read(terminal, 4096):
            shown += block.decode(errors="replace")
            if left and left[0][0] in shown:
                time.sleep(0.1)  # the echo is switched off just after the question
                os.write(terminal, f"{left.pop(0)[1]}\n".encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


class TestAtATerminal:
    def test_the_passphrase_is_asked_twice_and_never_shown(self, shell: Shell) -> None:
        init = program("init", shell.project, "--product", "myapp")
        code, shown = at_a_terminal(init, ("new private keys:", "hunter2"), ("once more:", "hunter2"))
        assert code == 0, shown
        assert "hunter2" not in shown
        tree = bundle(shell.folder / "b")
        release = program("release", tree, "--version", "1.0", "--effort", "fast", "-C", shell.project)
        code, shown = at_a_terminal(release, ("owner.pem:", "hunter2"), ("same as before):", ""))
        assert code == 0, shown
        assert "hunter2" not in shown

    def test_no_progress_bar_wipes_the_question_away(self, shell: Shell) -> None:
        shell.run("init", shell.project, "--product", "myapp", "--no-passphrase")
        create_key(shell.folder / "o.pem", passphrase="hunter2")
        (shell.folder / "o.pem").replace(shell.project / "keys" / "owner.pem")
        release = program("release", bundle(shell.folder / "b"), "--version", "1.0", "-C", shell.project)
        code, shown = at_a_terminal(release, ("owner.pem:", "wrong"))
        assert (code, "does not open" in shown) == (2, True)
        assert ERASE_LINE not in shown

    def test_two_different_answers_make_nothing(self, shell: Shell) -> None:
        init = program("init", shell.project, "--product", "myapp")
        code, shown = at_a_terminal(init, ("new private keys:", "one"), ("once more:", "two"))
        assert (code, "differ" in shown) == (2, True)
        assert not list(shell.project.rglob("*.pem"))


def test_the_repository_is_served_until_it_is_interrupted(founded: Shell) -> None:
    founded.release("1.0")
    command = program("serve", "--port", 0, "-C", founded.project)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        line = server.stderr.readline()
        url = next(word for word in line.split() if word.startswith("http://"))
        with urllib.request.urlopen(f"{url}/metadata/timestamp.json") as answer:
            assert json.loads(answer.read())["signed"]["_type"] == "timestamp"
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
