from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from instar.client.relaunch import relaunch, relaunch_command, relaunch_environment
from instar.errors import InstallFailed

APP = Path("/opt/app")


def test_what_was_started_from_a_version_is_started_again_through_the_link() -> None:
    argv = ["/opt/app/versions/1.0-abc/bin/app", "/opt/app/versions/1.0-abc/main.py", "--open", "/home/me/a.txt"]
    assert relaunch_command(argv, APP) == [
        "/opt/app/current/bin/app",
        "/opt/app/current/main.py",
        "--open",
        "/home/me/a.txt",
    ]


def test_an_installation_in_place_is_started_again_as_it_was() -> None:
    argv = ["/opt/app/app", "-v", "versions/1.0-abc/x"]
    assert relaunch_command(argv, APP) == argv


def test_the_link_is_found_when_the_installation_itself_stands_behind_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "versions/1.0-abc").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    argv = [str(real / "versions/1.0-abc/app")]
    assert relaunch_command(argv, tmp_path / "link") == [str(tmp_path / "link/current/app")]


def test_a_frozen_app_starts_afresh_and_a_plain_one_keeps_its_environment() -> None:
    assert relaunch_environment({"A": "1"}, frozen=False) == {"A": "1"}
    assert relaunch_environment({"A": "1"}, frozen=True) == {"A": "1", "PYINSTALLER_RESET_ENVIRONMENT": "1"}


def test_a_program_that_is_not_there_is_said_and_the_process_goes_on(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="could not be started again"):
        relaunch(tmp_path, [str(tmp_path / "missing")])


@pytest.mark.skipif(sys.platform == "win32", reason="replaces the process")
def test_the_process_becomes_the_selected_version(tmp_path: Path) -> None:
    for version in ("1", "2"):
        folder = tmp_path / "versions" / version
        folder.mkdir(parents=True)
        (folder / "main.py").write_text(
            f"import sys\nprint('version', {version}, *sys.argv[1:], flush=True)\n"
            + (
                "from pathlib import Path\nfrom instar.client.relaunch import relaunch\n"
                f"relaunch(Path({str(tmp_path)!r}), None)\n"
                if version == "1"
                else ""
            ),
        )
    (tmp_path / "current").symlink_to("versions/2")
    command = [sys.executable, str(tmp_path / "versions/1/main.py"), "--flag"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.split("\n")[:2] == ["version 1 --flag", "version 2 --flag"]
