"""Writing packs: Zstandard frames one after the other, so that ``zstd -d`` prints what a pack holds. Publisher's half.

Patches mean nothing without their base; each is wrapped in a *skippable* frame, which ``zstd -d`` passes over.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from instar.content._zstd import zstd
from instar.model.digest import Digest
from instar.model.manifest import Pack
from instar.system.files import create_file, move, sync_file

__all__ = ["PackFile", "PackWriter", "compress_frame", "skippable"]

_SKIPPABLE_MAGIC: Final = 0x184D2A50  # RFC 8878, section 3.1.2; sixteen numbers from this one are reserved for users
_HEADER: Final = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class PackFile:
    """A file to upload: ``key`` in the storage, named by its content."""

    key: str
    path: Path
    size: int


class PackWriter:
    """A pack being written. A ``with`` block around it removes what was not finished.

    Args:
        folder: where it is written; ``finish`` leaves it there under its content's name.
        name: tells this one from others that are written at the same time.

    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f".{name}.tmp"
        self._file = create_file(self._path)
        self._digest = hashlib.sha256()
        self.size = 0

    def add(self, data: bytes) -> int:
        """Append bytes; gives the offset that they lie at."""
        at = self.size
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
        return at

    def add_patch(self, payload: bytes) -> int:
        """Append a patch in its wrapping; gives the offset that the patch itself lies at."""
        return self.add(skippable(payload)) + _HEADER.size

    def finish(self) -> tuple[Pack, PackFile]:
        """Make it durable, and give it its name."""
        sync_file(self._file)
        self._file.close()
        pack = Pack(Digest(self._digest.digest()), self.size)
        path = self._path.with_name(pack.key.rpartition("/")[2])
        move(self._path, path)
        return pack, PackFile(pack.key, path, pack.size)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it unless it was finished."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def skippable(payload: bytes) -> bytes:
    """Wrap bytes so that a Zstandard decoder passes over them."""
    return _HEADER.pack(_SKIPPABLE_MAGIC, len(payload)) + payload


def compress_frame(data: bytes, level: int) -> bytes:
    """Compress content into one frame whose window reaches over all of it."""
    return zstd.compress(data, options=_options(data, level))


def _options(data: bytes, level: int) -> dict[int, int]:
    return {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.window_log: min(max(10, (len(data) - 1).bit_length()), 27),
    }
