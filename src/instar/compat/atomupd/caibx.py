"""Indexes of chunked images (``.caibx``), as casync and desync write them. Reading only, and no chunk is touched."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["MAX_INDEX", "read_index"]

MAX_INDEX: Final = 256 << 20
"""Bytes of one index: 40 for each chunk, so an image of 400 GB in chunks of 64 KiB."""

_HEADER: Final = struct.Struct("<6Q")
_TABLE: Final = struct.Struct("<2Q")
_ENTRY: Final = struct.Struct("<Q32s")
_TAIL: Final = struct.Struct("<5Q")
_INDEX_TYPE: Final = 0x96824D9C7B129FF9
_TABLE_TYPE: Final = 0xE75B9E112F17417D
_TAIL_MARKER: Final = 0x4B4F050E5549ECD1
_UNSIZED: Final = 0xFFFFFFFFFFFFFFFF


def read_index(data: bytes) -> dict[bytes, int]:
    """Read which chunks an image consists of.

    Returns:
        The size in bytes of each distinct chunk, by its id of 32 bytes, in order of their first place in the image.

    Raises:
        ValueError: it is no such index.

    """
    fixed = _HEADER.size + _TABLE.size + _TAIL.size
    if len(data) < fixed or (len(data) - fixed) % _ENTRY.size:
        msg = f"an index of {len(data)} bytes has no whole number of chunks"
        raise ValueError(msg)
    header_size, header_type, *_ = _HEADER.unpack_from(data)
    table_size, table_type = _TABLE.unpack_from(data, _HEADER.size)
    zero, zero_too, at, length, marker = _TAIL.unpack_from(data, len(data) - _TAIL.size)
    if (header_size, header_type, table_size, table_type) != (_HEADER.size, _INDEX_TYPE, _UNSIZED, _TABLE_TYPE):
        msg = "it does not begin as an index of chunks does"
        raise ValueError(msg)
    if (zero, zero_too, at, length, marker) != (0, 0, _HEADER.size, len(data) - _HEADER.size, _TAIL_MARKER):
        msg = "it does not end as an index of chunks does"
        raise ValueError(msg)
    return dict(_chunks(data[_HEADER.size + _TABLE.size : len(data) - _TAIL.size]))


def _chunks(table: bytes) -> Iterator[tuple[bytes, int]]:
    begin = 0
    for end, chunk in _ENTRY.iter_unpack(table):
        if end <= begin:
            msg = "a chunk of the index ends before it begins"
            raise ValueError(msg)
        yield chunk, end - begin
        begin = end
