import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from instar.errors import Misconfigured, Untrusted
from instar.model.channel import Channels
from instar.model.names import Name
from instar.model.version import Version
from instar.publish import (
    Project,
    Wanted,
    list_releases,
    promote,
    release,
    set_floor,
    show_release,
    verify_repository,
)
from instar.publish.seen import SEEN_FILE
from instar.publish.session import read_channels
from instar.publish.settings import Effort
from instar.storage import LocalStorage
from instar.system.files import remove_tree
from instar.testing.clock import FakeClock
from instar.trust.layout import manifest_path
from tests.support.projects import LINUX, bundle, new_project, publish, publish_many, snapshot_of, this_moment


@pytest.fixture
def clock() -> FakeClock:
    return this_moment()


@pytest.fixture
def project(tmp_path: Path, clock: FakeClock) -> Project:
    return new_project(tmp_path / "project", clock)


def channels(project: Project) -> Channels:
    return read_channels(project, project.roles())


def test_a_release_is_signed_offered_and_sound(project: Project) -> None:
    done = publish(project, "1.0", percent=25)
    assert (done.channel, done.percent, done.bases) == ("stable", 25, ())
    assert project.roles().target(manifest_path("app", LINUX, "1.0"))
    assert [(str(e.version), e.percent) for e in channels(project).of("stable", LINUX)] == [("1.0", 25)]
    report = verify_repository(project)
    assert (report.releases, report.problems) == (1, [])


def test_the_next_release_builds_on_the_ones_before(project: Project, tmp_path: Path) -> None:
    trees = [bundle(tmp_path / name, name, lines=20_000) for name in ("a", "b", "c")]
    publish(project, "1.0", trees[0])
    publish(project, "1.1", trees[1])
    done = publish(project, "1.2", trees[2])
    assert done.bases == (Version("1.1"), Version("1.0"))
    assert done.patches >= 2
    assert done.new < done.size / 2
    report = verify_repository(project)
    assert (report.problems, report.unchecked, report.patches >= 3) == ([], 0, True)


def test_as_many_bases_as_asked_for(project: Project, tmp_path: Path) -> None:
    publish_many(project, "1.0", "1.1", "1.2", "1.3")
    assert publish(project, "1.4").bases == (Version("1.3"), Version("1.2"), Version("1.1"))
    assert publish(project, "1.5", base_releases=1).bases == (Version("1.4"),)
    assert publish(project, "1.6", base_releases=0).bases == ()


def test_a_fix_for_an_older_line_builds_on_that_line(project: Project) -> None:
    publish_many(project, "1.0", "1.1", "2.0", "2.1")
    done = publish(project, "1.1.1", allow_older=True)
    assert done.bases == (Version("1.1"), Version("1.0"), Version("2.1"))


def test_what_another_platform_has_is_not_stored_again(project: Project, tmp_path: Path) -> None:
    tree = bundle(tmp_path / "tree", lines=20_000)
    publish(project, "1.0", tree)
    done = publish(project, "1.0", tree, platform=Name("macos-arm64"))
    assert done.new == 0


def test_large_manifests_are_published_as_differences_too(project: Project, tmp_path: Path) -> None:
    for name in ("a", "b"):
        tree = bundle(tmp_path / name, name)
        for number in range(300):
            (tree / f"file-{number}-{number * 7919}.txt").write_text(f"{number}\n")
        publish(project, {"a": "1.0", "b": "1.1"}[name], tree)
    target = project.roles().target(manifest_path("app", LINUX, "1.1"))
    assert [row["size"] < target.size / 4 for row in target.custom["deltas"]] == [True]
    assert verify_repository(project).deltas == 1


def test_the_same_version_for_another_platform_is_another_release(project: Project) -> None:
    publish(project, "1.0")
    publish(project, "1.0", bundle(project.folder.parent / "bundle-1.0", "1.0"), platform=Name("macos-arm64"))
    assert [str(row.platform) for row in list_releases(project).releases] == ["linux-x86_64", "macos-arm64"]
    details = show_release(project, Version("1.0"), platform=Name("macos-arm64"))
    assert [(d.files, d.row.offered[0].state) for d in details] == [(3, "offered")]


def test_notes_and_metadata_travel_with_the_release(project: Project) -> None:
    publish(project, "1.0", notes="What is new: ☃\n", meta={"commit": "abc"})
    details = show_release(project, Version("1.0"))[0]
    assert (details.notes, dict(details.meta)) == ("What is new: ☃\n", {"commit": "abc"})


def test_showing_what_does_not_exist_says_so(project: Project) -> None:
    with pytest.raises(Misconfigured, match=r"no release 9\.0"):
        show_release(project, Version("9.0"))


class TestRefused:
    """Whatever is refused is refused before anything is written."""

    @pytest.fixture(autouse=True)
    def _unchanged(self, project: Project) -> Iterator[None]:
        publish_many(project, "1.0", "1.1")
        before = snapshot_of(project.storage.root)
        yield
        assert snapshot_of(project.storage.root) == before
        assert not project.work.exists()

    def test_a_version_that_exists(self, project: Project) -> None:
        with pytest.raises(Misconfigured, match=r"1\.1 for linux-x86_64 exists already"):
            publish(project, "1.1")

    def test_a_version_that_exists_in_another_spelling(self, project: Project) -> None:
        with pytest.raises(Misconfigured, match=r"1\.1\.0 for linux-x86_64 exists already, as 1\.1\."):
            publish(project, "1.1.0", channel="beta")

    def test_an_older_version_than_the_newest(self, project: Project) -> None:
        with pytest.raises(Misconfigured, match="--allow-older"):
            publish(project, "1.0.5")

    def test_an_empty_folder(self, project: Project, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(Misconfigured, match="holds no files"):
            publish(project, "1.2", tmp_path / "empty")

    def test_a_folder_that_is_not_there(self, project: Project, tmp_path: Path) -> None:
        with pytest.raises(Misconfigured, match="cannot be read"):
            publish(project, "1.2", tmp_path / "nowhere")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_a_folder_that_cannot_be_read(self, project: Project, tmp_path: Path) -> None:
        tree = bundle(tmp_path / "t")
        (tree / "lib").chmod(0)
        with pytest.raises(Misconfigured):
            publish(project, "1.2", tree)
        (tree / "lib").chmod(0o755)

    def test_the_project_itself(self, project: Project) -> None:
        with pytest.raises(Misconfigured, match="holds this project itself"):
            publish(project, "1.2", project.folder.parent)

    def test_the_keys(self, project: Project) -> None:
        with pytest.raises(Misconfigured, match="holds the owner key"):
            publish(project, "1.2", project.folder / "keys")

    def test_a_folder_with_a_key_somewhere_in_it(self, project: Project, tmp_path: Path) -> None:
        tree = bundle(tmp_path / "t")
        key = project.folder / "keys" / "online.pem"
        (tree / "lib" / "online.pem").write_bytes(key.read_bytes())
        keys = replace(project.settings.keys, online=f"file:{tree}/lib/online.pem")
        moved = replace(project, settings=replace(project.settings, keys=keys))
        with pytest.raises(Misconfigured, match="holds the online key"):
            publish(moved, "1.2", tree)

    @pytest.mark.parametrize("name", ["repository", "repository/packs", ".instar-work"])
    def test_a_folder_of_instars_own(self, project: Project, name: str) -> None:
        (project.folder / name).mkdir(exist_ok=True)
        try:
            with pytest.raises(Misconfigured, match="lie in one another"):
                publish(project, "1.2", project.folder / name)
            assert (project.folder / name).is_dir()
        finally:
            remove_tree(project.work)

    @pytest.mark.parametrize(
        ("name", "platform"),
        [
            ("a:b", "windows-amd64"),
            ("end.", "windows-amd64"),
            ("back\\slash", "linux-x86_64"),
            ("nul.txt", "linux-x86_64"),
        ],
    )
    def test_a_name_that_the_platform_cannot_have(
        self, project: Project, tmp_path: Path, name: str, platform: str
    ) -> None:
        tree = bundle(tmp_path / "t")
        (tree / name).write_text("x")
        with pytest.raises(Misconfigured):
            publish(project, "1.2", tree, platform=Name(platform))

    def test_names_that_differ_only_in_case(self, project: Project, tmp_path: Path) -> None:
        tree = bundle(tmp_path / "t")
        (tree / "LIB").mkdir()
        (tree / "LIB" / "x").write_text("x")
        with pytest.raises(Misconfigured):
            publish(project, "1.2", tree)

    def test_a_link_that_leads_out(self, project: Project, tmp_path: Path) -> None:
        tree = bundle(tmp_path / "t")
        (tree / "link").symlink_to("/etc/passwd")
        with pytest.raises(Misconfigured, match="link"):
            publish(project, "1.2", tree)

    @pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
    def test_a_percentage_that_is_none(self, project: Project, percent: float) -> None:
        with pytest.raises(Misconfigured, match="between 0 and 100"):
            publish(project, "1.2", percent=percent)

    def test_notes_and_metadata_that_are_too_long(self, project: Project) -> None:
        with pytest.raises(Misconfigured, match="notes are longer"):
            publish(project, "1.2", notes="x" * (2 << 20))
        with pytest.raises(Misconfigured, match="metadata is longer"):
            publish(project, "1.2", meta={"a": "x" * (1 << 20)})

    def test_a_missing_key(self, project: Project) -> None:
        key = project.folder / "keys" / "owner.pem"
        saved = key.read_bytes()
        key.unlink()
        with pytest.raises(Misconfigured, match="no key file"):
            publish(project, "1.2")
        key.write_bytes(saved)

    def test_another_repositorys_key(self, project: Project, tmp_path: Path) -> None:
        other = new_project(tmp_path / "other")
        key = project.folder / "keys" / "owner.pem"
        saved = key.read_bytes()
        key.write_bytes((other.folder / "keys" / "owner.pem").read_bytes())
        with pytest.raises(Misconfigured, match="not the one that the repository knows"):
            publish(project, "1.2")
        key.write_bytes(saved)


def test_what_is_below_the_security_floor_is_neither_released_nor_promoted(project: Project) -> None:
    publish_many(project, "1.0", "1.1")
    set_floor(project, Version("1.1"))
    before = snapshot_of(project.storage.root)
    with pytest.raises(Misconfigured, match=r"below the security floor, 1\.1"):
        publish(project, "1.0.1", allow_older=True)
    with pytest.raises(Misconfigured, match=r"below the security floor, 1\.1"):
        promote(project, Version("1.0"), Name("beta"))
    assert snapshot_of(project.storage.root) == before


def test_a_damaged_object_that_is_there_already_is_not_taken_for_the_new_one(project: Project, tmp_path: Path) -> None:
    tree = bundle(tmp_path / "tree")
    root = project.storage.root
    before = snapshot_of(root)
    shutil.copytree(root, tmp_path / "copy")
    publish(replace(project, storage=LocalStorage(tmp_path / "copy")), "1.0", tree)
    pack = next(name for name in snapshot_of(tmp_path / "copy") if name.endswith(".pack"))
    (project.folder / SEEN_FILE).unlink(missing_ok=True)
    (root / pack).parent.mkdir(parents=True)
    (root / pack).write_bytes(b"half of i")
    with pytest.raises(Untrusted, match="not what its name says"):
        publish(project, "1.0", tree)
    assert snapshot_of(root) == before | {pack: b"half of i"}
    (root / pack).unlink()
    publish(project, "1.0", tree)
    assert verify_repository(project).problems == []


def test_a_file_that_vanishes_while_it_is_packed_stops_the_release(project: Project, tmp_path: Path) -> None:
    tree = bundle(tmp_path / "t")
    before = snapshot_of(project.storage.root)

    def meddle(progress: object) -> None:
        (tree / "lib" / "changed.txt").write_text("something else, of another length")

    with pytest.raises(Misconfigured):
        release(project, tree, Wanted(Version("1.0"), LINUX, effort=Effort("fast")), progress=meddle)
    assert snapshot_of(project.storage.root) == before
