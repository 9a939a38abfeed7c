"""Pools that must be refused, and what happens to a tree that is there already."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.compat.atomupd.answers import find_update
from instar.compat.atomupd.image import Image
from instar.compat.atomupd.pool import Pool, PoolImage, read_pool
from instar.compat.atomupd.settings import ServerSettings
from instar.compat.atomupd.tree import Generated, generate
from instar.compat.atomupd.version import BuildId, ImageVersion
from instar.errors import Busy, Misconfigured
from instar.policy.ladder import Aim
from instar.system.locks import exclusive_folder
from tests.support.atomupd_pools import add_image, make_pool, offers_in, write_settings

# Ten thousand random pools take a minute and a half: in CI, or when asked for.
EXAMPLES = int(os.environ.get("INSTAR_EXAMPLES", "10000" if os.environ.get("CI") else "200"))
STABLE = "holo/steamos/amd64/steamdeck/stable"


def settings_for(tmp_path: Path, *lines: str, branches: str = "stable", more: str = "", **words: str) -> ServerSettings:
    pool = make_pool(tmp_path / "pool", lines)
    return ServerSettings.read(write_settings(tmp_path / "server.conf", pool, branches=branches, more=more, **words))


def run(tmp_path: Path, *lines: str, branches: str = "stable", size: int = 0) -> Generated:
    settings = settings_for(tmp_path, *lines, branches=branches)
    return generate(settings, tmp_path / "tree", size_of=lambda _old, _new: size)


BAD_POOLS = [
    (["3.6 20231202.1 stable", "3.6 20231202.1 beta vanilla"], "has the version, release and build of"),
    (["3.6 20231202.1 stable", "snapshot 20231202.1 stable"], "has the version, release and build of"),
    (["3.6 20231202.1 stable", "3.6 20231203.1 stable r3 i2"], "requires checkpoint 3 and introduces 2"),
    (["3.6 20231202.1 stable", "3.6 20231203.1 stable r3 i3"], "requires checkpoint 3 and introduces 3"),
    (["3.6 20231202.1 stable", "3.6 20231203.1 stable shadow"], "introduces none"),
    (["3.6 20231202.1 stable", "3.6 20231203.1 stable i1 shadow skip"], "shadow checkpoint and skipped"),
    (["3.6 20231202.1 stable i1", "3.6 20231203.1 stable i1"], "introduces checkpoint 1 of steamdeck stable as"),
    (["3.6 20231202.1 stable i1 shadow", "3.6 20231203.1 stable i1 shadow"], "introduces checkpoint 1 of steamdeck"),
    (["3.6 20231202.1 stable", "3.6 20231203.1 stable deleted"], "lies without its bundle"),
    # An image that is not served must be sound all the same: tomorrow it may be.
    (["3.6 20231202.1 stable", "3.6 20231203.1 staging deleted"], "lies without its bundle"),
]


@pytest.mark.parametrize(("lines", "sentence"), BAD_POOLS)
def test_a_pool_with_an_error_changes_nothing_and_the_sentence_names_the_file(
    lines: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured, match=sentence) as caught:
        run(tmp_path, *lines)
    assert ".manifest.json" in str(caught.value)
    assert not (tmp_path / "tree").exists()


GOOD_POOLS = [
    ["3.6 20231202.1 stable i1", "3.6 20231203.1 stable i1 shadow"],
    ["3.6 20231202.1 stable i1", "3.6 20231203.1 stable i1 skip"],
    ["3.6 20231202.1 stable i1", "3.6 20231203.1 beta i1"],
    ["3.6 20231202.1 stable", "3.6 20231203.1 stable skip deleted"],
    ["3.6 20231202.1 stable", "3.6-rc1 20231203.1 stable"],
]


@pytest.mark.parametrize("lines", GOOD_POOLS)
def test_a_pool_without_an_error_is_taken(lines: list[str], tmp_path: Path) -> None:
    assert run(tmp_path, *lines).written


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (add_image(tmp_path / "pool", "3.6 20231202.1 stable")).write_text("")
    with pytest.raises(Misconfigured, match=r"20231202\.1.*\.manifest\.json cannot be read: it is not JSON"):
        run(tmp_path, "3.6 20231203.1 stable")


@pytest.mark.skipif(sys.platform == "win32", reason="it has other limits")
def test_a_folder_that_cannot_be_read_is_named_and_what_is_in_it_does_not_vanish(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", ["3.6 20231202.1 stable"])
    # Too deep for a path: the way to be refused that the superuser knows too.
    inner = os.open(pool, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=inner)
        outer, inner = inner, os.open("x" * 250, os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)
    with pytest.raises(Misconfigured, match=r"the folder .*x cannot be read: File name too long"):
        run(tmp_path)
    assert not (tmp_path / "tree").exists()


def test_a_missing_chunk_store_is_named(tmp_path: Path) -> None:
    manifest = add_image(tmp_path / "pool", "3.6 20231202.1 stable")
    Path(str(manifest).replace(".manifest.json", ".castr")).rmdir()
    with pytest.raises(Misconfigured, match="lies without its chunk store"):
        run(tmp_path)


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    lines = [f"3.6 202312{day}.1 stable deleted" for day in range(10, 24)]
    with pytest.raises(Misconfigured, match="and 4 more"):
        run(tmp_path, *lines)


def test_chunk_stores_and_hidden_folders_are_not_walked(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    manifest = add_image(pool, "3.6 20231202.1 stable")
    add_image(pool, "3.6 20231202.1 stable", folder="steamdeck/.ci")
    store = Path(str(manifest).replace(".manifest.json", ".castr"))
    (store / "broken.manifest.json").write_text("")
    assert len(read_pool(settings_for(tmp_path)).images) == 1


def test_a_checkpoint_that_was_taken_back_without_another_is_remarked(tmp_path: Path) -> None:
    done = run(tmp_path, "3.6 20231201.1 stable", "3.6 20231202.1 stable i1 skip")
    assert [w for w in done.warnings if "no other image introduces checkpoint 1" in w]


def test_a_branch_without_an_image_is_an_error_unless_the_pool_is_being_built_up(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no image of steamos holo amd64 steamdeck in the branch 'beta'"):
        run(tmp_path, "3.6 20231201.1 stable", branches="stable beta")
    assert not (tmp_path / "tree").exists()
    lenient = settings_for(tmp_path, branches="stable beta", more="StrictPoolValidation = False\n")
    generate(lenient, tmp_path / "tree", size_of=lambda _old, _new: 0)
    assert offers_in(tmp_path / "tree")["holo/steamos/amd64/steamdeck/beta.json"] == "-"


def test_a_pool_without_an_image_is_remarked(tmp_path: Path) -> None:
    assert ["holds no image" in warning for warning in run(tmp_path).warnings] == [True]


def test_images_without_a_stable_version_need_to_be_asked_for(tmp_path: Path) -> None:
    lines = ("3.6 20231201.1 stable", "3.7-rc1 20231202.1 stable", "snapshot 20231203.1 stable")
    assert len(read_pool(settings_for(tmp_path, *lines, Unstable="False")).images) == 1
    assert len(read_pool(settings_for(tmp_path, Unstable="True")).images) == 3


BAD_CONFIGURATIONS = [
    ("", "no section"),
    ("[Images]\n", "missing"),
    ("[Images]\nPoolDir = {pool}\nProducts = a\nReleases = b\nVariants = c\nBranches = d\n", "'Archs' is missing"),
    ("[Images]\nProducts = a\nReleases = b\nVariants = c\nBranches = d\nArchs = e\n", "'PoolDir' is missing"),
    ("{whole}[Images.ProvideRemoteInfoConfig]\nVariants = a\nBranches = b\n", "needs an architecture"),
    ("{whole}[Images.ProvideRemoteInfoConfig.riscv]\nVariants = a\nBranches = b\n", "'riscv', which is not among"),
    ("{whole}[Images.ProvideRemoteInfoConfig.amd64]\nBranches = b\n", "'Variants' is missing in"),
    ("{whole}[Images.ProvideRemoteInfoConfig.amd64]\nVariants = b\n", "'Branches' is missing in"),
    ("{whole}[Images.BranchesToConsider]\na = b\nb = c\nc = a\n", "in a circle"),
    ("{whole}VariantsEOL = vanilla\n", "old:new"),
    ("{whole}Unstable = perhaps\n", "Not a boolean"),
    ("{whole}[Server]\nPort = x\n", "invalid literal"),
    ("no ini at all", "no section headers"),
]


@pytest.mark.parametrize(("text", "sentence"), BAD_CONFIGURATIONS)
def test_a_bad_configuration_is_refused_with_its_name(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "server.conf"
    whole = "[Images]\nPoolDir = {pool}\nProducts = a\nReleases = b\nVariants = c\nBranches = d\nArchs = amd64\n"
    path.write_text(text.replace("{whole}", whole).replace("{pool}", str(tmp_path)))
    with pytest.raises(Misconfigured, match=sentence) as caught:
        ServerSettings.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("missing", ["server.conf", "pool"])
def test_what_is_not_there_is_named(missing: str, tmp_path: Path) -> None:
    write_settings(tmp_path / "server.conf", tmp_path / "pool", branches="stable")
    (tmp_path / missing).unlink(missing_ok=True)
    with pytest.raises(Misconfigured, match=str(tmp_path / missing)):
        read_pool(ServerSettings.read(tmp_path / "server.conf"))


def test_a_second_run_writes_nothing_and_a_new_image_only_what_changed(tmp_path: Path) -> None:
    first = run(tmp_path, "3.6 20240104.1 stable", "3.7 20240115.1 stable")
    tree = tmp_path / "tree"
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*.json")}
    second = run(tmp_path)
    assert second.written == ()
    assert second.unchanged == len(first.written) == 4
    add_image(tmp_path / "pool", "3.8 20240116.1 stable")
    third = run(tmp_path)
    assert sorted(third.written) == [
        f"{STABLE}.json",
        f"{STABLE}.second_last.json",
        f"{STABLE}/3.6.0/20240104.1.json",
        f"{STABLE}/3.7.0/20240115.1.json",
        f"{STABLE}/3.8.0/20240116.1.json",
    ]
    assert before.keys() < set(tree.rglob("*.json"))
    assert not [path for path in tree.iterdir() if path.name.startswith(".")]


def test_an_answer_that_differs_in_its_size_alone_keeps_the_old_size(tmp_path: Path) -> None:
    run(tmp_path, "3.6 20240104.1 stable", "3.7 20240115.1 stable", size=1234)
    answer = tmp_path / f"tree/{STABLE}/3.6.0/20240104.1.json"
    assert json.loads(answer.read_text())["minor"]["candidates"][0]["image"]["estimated_size"] == 1234
    assert run(tmp_path, size=99).written == ()
    assert '"estimated_size": 1234' in answer.read_text()
    add_image(tmp_path / "pool", "3.8 20240116.1 stable")
    run(tmp_path, size=99)
    assert '"estimated_size": 99' in answer.read_text()


def test_sizes_are_given_only_where_the_old_image_is_known(tmp_path: Path) -> None:
    run(tmp_path, "3.6 20240104.1 stable", "3.7 20240115.1 stable", size=1234)
    with_size = [p for p in (tmp_path / "tree").rglob("*.json") if '"estimated_size": 1234' in p.read_text()]
    assert [str(path.relative_to(tmp_path / "tree")) for path in with_size] == [f"{STABLE}/3.6.0/20240104.1.json"]


def test_sizes_are_estimated_for_the_newest_images_and_for_every_checkpoint(tmp_path: Path) -> None:
    lines = [f"3.{n} 20240101.{n} stable {'i1' if n == 3 else 'r1' if n > 3 else ''}" for n in range(1, 160)]
    asked = []
    generate(
        settings_for(tmp_path, *lines),
        tmp_path / "tree",
        size_of=lambda old, _new: asked.append(old.image.buildid.number) or 0,  # type: ignore[func-returns-value]
    )
    assert sorted(asked) == [3, *range(10, 159)]


def test_a_file_that_cannot_be_parsed_is_replaced_with_a_warning(tmp_path: Path) -> None:
    run(tmp_path, "3.6 20240104.1 stable")
    (tmp_path / f"tree/{STABLE}.json").write_text("{")
    done = run(tmp_path)
    assert done.written == (f"{STABLE}.json",)
    assert "could not be read as JSON" in done.warnings[0]


def test_what_was_not_generated_stays_with_a_warning_where_something_was(tmp_path: Path) -> None:
    left, elsewhere = tmp_path / f"tree/{STABLE}/3.6.0/20230101.1.json", tmp_path / "tree/other/1.json"
    for path in (left, elsewhere):
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    done = run(tmp_path, "3.6 20240104.1 stable")
    assert [w for w in done.warnings if f"{STABLE}/3.6.0/20230101.1.json was left" in w] == list(done.warnings)
    assert left.read_text() == elsewhere.read_text() == "mine"


def test_an_image_cannot_become_a_shadow(tmp_path: Path) -> None:
    run(tmp_path, "3.6 20240104.1 stable", "3.7 20240105.1 stable i1")
    before = {path: path.read_bytes() for path in (tmp_path / "tree").rglob("*.json")}
    add_image(tmp_path / "pool", "3.7 20240105.1 stable i1 shadow")
    with pytest.raises(Misconfigured, match=r"shadow checkpoint, but .*20240105\.1\.json shows"):
        run(tmp_path, "3.8 20240106.1 stable r1")
    assert {path: path.read_bytes() for path in (tmp_path / "tree").rglob("*.json")} == before


def test_one_instance_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with exclusive_folder(tmp_path / "tree", what="it"), pytest.raises(Busy):
        run(tmp_path, "3.6 20240104.1 stable")
    assert run(tmp_path).written


BRANCHES = ("stable", "rc", "beta", "main")
CONSIDER: dict[str, tuple[str, ...]] = {"rc": ("stable",), "beta": ("stable", "rc"), "main": ("beta",)}


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Sound pools with up to four branches, each a careful history; some images skipped, shadows, without version."""
    found = []
    versioned = draw(st.booleans())
    for branch in draw(st.lists(st.sampled_from(BRANCHES), min_size=1, unique=True)):
        passed = 0
        for _ in range(draw(st.integers(1, 5))):
            introduces = passed + 1 if draw(st.integers(0, 3)) == 0 else 0
            shadow = bool(introduces) and draw(st.booleans())
            number = len(found) + 1
            minor = draw(st.integers(1, 9))
            version = ImageVersion.coerce(f"3.{minor}") if versioned else None
            skip = not introduces and draw(st.integers(0, 5)) == 0
            image = Image(
                "os",
                "holo",
                draw(st.sampled_from(["deck", "deck", "old"])),
                branch,
                branch,
                "amd64",
                version,
                BuildId.parse(f"202401{draw(st.integers(10, 28))}.{number}"),
                introduces,
                passed,
                shadow,
                skip=skip,
            )
            found.append(PoolImage(image, f"{number}.manifest.json", f"{number}.raucb"))
            passed = introduces or passed
    ended = draw(st.sampled_from([{}, {"old": "deck"}]))
    words = frozenset
    return Pool(
        ServerSettings(
            Path("pool"),
            words({"os"}),
            words({"holo"}),
            words({"deck", "old"}),
            BRANCHES,
            words({"amd64"}),
            ended=ended,
            consider=draw(st.sampled_from([{}, CONSIDER])),
        ),
        tuple(found),
    )


@settings(max_examples=EXAMPLES)
@given(pools(), st.data())
def test_a_device_that_follows_its_answers_ends_at_one_image_and_passes_each_checkpoint_once(
    pool: Pool, data: st.DataObject
) -> None:
    start = data.draw(st.sampled_from([one for one in pool.images if not one.image.shadow_checkpoint] or pool.images))
    branch = data.draw(st.sampled_from(BRANCHES))
    image, seen = start.image, {start.image.buildid}
    while way := find_update(pool, image, branch, Aim.NEWER).way:
        step = way[0].image
        assert step.buildid not in seen, "a cycle"
        seen.add(step.buildid)
        assert not step.skip
        assert not step.shadow_checkpoint
        assert step.variant == pool.settings.ended.get(image.variant, image.variant)
        # The checkpoints between what was passed and what the step requires are all shadows' of its own line.
        passed = image.checkpoint
        assert passed <= step.requires_checkpoint
        shadows = {
            one.image.requires_checkpoint: one.image.introduces_checkpoint
            for one in pool.images
            if one.image.shadow_checkpoint and (one.image.variant, one.image.branch) == (step.variant, step.branch)
        }
        while passed < step.requires_checkpoint:
            assert passed in shadows, "a checkpoint was skipped"
            passed = shadows[passed]
        assert passed == step.requires_checkpoint
        image = step


@settings(max_examples=EXAMPLES)
@given(pools(), st.data())
def test_every_device_of_a_branch_that_follows_no_other_reaches_its_newest(pool: Pool, data: st.DataObject) -> None:
    start = data.draw(st.sampled_from(pool.images))
    image = start.image
    if image.shadow_checkpoint or image.variant in pool.settings.ended or pool.settings.consider.get(image.branch):
        return
    tops = pool.ladders(image, image.branch)[0].tops
    order = [rung.release.image for rung in pool.ladders(image, image.branch)[0].rungs]
    passed_before = [0, *(one.checkpoint for one in order)]
    careful = all(one.requires_checkpoint == passed for one, passed in zip(order, passed_before, strict=False))
    if not tops or not careful or image.order < order[0].order or image.skip:
        return  # builds that are out of order with their checkpoints promise nothing
    branch = image.branch
    if not image.order < tops[-1].order:
        return
    while way := find_update(pool, image, branch, Aim.NEWER).way:
        image = way[0].image
    assert image == tops[-1].release.image
