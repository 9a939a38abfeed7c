"""What can be the key of an object."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.storage import Key, is_immutable
from instar.storage.keys import check_prefix


@pytest.mark.parametrize(
    "text",
    [
        "metadata/timestamp.json",
        "metadata/12.app-channels.json",
        "targets/app/0c.linux-x86_64-1!2.0rc1+local.7.manifest",
        "packs/ab/abcd.tar.zst",
        "metadata/1.%2E%2E%2Frole.json",
        "a" * 220,
        "/".join(["ab"] * 333),
    ],
)
def test_what_a_repository_holds_has_a_key(text: str) -> None:
    assert Key(text) == text
    assert Key(Key(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        ".hidden",
        "a/.hidden/b",
        "a./b",
        "a\\b",
        "c:/x",
        "a b",
        "a\nb",
        "a\0b",
        "ä",
        "a?b",
        "a#b",
        "a%",
        "a%2",
        "a%2f",
        "a%zz",
        "a" * 221,
        "/".join(["ab"] * 334),
    ],
)
def test_what_could_mean_something_else_somewhere_is_not_a_key(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be the key"):
        Key(text)


@given(st.text(alphabet=st.sampled_from("ab./\\%2EF:~\0 "), max_size=12) | st.text(max_size=12))
def test_no_key_leads_out_of_a_folder(text: str) -> None:
    try:
        key = Key(text)
    except ValueError:
        return
    for path in (PurePosixPath(key), PureWindowsPath(key)):
        assert not path.is_absolute()
        assert not path.drive
        assert ".." not in path.parts
        assert path.as_posix() == key


@pytest.mark.parametrize("text", ["", "a", "packs/", "packs/ab", "metadata/1.", "a/b/"])
def test_these_can_begin_a_key(text: str) -> None:
    assert check_prefix(text) == text


@pytest.mark.parametrize("text", ["/", ".", "a/.", "../", "a/../", "//", "a//", "a b", "a?"])
def test_these_cannot_begin_a_key(text: str) -> None:
    with pytest.raises(ValueError, match="begins with"):
        check_prefix(text)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("metadata/timestamp.json", False),
        ("metadata/root.json", False),
        ("metadata/1.root.json", True),
        ("metadata/12.app-bins-0f.json", True),
        ("metadata/x/1.root.json", False),
        (f"targets/app/{'0c' * 32}.channels.json", True),
        ("targets/app/channels.json", False),
        (f"targets/app/{'0c' * 31}.channels.json", False),
        (f"packs/0c/{'0c' * 32}.pack", True),
        (f"packs/{'0c' * 32}.pack", False),
        ("packs/0c/latest.pack", False),
        ("index.html", False),
    ],
)
def test_a_name_with_a_version_or_a_hash_never_changes_its_content(key: str, expected: bool) -> None:
    assert is_immutable(key) is expected
