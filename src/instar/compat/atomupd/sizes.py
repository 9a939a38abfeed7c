"""How much an update downloads, estimated from the indexes inside the bundles.

No chunk is read and nothing is verified: an estimate is shown to a person and decides nothing.

Bundles are read by the program ``unsquashfs``, which knows every compression that a bundle may use; a parser of our own
for a file system would be a second one to keep safe.
"""

from __future__ import annotations

import json
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from instar.compat.atomupd.caibx import MAX_INDEX, read_index
from instar.compat.atomupd.pool import CHUNKS_DETAILS, PoolImage
from instar.system.files import read_bounded
from instar.system.process import run_program

__all__ = ["ROOT_INDEX", "BundleSizes", "estimate_size"]

ROOT_INDEX: Final = "rootfs.img.caibx"
"""The index of the root file system, inside a bundle."""

_COMPRESSION: Final = 1.33
"""By how much chunks shrink, where nobody wrote it down: a careful guess, so as not to promise too small a download."""

_MAX_DETAILS: Final = 1 << 30  # bytes: some 120 for each chunk of an index
_SQUASHFS: Final = b"hsqs"
_TIMEOUT: Final = 60.0  # seconds to unpack one file of a few megabytes
_KEPT: Final = 8
"""Indexes kept in memory, up to some ten megabytes each: neighbours in a pool are compared with the same newest."""


def estimate_size(old: Mapping[bytes, int], new: Mapping[bytes, int], compressed: Mapping[bytes, int]) -> int:
    """Add up the chunks of ``new`` that are not in ``old``.

    Args:
        old: the sizes in bytes of the chunks that are here, by id.
        new: those of the image to come.
        compressed: their compressed sizes, as far as they are known.

    """
    missing = new.keys() - old.keys()
    if missing <= compressed.keys():
        return sum(compressed[chunk] for chunk in missing)
    return int(sum(new[chunk] for chunk in missing) / _COMPRESSION)


@dataclass
class BundleSizes:
    """Estimates for the images of a pool. ``warnings`` say why something is not known.

    Args:
        pool: the folder of the pool.
        environment: with which programs are started.

    """

    pool: Path
    environment: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)
    _indexes: OrderedDict[str, Mapping[bytes, int] | None] = field(default_factory=OrderedDict, init=False, repr=False)

    def __call__(self, old: PoolImage, new: PoolImage) -> int:
        """Give the bytes that a device with ``old`` downloads for ``new``; 0 where that is not known."""
        have, want = self._index(old), self._index(new)
        if have is None or want is None:
            return 0
        return estimate_size(have, want, self._compressed(new))

    def _index(self, one: PoolImage) -> Mapping[bytes, int] | None:
        if not one.bundle:
            return None
        if one.bundle not in self._indexes:
            try:
                self._indexes[one.bundle] = self._read_index(self.pool / one.bundle)
            except (OSError, ValueError) as error:
                self.warnings.append(
                    f"{one.bundle}: the size of updates is not known, its index cannot be read: {error}"
                )
                self._indexes[one.bundle] = None
            if len(self._indexes) > _KEPT:
                self._indexes.popitem(last=False)
        self._indexes.move_to_end(one.bundle)
        return self._indexes[one.bundle]

    def _read_index(self, bundle: Path) -> Mapping[bytes, int] | None:
        with bundle.open("rb") as file:
            if file.read(len(_SQUASHFS)) != _SQUASHFS:
                # A placeholder, or an encrypted bundle: nothing that could be said about it.
                return None
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "bundle")
            argv = [
                "unsquashfs",
                "-no-progress",
                "-no-xattrs",
                "-dest",
                str(target),
                str(bundle.absolute()),
                ROOT_INDEX,
            ]
            ended = run_program(argv, folder=Path(folder), timeout=_TIMEOUT, environment=self.environment)
            if ended.code != 0:
                msg = f"unsquashfs ended with {ended.code}: {ended.output[-200:]}"
                raise ValueError(msg)
            index = target / ROOT_INDEX
            # A bundle may hold anything under this name: a pipe would be waited for without end.
            if index.is_symlink() or not index.is_file():
                msg = f"{ROOT_INDEX} in it is no file"
                raise ValueError(msg)
            return read_index(read_bounded(index, MAX_INDEX))

    def _compressed(self, one: PoolImage) -> Mapping[bytes, int]:
        try:
            rows = json.loads(read_bounded(self.pool / (one.stem + CHUNKS_DETAILS), _MAX_DETAILS))
            return {bytes.fromhex(row["id"]): int(row["compressed_size"]) for row in rows}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self.warnings.append(f"{one.stem}{CHUNKS_DETAILS} is not used: {error}")
            return {}
