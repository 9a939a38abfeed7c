"""Which part of an object a ``Range`` header asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.server.ranges import Part, Unsatisfiable, select_part


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", Part(0, 1)),
        ("bytes=0-99", Part(0, 100)),
        ("bytes=0-1000", Part(0, 100)),
        ("bytes=10-19", Part(10, 10)),
        ("bytes=99-", Part(99, 1)),
        ("bytes=0-", Part(0, 100)),
        ("bytes=-1", Part(99, 1)),
        ("bytes=-1000", Part(0, 100)),
        ("Bytes = 1 - 2 ", Part(1, 2)),
    ],
)
def test_one_range_is_a_part(header: str, part: Part) -> None:
    assert select_part(header, 100) == part


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=-", "bytes=5-1", "bytes=a-b", "bytes=0-1,5-6", "lines=0-1", f"bytes={9**30}-"],
)
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert select_part(header, 100) is None


@pytest.mark.parametrize(("header", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)])
def test_a_range_outside_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        select_part(header, size)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 200))
def test_a_part_is_what_slicing_gives(start: int, last: int, size: int) -> None:
    data = bytes(range(200))[:size]
    try:
        part = select_part(f"bytes={start}-{last}", size)
    except Unsatisfiable:
        assert start >= size
        return
    if part is None:
        assert last < start
    else:
        assert data[part.start : part.start + part.length] == data[start : last + 1]
        assert part.length > 0
