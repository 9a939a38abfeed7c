"""Whole static trees, as tables of what each file offers, and the bytes of the files themselves.

The pools are those that the authors of the protocol try their own programs on, as far as versions, builds and branches
go (facts; nothing else of theirs is here). What is offered was worked out from the rules.
"""

import itertools
from pathlib import Path

import pytest

from instar.compat.atomupd.settings import ServerSettings
from instar.compat.atomupd.tree import generate
from tests.support.atomupd_pools import add_image, make_pool, offers_in, write_settings

TABLES = sorted(Path(__file__).parent.joinpath("atomupd").glob("*.txt"))


def sections(table: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for head, lines in itertools.groupby(table.read_text().splitlines(), key=lambda line: line.startswith("  ")):
        if head:
            found[list(found)[-1]] = [line.strip() for line in lines]
        else:
            found |= {line.removesuffix(":"): [] for line in lines if line.endswith(":")}
    return found


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_every_answer_of_the_tree_is_as_the_table_has_it(table: Path, tmp_path: Path) -> None:
    said = sections(table)
    pool = make_pool(tmp_path / "pool", said["pool"])
    configuration = tmp_path / "server.conf"
    configuration.write_text("\n".join([said["configuration"][0], f"PoolDir = {pool}", *said["configuration"][1:]]))
    done = generate(ServerSettings.read(configuration), tmp_path / "tree", size_of=lambda _old, _new: 0)
    assert not done.warnings
    expected = [line.split(maxsplit=1) for line in said["offers"]]
    assert sorted(offers_in(tmp_path / "tree").items()) == sorted((path, builds) for path, builds in expected)


ONE_STEP = """\
{
    "minor": {
        "candidates": [
            {
                "image": {
                    "arch": "amd64",
                    "branch": "stable",
                    "buildid": "20240115.1",
                    "default_update_branch": "stable",
                    "estimated_size": 0,
                    "introduces_checkpoint": 1,
                    "product": "steamos",
                    "release": "holo",
                    "requires_checkpoint": 0,
                    "variant": "steamdeck",
                    "version": "3.7.0"
                },
                "update_path": "some where/steamos-holo-20240115.1-3.7-amd64-steamdeck.raucb"
            },
            {
                "image": {
                    "arch": "amd64",
                    "branch": "stable",
                    "buildid": "20240115.2",
                    "default_update_branch": "stable",
                    "estimated_size": 0,
                    "product": "steamos",
                    "release": "holo",
                    "requires_checkpoint": 1,
                    "variant": "steamdeck",
                    "version": "3.7.3"
                },
                "update_path": "some where/steamos-holo-20240115.2-3.7.3-amd64-steamdeck.raucb"
            }
        ],
        "release": "holo"
    }
}"""

ENDED = """\
{
    "minor": {
        "candidates": [
            {
                "image": {
                    "arch": "amd64",
                    "buildid": "20240101.0",
                    "estimated_size": 0,
                    "product": "steamos",
                    "release": "holo",
                    "variant": "steamdeck",
                    "version": "snapshot"
                },
                "update_path": "steamos-holo-20240101-snapshot-amd64-steamdeck.raucb"
            }
        ],
        "release": "holo",
        "replacement_eol_variant": "steamdeck"
    }
}"""


def test_the_bytes_of_an_answer(tmp_path: Path) -> None:
    for line in ("3.6 20240104 stable", "3.7 20240115.1 stable i1", "3.7.3 20240115.2 stable r1"):
        add_image(tmp_path / "pool", line, folder="some where")
    configuration = write_settings(tmp_path / "server.conf", tmp_path / "pool", branches="stable")
    generate(ServerSettings.read(configuration), tmp_path / "tree", size_of=lambda _old, _new: 0)
    folder = tmp_path / "tree/holo/steamos/amd64/steamdeck"
    assert (folder / "stable/3.6.0/20240104.0.json").read_bytes() == ONE_STEP.encode()
    assert (folder / "stable/3.7.3/20240115.2.json").read_bytes() == b"{}"


def test_the_bytes_of_an_answer_for_a_variant_at_its_end_and_an_image_from_before_there_were_branches(
    tmp_path: Path,
) -> None:
    add_image(tmp_path / "pool", "snapshot 20240101 stable legacy", folder=".")
    add_image(tmp_path / "pool", "3.6 20240104.1 stable vanilla")
    more = "VariantsEOL = vanilla:steamdeck\n"
    configuration = write_settings(tmp_path / "server.conf", tmp_path / "pool", branches="stable", more=more)
    generate(ServerSettings.read(configuration), tmp_path / "tree", size_of=lambda _old, _new: 0)
    assert (tmp_path / "tree/holo/steamos/amd64/vanilla/stable/3.6.0/20240104.1.json").read_text() == ENDED


INFO = "[Images.ProvideRemoteInfoConfig.amd64]\nVariants = steamdeck Vanilla feature-x\nBranches = stable Beta\n"


def test_the_bytes_of_what_devices_may_choose_from(tmp_path: Path) -> None:
    lines = ["3.6 20240104.1 stable", "3.6 20240104.2 stable Vanilla", "3.6 20240104.3 stable legacy"]
    pool = make_pool(tmp_path / "pool", lines)
    more = "VariantsEOL = Vanilla:steamdeck\n"
    configuration = write_settings(tmp_path / "server.conf", pool, branches="stable", more=more, sections=INFO)
    generate(ServerSettings.read(configuration), tmp_path / "tree", size_of=lambda _old, _new: 0)
    tree = tmp_path / "tree"
    without = "[Server]\nVariants = steamdeck;feature-x\nBranches = stable;Beta\n\n"
    assert (tree / "holo/steamos/amd64/steamdeck/remote-info.conf").read_text() == without
    assert (tree / "steamos/amd64/3.6.0/remote-info.conf").read_text() == without
    own = "[Server]\nVariants = steamdeck;Vanilla;feature-x\nBranches = stable;Beta\n\n"
    assert (tree / "holo/steamos/amd64/Vanilla/remote-info.conf").read_text() == own
