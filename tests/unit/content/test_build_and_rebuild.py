import filecmp
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.content.build import Effort, Label, build_release
from instar.content.downloads import Downloads
from instar.content.rebuild import BaseChanged, Source, make_tree, rebuild, take_inventory
from instar.content.trees import verify_tree
from instar.errors import Cancelled, InstallFailed, Misconfigured, NotFound, Untrusted
from instar.model.digest import Digest
from instar.model.names import Name, ProductName, TreePath
from instar.model.progress import Phase, Progress
from instar.model.version import Version
from instar.policy.route import Inventory, Means, Place, Plan, plan_route
from instar.storage.memory import MemoryStorage
from tests.support.releases_on_disk import Shelf, edited, some_bytes, some_text, write_tree

PROGRAM = some_bytes("program", 300_000)
TEXT = some_text("text", 200_000)
OLD = {
    "bin/app*": PROGRAM,
    "bin/tool*": some_bytes("tool", 50_000),
    "lib/libx.so.1.2": some_bytes("libx", 120_000),
    "share/text": TEXT,
    "share/same": b"same",
    "share/empty": b"",
    "link": "bin/app",
    "void": None,
}
NEW = OLD | {
    "bin/app*": edited(PROGRAM, (1000, b"changed"), (250_000, some_bytes("more", 900))),
    "share/text": TEXT[:100_000] + b"inserted" + TEXT[100_000:],
    "share/added": some_bytes("added", 40_000),
}
NEW.pop("lib/libx.so.1.2")
NEW["lib/libx.so.1.3"] = edited(some_bytes("libx", 120_000), (60_000, b"one point three"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    shelf = Shelf(tmp_path_factory.mktemp("shelf"))
    shelf.add("1", OLD)
    shelf.add("2", NEW)
    return shelf


def update(shelf: Shelf, tmp_path: Path, *sources: Source, to: int = 1) -> Plan:
    destination = tmp_path / "made"
    manifest = shelf.manifests[to]
    plan = make_tree(manifest, sources, Downloads(tmp_path / "downloads"), destination, reader=shelf.storage)
    assert verify_tree(destination, manifest) == []
    assert_same(destination, shelf.tree(str(manifest.version)))
    return plan


def assert_same(one: Path, other: Path) -> None:
    names = [sorted(p.relative_to(root).as_posix() for p in root.rglob("*")) for root in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        a, b = one / name, other / name
        assert stat.S_IMODE(a.lstat().st_mode) == stat.S_IMODE(b.lstat().st_mode), name
        if a.is_symlink():
            assert a.readlink() == b.readlink()
        elif a.is_file():
            assert filecmp.cmp(a, b, shallow=False), name


def installed(shelf: Shelf, tmp_path: Path, version: str = "1") -> Source:
    root = tmp_path / "installed"
    number = int(version) - 1
    make_tree(shelf.manifests[number], [], Downloads(tmp_path / "d"), root, reader=shelf.storage)
    return Source(root, shelf.manifests[number])


def test_a_first_install_makes_the_tree_as_it_was_released(shelf: Shelf, tmp_path: Path) -> None:
    plan = update(shelf, tmp_path)
    assert plan.download_size == plan.full_size
    assert set(plan.result_by_means) == {Means.CHUNKS}


def test_an_update_downloads_little_more_than_what_changed(shelf: Shelf, tmp_path: Path) -> None:
    plan = update(shelf, tmp_path, installed(shelf, tmp_path))
    made = {str(step.file.path): step.means for step in plan.steps}
    assert made == {
        "bin/app": Means.PATCH,
        "bin/tool": Means.COPY,
        "lib/libx.so.1.3": Means.PATCH,
        "share/added": Means.CHUNKS,
        "share/empty": Means.COPY,
        "share/same": Means.COPY,
        "share/text": Means.PATCH,
    }
    assert plan.download_size < 40_000 + 900 + 2500


def test_going_back_costs_nothing_where_the_old_tree_is_still_there(shelf: Shelf, tmp_path: Path) -> None:
    assert (
        update(shelf, tmp_path, installed(shelf, tmp_path, "2"), installed(shelf, tmp_path / "x"), to=0).requests == 0
    )


def test_what_earlier_releases_hold_is_not_stored_again(shelf: Shelf) -> None:
    old, new = shelf.manifests
    assert {pack.digest for pack in old.packs} & {pack.digest for pack in new.packs}
    tool = next(file for file in new.files if file.path == "bin/tool")
    frame = new.frames[new.chunks[tool.chunks[0]].frame]
    assert new.packs[frame.pack] in old.packs


def test_a_release_without_bases_has_no_patches(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("1", OLD)
    built = shelf.add("2", NEW, bases=[])
    assert not any(file.patches for file in built.manifest.files)
    assert built.statistics.patches == 0
    assert len(built.files) == 1


def test_a_fast_release_serves_devices_without_hdiffpatch(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("1", OLD)
    built = shelf.add("2", NEW, effort=Effort.FAST)
    assert {patch.codec.value for file in built.manifest.files for patch in file.patches} == {"zstd-prefix"}
    assert update(shelf, tmp_path, installed(shelf, tmp_path)).download_by_means[Means.PATCH] < 3000


def test_releasing_the_same_folder_again_stores_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("1", OLD)
    built = shelf.add("2", OLD)
    assert built.files == ()
    assert built.statistics.new == 0
    assert built.manifest.tree_digest == shelf.manifests[0].tree_digest


def test_the_same_folder_makes_the_same_release(tmp_path: Path) -> None:
    one, other = Shelf(tmp_path / "1"), Shelf(tmp_path / "2")
    for shelf in (one, other):
        shelf.add("1", OLD)
        shelf.add("2", NEW)
    assert one.manifests == other.manifests


def test_a_release_of_only_empty_files_needs_no_pack(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    assert shelf.add("1", {"a": b"", "b/c": b""}).files == ()
    update(shelf, tmp_path, to=0)


def test_patches_are_made_against_several_releases(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("1", OLD)
    shelf.add("2", OLD | {"bin/app*": edited(PROGRAM, (5, b"two"))})
    shelf.add("3", NEW, bases=[shelf.manifests[1], shelf.manifests[0]])
    app = next(file for file in shelf.manifests[2].files if file.path == "bin/app")
    assert len(app.patches) == 2
    # The most likely base's patches lie first, so that they are one read.
    assert app.patches[0].at < app.patches[1].at
    plan = update(shelf, tmp_path, installed(shelf, tmp_path), to=2)
    assert plan.download_by_means[Means.PATCH] < 3000


def test_progress_tells_of_every_phase(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("1", OLD)
    seen: list[Progress] = []
    build_release(
        write_tree(tmp_path / "new", NEW),
        Label(ProductName("app"), Version("2"), Name("linux-x86_64")),
        bases=shelf.manifests,
        earlier=shelf.manifests,
        reader=shelf.storage,
        work=tmp_path / "work",
        progress=seen.append,
    )
    assert [phase for phase in Phase if any(p.phase is phase for p in seen)] == [
        Phase.SCAN,
        Phase.COMPRESS,
        Phase.PATCH,
    ]
    for phase in (Phase.SCAN, Phase.COMPRESS, Phase.PATCH):
        last = [p for p in seen if p.phase is phase][-1]
        assert last.done == last.total
    assert {p.suffix for p in (tmp_path / "work").iterdir()} == {".pack"}


def test_a_base_that_the_repository_lost_stops_the_release(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("1", OLD)
    shelf.storage = MemoryStorage()
    with pytest.raises(NotFound, match="holds no"):
        shelf.add("2", NEW)


def test_an_empty_folder_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        Shelf(tmp_path).add("1", {})


# --- Old files that are not what they should be -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["bin/app", "bin/tool", "share/text", "lib/libx.so.1.2", "share/same"])
@pytest.mark.parametrize("how", ["changed", "longer", "shorter", "gone", "a folder", "a link", "a pipe"])
def test_an_old_file_that_was_changed_never_ends_in_the_result(
    shelf: Shelf, tmp_path: Path, path: str, how: str
) -> None:
    source = installed(shelf, tmp_path)
    spoil(source.root / path, how)
    update(shelf, tmp_path, source)


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    match how:
        case "changed":
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        case "longer":
            path.write_bytes(data + b"!")
        case "shorter":
            path.write_bytes(data[:-1])
        case "a folder":
            path.mkdir()
        case "a link":
            elsewhere = path.with_name("elsewhere")
            elsewhere.write_bytes(data)
            path.symlink_to("elsewhere")
        case "a pipe":
            os.mkfifo(path)


@pytest.mark.parametrize("how", ["changed", "longer", "shorter", "gone", "a folder", "a link", "a pipe"])
def test_a_change_behind_the_planners_back_is_told(shelf: Shelf, tmp_path: Path, how: str) -> None:
    source = installed(shelf, tmp_path)
    plan = plan_route(shelf.manifests[1], take_inventory([source]))
    downloads = Downloads(tmp_path / "downloads")
    downloads.fetch(plan, shelf.storage)
    spoil(source.root / "bin/app", how)
    spoil(source.root / "bin/tool", how)
    # What a file has more than it should is never read, and a patch does not see it.
    changed = {"bin/tool", "bin/app"} if how != "longer" else set()
    if not changed:
        rebuild(plan, [source.root], downloads, tmp_path / "made")
        assert verify_tree(tmp_path / "made", shelf.manifests[1]) == []
        return
    with pytest.raises(BaseChanged) as caught:
        rebuild(plan, [source.root], downloads, tmp_path / "made")
    assert {str(place.path) for place in caught.value.places} == changed


def test_all_changed_files_are_told_at_once(shelf: Shelf, tmp_path: Path) -> None:
    source = installed(shelf, tmp_path)
    inventory = take_inventory([source])
    plan = plan_route(shelf.manifests[1], inventory)
    downloads = Downloads(tmp_path / "downloads")
    downloads.fetch(plan, shelf.storage)
    for path in ("bin/app", "bin/tool"):
        spoil(source.root / path, "changed")
    with pytest.raises(BaseChanged) as caught:
        rebuild(plan, [source.root], downloads, tmp_path / "made")
    assert caught.value.places == {Place(0, TreePath("bin/app")), Place(0, TreePath("bin/tool"))}


def test_a_changed_chunk_of_an_old_file_is_noticed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("1", {"a": some_bytes("a", 400_000)})
    shelf.add("2", {"a": edited(some_bytes("a", 400_000), (0, b"new"))}, bases=[])
    source = installed(shelf, tmp_path)
    plan = plan_route(shelf.manifests[1], take_inventory([source]))
    assert plan.result_by_means[Means.COPY] > 200_000
    data = (source.root / "a").read_bytes()
    (source.root / "a").write_bytes(edited(data, (399_000, b"changed by hand")))
    update(shelf, tmp_path, source)


def test_an_inventory_holds_only_files_of_the_right_size(shelf: Shelf, tmp_path: Path) -> None:
    source = installed(shelf, tmp_path)
    spoil(source.root / "bin/app", "longer")
    spoil(source.root / "bin/tool", "gone")
    inventory = take_inventory([source], without=frozenset({Place(0, TreePath("share/same"))}))
    paths = {str(place.path) for place in inventory.files.values()}
    assert paths == {"lib/libx.so.1.2", "share/text", "share/empty"}


# --- What the machine does ----------------------------------------------------------------------------------------


def planned(shelf: Shelf, tmp_path: Path) -> tuple[Plan, Downloads]:
    plan = plan_route(shelf.manifests[1], Inventory())
    downloads = Downloads(tmp_path / "downloads")
    downloads.fetch(plan, shelf.storage)
    return plan, downloads


def test_progress_tells_of_the_bytes_made(shelf: Shelf, tmp_path: Path) -> None:
    plan, downloads = planned(shelf, tmp_path)
    seen: list[Progress] = []
    rebuild(plan, [], downloads, tmp_path / "made", progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1] == Progress(Phase.REBUILD, plan.manifest.size, plan.manifest.size)


def test_a_rebuild_can_be_cancelled(shelf: Shelf, tmp_path: Path) -> None:
    plan, downloads = planned(shelf, tmp_path)
    with pytest.raises(Cancelled):
        rebuild(plan, [], downloads, tmp_path / "made", cancelled=lambda: True)


def test_a_destination_that_holds_something_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    plan, downloads = planned(shelf, tmp_path)
    write_tree(tmp_path / "made", {"bin": "/etc"})
    with pytest.raises(InstallFailed, match="not empty"):
        rebuild(plan, [], downloads, tmp_path / "made")


def test_a_full_disk_is_told_in_a_sentence(shelf: Shelf, tmp_path: Path) -> None:
    plan, downloads = planned(shelf, tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InstallFailed, match="Writing the new release failed: Not a directory"):
        rebuild(plan, [], downloads, tmp_path / "file" / "made")


def test_pieces_that_do_not_make_the_signed_file_are_untrusted(shelf: Shelf, tmp_path: Path) -> None:
    manifest = shelf.manifests[1]
    files = tuple(
        replace(file, digest=Digest.of(b"else")) if file.path == "share/added" else file for file in manifest.files
    )
    wrong = replace(manifest, files=files)
    with pytest.raises(Untrusted, match="share/added does not come out"):
        make_tree(wrong, [], Downloads(tmp_path / "d"), tmp_path / "made", reader=shelf.storage)


# --- Any tree to any other ----------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h*", "i.so.1", "i.so.2"])
blocks = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40_000)), max_size=4)
contents = blocks.map(lambda parts: b"".join(some_bytes(seed, size) for seed, size in parts))
trees = st.dictionaries(names, contents, min_size=1)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(trees, min_size=2, max_size=3), st.sampled_from(Effort), st.booleans())
def test_any_tree_becomes_any_other_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory,
    versions: list[dict[str, bytes]],
    effort: Effort,
    skip: bool,  # drawn
) -> None:
    folder = tmp_path_factory.mktemp("any")
    shelf = Shelf(folder)
    for number, tree in enumerate(versions):
        shelf.add(f"{number + 1}", dict(tree), effort=effort)
    source = installed(shelf, folder, "1" if skip else f"{len(versions) - 1}")
    plan = update(shelf, folder, source, to=len(versions) - 1)
    assert sum(plan.result_by_means.values()) == shelf.manifests[-1].size
    nothing = plan_route(shelf.manifests[-1], Inventory())
    assert plan.download_size <= nothing.download_size or not plan.pieces or plan.requests > 1
