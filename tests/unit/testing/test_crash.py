"""Interrupting: what is counted, what happens at the step that was chosen, and what is told of it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from instar.system import files
from instar.testing.crash import DISK_FULL, KILL, READ_ONLY, Fail, every_step, run, steps_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def work(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("x")
    (folder / "sub" / "file").read_text()
    (folder / "sub" / "file").rename(folder / "moved")
    (folder / "link").symlink_to("moved")
    sys.audit("instar.exchange", str(folder / "sub"), str(folder / "moved"))
    files.remove_tree(folder / "sub")


STEPS = ("os.mkdir sub", "open sub/file", "os.rename sub/file moved", "os.symlink link", "instar.exchange sub moved")


def test_every_change_below_the_folder_is_a_step_and_reading_is_none(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()

    def both() -> None:
        work(outside)
        work(inside)

    steps = steps_of(both, below=inside)
    assert steps[: len(STEPS)] == STEPS
    assert steps[len(STEPS) :] == ("os.rmdir sub",)


def test_a_kill_comes_before_the_chosen_step(tmp_path: Path) -> None:
    ended = run(lambda: work(tmp_path), below=tmp_path, fault=KILL, at=3)
    assert (ended.reached, ended.killed, ended.finished) == (True, True, False)
    assert ended.steps == STEPS[:3]
    assert (tmp_path / "sub" / "file").exists()


def test_a_refusal_is_the_error_that_the_system_raises(tmp_path: Path) -> None:
    ended = run(lambda: work(tmp_path), below=tmp_path, fault=READ_ONLY, at=2)
    assert (ended.reached, ended.killed) == (True, False)
    assert "Read-only file system" in str(ended.error)
    assert "OSError" in ended.families
    assert "write_text" in ended.trace


def test_a_lasting_refusal_lasts_and_a_passing_one_does_not(tmp_path: Path) -> None:
    def try_twice() -> None:
        for name in ("first", "second"):
            try:
                (tmp_path / name).mkdir()
            except OSError:
                continue

    run(try_twice, below=tmp_path, fault=READ_ONLY, at=1)
    assert list(tmp_path.iterdir()) == []
    run(try_twice, below=tmp_path, fault=Fail(READ_ONLY.number, lasting=False), at=1)
    assert [path.name for path in tmp_path.iterdir()] == ["second"]


def test_a_full_disk_lets_things_be_removed(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    ended = run((tmp_path / "old").unlink, below=tmp_path, fault=DISK_FULL, at=1)
    assert ended.finished
    assert not (tmp_path / "old").exists()


def test_every_step_is_taken_once_and_then_it_ends(tmp_path: Path) -> None:
    def prepare(at: int) -> tuple[Path, Callable[[], object]]:
        folder = tmp_path / str(at)
        folder.mkdir()
        return folder, lambda: work(folder)

    assert [at for at, _, _ in every_step(prepare)] == [1, 2, 3, 4, 5, 6]


def test_a_function_that_fails_by_itself_is_told_from_one_that_was_interrupted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        steps_of(lambda: 1 / 0, below=tmp_path)
    with pytest.raises(RuntimeError, match="something else"):
        run(lambda: os._exit(3), below=tmp_path)
