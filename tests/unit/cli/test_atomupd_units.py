"""The systemd units start commands that exist, with options that those commands have."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from instar.cli.app import app

UNITS = sorted(Path(__file__).parents[3].glob("contrib/systemd/*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_command_that_can_be_parsed(unit: Path) -> None:
    line = re.search(r"^ExecStart=/usr/bin/env instar (.*)$", unit.read_text(), re.MULTILINE)
    assert line is not None
    name, command, *arguments = shlex.split(line[1])
    group = get_command(app).commands[name]  # type: ignore[attr-defined]
    context = group.commands[command].make_context(command, arguments)
    assert str(context.params["config"]).endswith("/%i.conf")


def test_there_is_a_unit_for_the_tree_and_one_for_queries() -> None:
    assert [unit.name for unit in UNITS] == ["instar-atomupd-generate@.service", "instar-atomupd-serve@.service"]


def test_each_tree_has_its_own_folder_that_web_servers_can_read() -> None:
    # A dynamic user's folder lies below /var/lib/private, which nobody else may enter; and instances with different
    # users would take a folder that they share from one another.
    lines = UNITS[0].read_text().splitlines()
    assert "DynamicUser=yes" not in lines
    assert {"User=instar-atomupd", "StateDirectory=instar-atomupd/%i", "StateDirectoryMode=0755"} <= set(lines)
    user = UNITS[0].with_name("instar-atomupd.sysusers.conf").read_text().splitlines()
    assert [line.split()[:2] for line in user if not line.startswith("#")] == [["u", "instar-atomupd"]]
