import json
import threading
from pathlib import Path

import pytest

from instar.errors import Busy
from instar.system.locks import exclusive_folder
from instar.system.replacement import finish_replacing, replace_files

STAGED = ".instar-staged"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_replaced_and_created_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"1")
    (tmp_path / "kept").write_bytes(b"2")
    replace_files(tmp_path, [("old", b"3"), ("a/b/new", b"4")])
    assert content(tmp_path) == {"old": b"3", "kept": b"2", "a/b/new": b"4"}


def test_nothing_to_replace_is_nothing_to_do(tmp_path: Path) -> None:
    replace_files(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_whole_is_moved_by_the_next(tmp_path: Path) -> None:
    staged = tmp_path / STAGED
    staged.mkdir()
    (staged / "1").write_bytes(b"new")  # number 0 was moved before the interruption
    (staged / "list.json").write_text(json.dumps(["first", "a/second"]))
    assert finish_replacing(tmp_path)
    assert content(tmp_path) == {"a/second": b"new"}
    assert not finish_replacing(tmp_path)


def test_what_was_not_written_whole_is_removed(tmp_path: Path) -> None:
    (tmp_path / STAGED).mkdir()
    (tmp_path / STAGED / "0").write_bytes(b"half")
    assert not finish_replacing(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    def files() -> object:
        yield "old", b"3"
        msg = "no more"
        raise RuntimeError(msg)

    (tmp_path / "old").write_bytes(b"1")
    with pytest.raises(RuntimeError):
        replace_files(tmp_path, files())  # type: ignore[arg-type]
    assert content(tmp_path) == {"old": b"1"}
    assert not (tmp_path / STAGED).exists()


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    refused = []

    def other() -> None:
        try:
            with exclusive_folder(tmp_path, what="it"):
                pass
        except Busy as error:
            refused.append(error)

    with exclusive_folder(tmp_path, what="it"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    other()
    assert len(refused) == 1
    assert list(tmp_path.iterdir()) == []
