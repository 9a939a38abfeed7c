"""The content of releases, read straight from packs and checked on the way. For verifying, not for devices."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from instar.content.codecs import expand_frame
from instar.errors import Untrusted
from instar.model.digest import Digest
from instar.model.manifest import Chunk, File, Frame, Manifest, Pack
from instar.storage.ports import Reader

__all__ = ["PackContents"]

# Bytes of decompressed frames that are remembered: neighbouring chunks and files share frames.
_CACHE: Final = 128 << 20


class PackContents:
    """The packs of a storage, as the content that manifests say they hold."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._frames: OrderedDict[tuple[Digest, Frame], bytes] = OrderedDict()
        self._held = 0

    def check_pack(self, pack: Pack) -> None:
        """Read a whole pack.

        Raises:
            Untrusted: its length or digest is not what its name says.
            Unavailable: it could not be read.

        """
        digest = hashlib.sha256()
        size = self._reader.stat(pack.key).size
        if size != pack.size:
            msg = f"{pack.key} has {size} bytes instead of {pack.size}."
            raise Untrusted(msg)
        with self._reader.stream(pack.key, start=0, length=pack.size) as blocks:
            for block in blocks:
                digest.update(block)
        if digest.digest() != pack.digest.raw:
            msg = f"{pack.key} is not what its name says."
            raise Untrusted(msg)

    def piece(self, pack: Pack, at: int, length: int, digest: Digest) -> bytes:
        """Read some bytes of a pack.

        Raises:
            Untrusted: they do not have that digest.
            Unavailable: they could not be read.

        """
        with self._reader.stream(pack.key, start=at, length=length) as blocks:
            data = b"".join(blocks)
        if Digest.of(data) != digest:
            msg = f"{length} bytes at {at} of {pack.key} are not what was signed."
            raise Untrusted(msg)
        return data

    def frame(self, manifest: Manifest, number: int) -> bytes:
        """Give the content of a manifest's frame.

        Raises:
            Untrusted: it is not what was signed.
            Unavailable: it could not be read.

        """
        frame = manifest.frames[number]
        pack = manifest.packs[frame.pack]
        name = (pack.digest, frame)
        content = self._frames.pop(name, None)
        if content is None:
            content = expand_frame(self.piece(pack, frame.offset, frame.length, frame.digest), frame.size)
            self._held += len(content)
        self._frames[name] = content
        while self._held > _CACHE and len(self._frames) > 1:
            self._held -= len(self._frames.popitem(last=False)[1])
        return content

    def chunk(self, manifest: Manifest, chunk: Chunk) -> bytes:
        """Give a chunk.

        Raises:
            Untrusted: it is not what was signed.
            Unavailable: it could not be read.

        """
        data = self.frame(manifest, chunk.frame)[chunk.offset : chunk.offset + chunk.size]
        if Digest.of(data) != chunk.digest:
            msg = f"A chunk at {chunk.offset} of frame {chunk.frame} is not what was signed."
            raise Untrusted(msg)
        return data

    def check_file(self, manifest: Manifest, file: File) -> None:
        """Put a file together from its chunks.

        Raises:
            Untrusted: it does not become what was signed.
            Unavailable: a chunk could not be read.

        """
        digest = hashlib.sha256()
        for number in file.chunks:
            digest.update(self.chunk(manifest, manifest.chunks[number]))
        if digest.digest() != file.digest.raw:
            msg = f"The chunks of {file.path} do not make the file that was signed."
            raise Untrusted(msg)

    def read(self, manifest: Manifest, file: File, offset: int, length: int) -> bytes:
        """Give part of a file.

        Raises:
            Untrusted: a chunk is not what was signed, or the file ends before that part does.
            Unavailable: a chunk could not be read.

        """
        parts, at, end = [], 0, offset + length
        for number in file.chunks:
            chunk = manifest.chunks[number]
            if at < end and at + chunk.size > offset:
                data = self.chunk(manifest, chunk)
                parts.append(data[max(0, offset - at) : end - at])
            at += chunk.size
        content = b"".join(parts)
        if len(content) != length:
            msg = f"A patch asks for {length} bytes at {offset} of {file.path}, which ends before."
            raise Untrusted(msg)
        return content
