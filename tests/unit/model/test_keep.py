"""Patterns of the user's files."""

import pytest

from instar.model.keep import Keep


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("settings.ini", ["settings.ini", "settings.ini/below"], ["x/settings.ini", "settings_ini", "settings.ini2"]),
        ("data", ["data", "data/x", "data/x/y"], ["database", "x/data"]),
        ("data/", ["data", "data/x"], ["database"]),
        ("data/*", ["data/x", "data/x/y"], ["data", "datax"]),
        ("*.log", ["a.log", ".log"], ["x/a.log", "a.logs"]),
        ("**/*.log", ["a.log", "x/a.log", "x/y/a.log"], ["a.txt"]),
        ("logs/**", ["logs/a", "logs/a/b"], ["logs"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "a/zz"]),
        ("file?", ["file1"], ["file", "file12", "file/"]),
        ("[ab]x", ["ax", "bx"], ["cx", "abx"]),
        ("[!ab]x", ["cx"], ["ax", "/x"]),
        ("[a-c]x", ["bx"], ["dx", "-x"]),
        ("we(ird)+.$", ["we(ird)+.$"], ["weird.$"]),
    ],
)
def test_a_pattern_names_what_it_says(pattern: str, matching: list[str], others: list[str]) -> None:
    keep = Keep((pattern,))
    assert [path for path in matching if not keep.matches(path)] == []
    assert [path for path in others if keep.matches(path)] == []


def test_any_of_several_patterns_will_do_and_none_names_nothing() -> None:
    assert Keep(("a", "b")).matches("b/c")
    assert not Keep(()).matches("a")
    assert not Keep(())
    assert Keep(("a",))


@pytest.mark.parametrize(
    "pattern", ["", "/", "/etc", "../x", "a/../b", "a//b", "a\\b", "*", "**", "**/*", "*/", "./a", "a\0b", "[z-a]x"]
)
def test_a_pattern_that_cannot_be_meant_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Keep((pattern,))


def test_an_unclosed_bracket_is_itself() -> None:
    assert Keep(("a[b",)).matches("a[b")
