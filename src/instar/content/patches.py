"""Making patches: which old content a new file is most like, and the smallest way from there. Publisher's half.

Every patch is applied and compared before it is given out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import hdiffpatch

from instar.content._zstd import zstd
from instar.content.codecs import SHORTEST_PREFIX, apply_patch, diff_bound
from instar.content.packs import compress_frame
from instar.errors import InstarError
from instar.model.manifest import Codec, File
from instar.model.names import TreePath

__all__ = ["BaseFiles", "Effort", "Encoded", "encode_patch", "memory_of_patch"]


class Effort(StrEnum):
    """How much time may be spent on making downloads small."""

    FAST = "fast"
    BEST = "best"


# Level of what the patches consist of. Differences are short and compressed once, so more effort costs little.
_DIFF_LEVEL: Final = 19
# Level of prefix patches when time matters, and for small content, where it never does.
_FAST_LEVEL: Final = 9
_SMALL: Final = 32 << 10

# Bytes of base beyond which a prefix patch needs help to find what is far back.
_FAR: Final = 8 << 20

# How much larger one of two files may be for them to count as versions of one.
_SIMILAR_SIZE: Final = 2


@dataclass(frozen=True, slots=True)
class Encoded:
    """A patch, ready to be put into a pack."""

    codec: Codec
    data: bytes


class BaseFiles:
    """The files of an old release, asked which of them a new file was probably made from."""

    def __init__(self, files: Sequence[File]) -> None:
        self._by_path = {file.path: file for file in files if file.size}
        self._by_shape: dict[str, list[File]] = {}
        for file in self._by_path.values():
            self._by_shape.setdefault(_shape(file.path), []).append(file)

    def choose(self, path: TreePath, size: int) -> File | None:
        """Give the file with the same path, else the one of a similar name that is closest in size.

        Similar is a name that differs only in digits (``libx.so.1.2`` and ``libx.so.1.3``).
        """
        if file := self._by_path.get(path):
            return file
        alike = self._by_shape.get(_shape(path), [])
        fitting = [f for f in alike if f.size <= _SIMILAR_SIZE * size and size <= _SIMILAR_SIZE * f.size]
        return min(fitting, key=lambda file: (abs(file.size - size), file.path), default=None)


def _shape(path: TreePath) -> str:
    return re.sub(r"[0-9]+", "0", path)


def memory_of_patch(base: int, new: int) -> int:
    """Estimate the bytes of memory that making a patch takes."""
    # HDiffPatch's suffix array has 4 bytes for each byte of the base (8 beyond 2 GiB, which is never reached), and its
    # cache one more; then there are both contents, the difference, and the result of trying it out. Measured on a
    # program of 55 MB: 390 MB.
    return 6 * base + 2 * new


def encode_patch(base: bytes, new: bytes, effort: Effort) -> Encoded | None:
    """Make the smallest patch that makes ``new`` from ``base``, try it out, and give it; None if none works."""
    options: list[Encoded] = []
    if effort is Effort.FAST or len(new) <= _SMALL:
        level = _FAST_LEVEL if effort is Effort.FAST else _DIFF_LEVEL
        options.append(Encoded(Codec.ZSTD_PREFIX, _prefix_patch(base, new, level)))
    if effort is Effort.BEST:
        diff = hdiffpatch.diff(base, new, validate=False, big_cache_match=True)
        if len(diff) <= diff_bound(len(new)):
            options.append(Encoded(Codec.HDIFF, compress_frame(diff, _DIFF_LEVEL)))
    # A tie goes to the codec that every device has.
    options.sort(key=lambda option: (len(option.data), option.codec is Codec.HDIFF))
    return next((option for option in options if _works(base, option, new)), None)


def _prefix_patch(base: bytes, new: bytes, level: int) -> bytes:
    if len(base) < SHORTEST_PREFIX:
        return compress_frame(new, level)
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: level,
        parameter.window_log: max(10, (len(base) + len(new)).bit_length()),
        # Levels made for speed forget what is far back, and a base is far back.
        parameter.enable_long_distance_matching: int(len(base) > _FAR),
    }
    return zstd.compress(new, options=options, zstd_dict=zstd.ZstdDict(base, is_raw=True).as_prefix)


def _works(base: bytes, encoded: Encoded, new: bytes) -> bool:
    try:
        return apply_patch(encoded.codec, base, encoded.data, len(new)) == new
    except InstarError:
        return False
