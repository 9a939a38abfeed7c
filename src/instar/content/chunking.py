"""Cutting files by content, so that an insertion moves no later boundary. Publisher's half.

The boundaries are nobody's business but the publisher's: a manifest lists the chunks, and a device cuts nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyfastcdc import FastCDC

from instar.errors import Misconfigured
from instar.model.digest import Digest

__all__ = ["AVERAGE_CHUNK", "CutChunk", "cut_file"]

AVERAGE_CHUNK: Final = 32 << 10
"""Bytes of a chunk on average. Smaller ones find more that is shared, and make manifests longer."""

# In files of at least so many bytes chunks are twice as long: there they find almost as much (measured on 278 MB of
# libraries: 1.5 % less), and such files have most of the chunks that a manifest lists.
_LARGE_FILE: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class CutChunk:
    """A chunk of a file: ``size`` bytes, wherever the sum of the sizes before it says."""

    digest: Digest
    size: int


def cut_file(path: Path, expected: Digest) -> tuple[CutChunk, ...]:
    """Cut a file into chunks, in constant memory.

    Raises:
        Misconfigured: its content is not ``expected`` any more.
        OSError: it cannot be read.

    """
    whole = hashlib.sha256()
    chunks = []
    average = AVERAGE_CHUNK if path.stat().st_size < _LARGE_FILE else 2 * AVERAGE_CHUNK
    cutter = FastCDC(average, min_size=average // 4, max_size=average * 4)
    # Not by mapping the file into memory: one that shrinks meanwhile would kill the process.
    with path.open("rb", buffering=0) as file:
        for chunk in cutter.cut_stream(file):
            whole.update(chunk.data)
            chunks.append(CutChunk(Digest.of(chunk.data), chunk.length))
    if whole.digest() != expected.raw:
        msg = f"{path} changed while the release was made."
        raise Misconfigured(msg, hint="Release a folder that nothing writes to.")
    return tuple(chunks)
