"""Whatever is damaged in a repository, verifying it says so; and where."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from instar.content.manifests import compress_manifest
from instar.model.channel import Channels, Entry
from instar.model.digest import Digest
from instar.model.manifest import Base, Frame, Manifest
from instar.model.names import Name, ProductName
from instar.model.version import Version
from instar.publish import Project, open_project, verify_repository
from instar.publish.history import read_release
from instar.publish.seen import SEEN_FILE
from instar.publish.session import publishing
from instar.trust.layout import manifest_path, target_key
from instar.trust.roles import Authority
from tests.support.projects import LINUX, bundle, days, new_project, publish, snapshot_of, this_moment


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("pristine")
    project = new_project(folder / "project")
    for version in ("1.0", "1.1"):
        tree = bundle(folder / version, version, lines=8000)
        for number in range(200):
            (tree / f"f{number}-{number * 104729}").write_text(f"{number}")
        publish(project, version, tree)
    assert verify_repository(project).problems == []
    return project, snapshot_of(project.storage.root)


@pytest.fixture
def project(pristine: tuple[Project, dict[str, bytes]]) -> Project:
    """The repository as it was, whatever the test before did to it."""
    project, content = pristine
    root = project.storage.root
    (project.folder / SEEN_FILE).unlink(missing_ok=True)
    for name in snapshot_of(root).keys() - content.keys():
        (root / name).unlink()
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return project


def files_of(project: Project, pattern: str) -> list[Path]:
    return sorted(project.storage.root.glob(pattern))


def flip(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    "damage", [flip, lambda data: data[:-1], lambda data: data + b"\0"], ids=["bit", "short", "long"]
)
def test_every_file_of_the_repository_counts(project: Project, damage: Callable[[bytes], bytes]) -> None:
    named = []
    for key in [listed.key for listed in project.storage.list("")]:
        # Replaced metadata stays for clients in the middle of reading it; nobody else ever looks at it.
        if is_replaced(project, key):
            continue
        path = project.storage.root / key
        original = path.read_bytes()
        path.write_bytes(damage(original))
        assert verify_repository(project).problems, key
        path.unlink()
        assert verify_repository(project).problems, key
        path.write_bytes(original)
        named.append(key)
    assert verify_repository(project).problems == []
    assert len(named) >= 12
    assert {name.partition("/")[0] for name in named} == {"metadata", "targets", "packs"}


def is_replaced(project: Project, key: str) -> bool:
    folder, _, name = key.partition("/")
    if folder == "targets":
        return name.endswith("channels.json") and key != project.roles().target("app/channels.json").key
    version, _, role = name.removesuffix(".json").partition(".")
    return folder == "metadata" and version.isdigit() and project.roles().published[role] != int(version)


def test_the_place_of_the_damage_is_named(project: Project) -> None:
    pack = max(files_of(project, "packs/*/*.pack"), key=lambda path: path.stat().st_size)
    pack.write_bytes(flip(pack.read_bytes()))
    assert any(problem.where.endswith(pack.name) for problem in verify_repository(project).problems)


def test_expired_metadata_is_reported_with_its_date(project: Project) -> None:
    later = this_moment()
    later.advance(days(20))
    problems = verify_repository(open_project(project.folder, clock=later)).problems
    assert any("ended on" in problem.what for problem in problems)


def sign(project: Project, manifest: Manifest) -> None:
    """Sign a manifest as the owner, whatever it says."""
    document = manifest.to_json()
    frame = compress_manifest(document)
    path = manifest_path(manifest.product, manifest.platform, manifest.version)
    with publishing(project) as session:
        session.add(target_key(path, Digest.of(frame)), frame)
        custom = {"json": {"sha256": Digest.of(document).hex, "size": len(document)}}
        session.roles.set_target(path, size=len(frame), digest=Digest.of(frame), custom=custom)
        session.commit(project.open_signers(session.roles, Authority))


def edited(project: Project, edit: Callable[[Manifest], Manifest]) -> list[str]:
    """What verifying says after the newest manifest was changed, and signed by the owner."""
    target = project.roles().target(manifest_path("app", LINUX, "1.1"))
    assert target
    sign(project, edit(read_release(project, target).manifest))
    return [f"{problem.where} {problem.what}" for problem in verify_repository(project).problems]


def test_a_patch_that_makes_something_else_is_found_though_it_is_signed(project: Project) -> None:
    def edit(manifest: Manifest) -> Manifest:
        file = next(file for file in manifest.files if file.patches)
        base = file.patches[0].base[0]
        # As many bytes of the same file, verified and readable, but not the ones that the patch was made from.
        wrong = (replace(base, length=base.length - 8), Base(base.file, 0, 8))
        patched = replace(file, patches=(replace(file.patches[0], base=wrong),))
        return replace(manifest, files=tuple(patched if each is file else each for each in manifest.files))

    assert any("a patch of lib/changed.txt" in problem for problem in edited(project, edit))


def test_a_chunk_list_that_makes_another_file_is_found_though_it_is_signed(project: Project) -> None:
    def edit(manifest: Manifest) -> Manifest:
        one, other = [file for file in manifest.files if file.size == 3][:2]
        swapped = {one.path: other.chunks, other.path: one.chunks}
        files = (replace(file, chunks=swapped.get(file.path, file.chunks)) for file in manifest.files)
        return replace(manifest, files=tuple(files))

    assert sum("do not make the file" in problem for problem in edited(project, edit)) == 2


def test_a_frame_that_no_file_uses_is_looked_at_too(project: Project) -> None:
    def edit(manifest: Manifest) -> Manifest:
        spare = Frame(pack=0, offset=0, length=5, size=5, digest=manifest.frames[0].digest)
        return replace(manifest, frames=(*manifest.frames, spare))

    assert any("frame" in problem for problem in edited(project, edit))


def test_an_offer_that_the_owner_never_signed_is_found(project: Project) -> None:
    with publishing(project) as session:
        listed = {Name("stable"): {LINUX: (Entry(Version("1.1")), Entry(Version("6.6.6")))}}
        session.set_channels(Channels(ProductName("app"), session.now, listed))
        session.commit(project.open_signers(session.roles, [Authority.ONLINE]))
    problems = verify_repository(project).problems
    assert ["6.6.6" in problem.what for problem in problems] == [True]


def test_a_foreign_root_vouches_for_nothing(project: Project, tmp_path: Path) -> None:
    other = new_project(tmp_path / "other")
    stranger = Project(project.folder, project.settings, project.storage, other.root, clock=project.clock)
    assert verify_repository(stranger).problems


def test_manifests_that_patches_start_from_in_turn_are_not_read_for_every_patch(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    tree = bundle(tmp_path / "tree")
    # Half of the files change in every release, half in the last one only: their patches start from 1.1 and from 1.0.
    for version, changed in (("1.0", range(40)), ("1.1", range(0, 40, 2)), ("1.2", range(40))):
        for number in changed:
            lines = [f"{number} {line * 7919} {version if line % 300 == 0 else ''}\n" for line in range(900)]
            (tree / f"f{number}").write_text("".join(lines))
        publish(project, version, tree, base_releases=1)
    read: list[str] = []

    class Counting(Project):
        def fetch(self, key: str, limit: int) -> bytes:
            read.append(key)
            return super().fetch(key, limit)

    report = verify_repository(Counting(project.folder, project.settings, project.storage, project.root))
    assert (report.problems, report.unchecked) == ([], 0)
    assert report.patches > 40
    assert len([key for key in read if key.endswith(".manifest")]) <= 4 * report.releases
