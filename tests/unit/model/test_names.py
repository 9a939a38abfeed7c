import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.model.names import Name, ProductName, TreePath, check_link_target, collision_key, windows_problem


@pytest.mark.parametrize("text", ["a", "myapp", "linux-x86_64", "1.2", "a" * 64])
def test_a_name_is_what_it_was_written_as(text: str) -> None:
    assert Name(text) == text


@pytest.mark.parametrize(
    "text", ["", "A", "a/b", "-a", "a-", ".a", "a..b", "a b", "a" * 65, "é", "a\n", "nul", "com1.app"]
)
def test_a_name_that_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        Name(text)


@pytest.mark.parametrize(
    "text", ["root", "targets", "snapshot", "timestamp", "a-channels", "a-bins", "a-bins-0f", "a-bin-1"]
)
def test_a_product_cannot_take_the_name_of_a_role(text: str) -> None:
    Name(text)
    with pytest.raises(ValueError, match="its own roles"):
        ProductName(text)


@pytest.mark.parametrize(
    "text", ["a", "a/b.c/d", ".hidden", "with space", "ünïcode/日本", "console.log", "com10", "a..b"]
)
def test_a_tree_path_is_what_it_was_written_as(text: str) -> None:
    assert TreePath(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "C:\\x",
        "nul",
        "lib/AUX.txt",
        "com1.tar.gz",
        "con ",
        "COM¹",
        "a\0b",
        "a\nb",
        "\udcff",
        "x" * 256,
        "/".join(["dir"] * 400),
    ],
)
def test_a_tree_path_that_some_disk_would_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be a path"):
        TreePath(text)


def test_parents_are_named_from_the_outside_in() -> None:
    assert TreePath("a/b/c").parents == ("a", "a/b")
    assert TreePath("a").parents == ()


@pytest.mark.parametrize("text", ["a:b", "what?", "a|b", "ends.", "ends ", "dir./x", 'q"uote'])
def test_windows_problems_are_named(text: str) -> None:
    assert windows_problem(TreePath(text)) is not None


def test_a_plain_path_has_no_windows_problem() -> None:
    assert windows_problem(TreePath("dir/file.txt")) is None


@pytest.mark.parametrize(("one", "two"), [("README", "readme"), ("straße", "STRASSE"), ("é", "e\u0301")])
def test_names_that_are_one_on_some_disk_share_a_collision_key(one: str, two: str) -> None:
    assert collision_key(one) == collision_key(two)


@pytest.mark.parametrize(
    ("path", "target"),
    [("a", "b"), ("lib/a", "b.so.1"), ("lib/a", "../bin/a"), ("x/y/z", "../.."), ("a", "dir/file")],
)
def test_a_link_inside_the_release_is_taken(path: str, target: str) -> None:
    check_link_target(TreePath(path), target)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", ""),
        ("a", "/etc/passwd"),
        ("a", "../x"),
        ("a/b", "../../x"),
        ("a", "b/../c"),
        ("a/b", "../c/../d"),
        ("a", "."),
    ],
)
def test_a_link_that_leaves_the_release_or_could_is_refused(path: str, target: str) -> None:
    with pytest.raises(ValueError, match="not inside the release"):
        check_link_target(TreePath(path), target)


@given(st.text(max_size=40))
def test_no_text_gets_past_as_a_path_that_escapes(text: str) -> None:
    try:
        path = TreePath(text)
    except ValueError:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert "\\" not in path
