"""The yardstick for updates without patches: the 32 KiB chunks of the new tree that the old one lacks, each alone.

That is what a store of single chunks (casync, desync) would send; compressed here at Zstandard 19, its best.
"""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pyfastcdc import FastCDC

from bench.inputs import files_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_AVERAGE = 32 << 10
_LEVEL = 19


def missing_chunks(old: Path, new: Path) -> dict[str, int]:
    """Bytes and number of the chunks that are in `new` and not in `old`, before and after compression."""
    held = {digest for digest, _ in _chunks(old)}
    missing: dict[bytes, bytes] = {digest: data for digest, data in _chunks(new) if digest not in held}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compressed = sum(pool.map(_compressed_size, missing.values()))
    return {"chunks": len(missing), "raw": sum(map(len, missing.values())), "bytes": compressed}


def _chunks(tree: Path) -> Iterator[tuple[bytes, bytes]]:
    cutter = FastCDC(avg_size=_AVERAGE, min_size=_AVERAGE // 4, max_size=_AVERAGE * 4)
    for path in files_of(tree):
        content = path.read_bytes()
        for chunk in cutter.cut_buf(content) if content else ():
            data = bytes(chunk.data)
            yield hashlib.sha256(data).digest(), data


def _compressed_size(data: bytes) -> int:
    # Releases the interpreter's lock, so threads are enough.
    return len(zstd.compress(data, level=_LEVEL))
