"""Small releases in a repository that a test holds in its hands, made straight from contents in memory.

The real publisher cuts files by content, packs and patches; this one does each thing in the plainest way that the
format allows, so that a release takes milliseconds and a test can spoil any part of it. What a device makes of the
result is the same.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from instar.content.manifests import compress_manifest, make_delta
from instar.model.channel import Channels, Entry
from instar.model.digest import Digest
from instar.model.manifest import Base, Chunk, Codec, File, Frame, Link, Manifest, Pack, Patch, piece_key
from instar.model.names import Name, ProductName, TreePath
from instar.model.version import Version
from instar.system.platform import detect_platform
from instar.testing.repository import TwinRepository
from instar.trust.layout import channels_path, manifest_path

__all__ = ["Bundle", "Releases", "read_bundle"]

# Content is cut every so many bytes: small, so that releases of some kilobytes have several chunks.
_CHUNK: Final = 16 << 10
# A skippable frame of Zstandard, which holds a patch, so that `zstd -d` passes over it.
_SKIPPABLE: Final = 0x184D2A50


@dataclass(frozen=True)
class Bundle:
    """What a release holds: contents by path, which of them can be run, links by path, empty folders."""

    files: Mapping[str, bytes]
    executable: AbstractSet[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)
    directories: AbstractSet[str] = frozenset()


def read_bundle(root: Path) -> Bundle:
    """Read a tree from the disk, to compare it with what was released."""
    files, executable, links, directories = {}, set(), {}, set()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            links[name] = path.readlink().as_posix()
        elif path.is_file():
            files[name] = path.read_bytes()
            executable |= {name} if path.stat().st_mode & stat.S_IXUSR else set()
        elif not any(path.iterdir()):
            directories.add(name)
    return Bundle(files, executable, links, directories)


class Releases:
    """Releases of the product of ``repository``, for one platform.

    Args:
        repository: where they are published.
        platform: this machine's unless given.

    Attributes:
        manifests: of what was released, by version.
        entries: of each channel, as they are offered now.

    """

    def __init__(self, repository: TwinRepository, *, platform: str | None = None) -> None:
        self.repository = repository
        self.platform = Name(platform or detect_platform())
        self.manifests: dict[str, Manifest] = {}
        self.bundles: dict[str, Bundle] = {}
        self.entries: dict[str, dict[str, Entry]] = {}
        self._chunks: dict[Digest, tuple[Pack, Frame]] = {}

    def release(
        self,
        version: str,
        bundle: Bundle,
        *,
        patched_from: str | None = None,
        notes: str = "",
        channel: str | None = "stable",
        deltas: bool = True,
        **offer: Any,
    ) -> Manifest:
        """Publish a release and offer it.

        Args:
            version: its version.
            bundle: its content.
            patched_from: an older version; changed files get a patch from the file at the same path.
            notes: shown to people.
            channel: where it is offered, None for nowhere.
            deltas: publish the manifest as a difference from each older one, too.
            offer: fields of its :class:`~instar.model.channel.Entry`, like ``percent`` or ``introduces``.

        """
        manifest = self._build(version, bundle, patched_from, notes)
        self.publish_manifest(version, manifest.to_json(), deltas=deltas)
        self.manifests[version], self.bundles[version] = manifest, bundle
        if channel is not None:
            self.offer(channel, version, **offer)
        return manifest

    def publish_manifest(self, version: str, document: bytes, *, deltas: bool = False) -> None:
        """Have the owner sign any JSON as the manifest of a version, hostile ones too."""
        rows = []
        for older in self.manifests.values() if deltas else ():
            old = older.to_json()
            delta = make_delta(old, document)
            self._store(piece_key(Digest.of(delta), "delta"), delta)
            rows.append({"from": Digest.of(old).hex, "sha256": Digest.of(delta).hex, "size": len(delta)})
        custom = {"json": {"sha256": Digest.of(document).hex, "size": len(document)}, "deltas": rows}
        path = manifest_path(self.repository.product, self.platform, version)
        self.repository.put(path, compress_manifest(document), custom)

    def offer(self, channel: str, version: str, **changes: Any) -> None:
        """Offer a version in a channel, or change how it is offered there."""
        entries = self.entries.setdefault(channel, {})
        entries[version] = replace(entries.get(version) or Entry(Version(version)), **changes)
        self.publish_channels()

    def withdraw(self, channel: str, version: str) -> None:
        """Take a version out of a channel altogether."""
        del self.entries[channel][version]
        self.publish_channels()

    def publish_channels(self) -> None:
        """Sign the channels as ``entries`` says, with the online key."""
        product = self.repository.product
        self.repository.put(channels_path(product), self.channels().to_json())

    def channels(self) -> Channels:
        """Give the channels as ``entries`` says."""
        listed = {
            Name(channel): {self.platform: tuple(sorted(entries.values(), key=lambda entry: entry.version))}
            for channel, entries in self.entries.items()
        }
        return Channels(ProductName(self.repository.product), datetime.now(UTC), listed)

    def _store(self, key: str, data: bytes) -> None:
        self.repository.storage.write(key, data)

    def _build(self, version: str, bundle: Bundle, patched_from: str | None, notes: str) -> Manifest:
        new = {Digest.of(chunk): chunk for data in bundle.files.values() for chunk in _cut(data)}
        self._pack({digest: chunk for digest, chunk in new.items() if digest not in self._chunks})
        used = {digest: self._chunks[digest] for digest in new}
        patch_pack, patches = self._patches(bundle, patched_from)
        packs = list(dict.fromkeys([pack for pack, _ in used.values()] + ([patch_pack] if patch_pack else [])))
        frames = [replace(frame, pack=packs.index(pack)) for pack, frame in used.values()]
        numbers = {digest: number for number, digest in enumerate(used)}
        files = []
        for path, data in sorted(bundle.files.items()):
            own = tuple(replace(patch, pack=len(packs) - 1) for patch in patches.get(path, ()))
            chunks = tuple(numbers[Digest.of(chunk)] for chunk in _cut(data))
            executable = path in bundle.executable
            files.append(File(TreePath(path), len(data), Digest.of(data), executable, chunks, own))
        return Manifest(
            product=ProductName(self.repository.product),
            version=Version(version),
            platform=self.platform,
            files=tuple(files),
            links=tuple(Link(TreePath(path), target) for path, target in sorted(bundle.links.items())),
            directories=tuple(TreePath(path) for path in sorted(bundle.directories)),
            chunks=tuple(Chunk(digest, frame.size, numbers[digest], 0) for digest, (_, frame) in used.items()),
            frames=tuple(frames),
            packs=tuple(packs),
            notes=notes,
        )

    def _pack(self, chunks: Mapping[Digest, bytes]) -> None:
        """Put chunks that no earlier release holds into a new pack, a frame each."""
        data, frames = b"", {}
        for digest, chunk in chunks.items():
            frame = compress_manifest(chunk)
            frames[digest] = Frame(0, len(data), len(frame), len(chunk), Digest.of(frame))
            data += frame
        if data:
            pack = Pack(Digest.of(data), len(data))
            self._store(pack.key, data)
            self._chunks.update({digest: (pack, frame) for digest, frame in frames.items()})

    def _patches(self, bundle: Bundle, older: str | None) -> tuple[Pack | None, dict[str, list[Patch]]]:
        data, patches = b"", {}
        for path, old in sorted(self.bundles[older].files.items()) if older else ():
            new = bundle.files.get(path)
            if not new or not old or new == old:
                continue
            encoded = make_delta(old, new)
            data += struct.pack("<II", _SKIPPABLE, len(encoded))
            base = (Base(Digest.of(old), 0, len(old)),)
            where = (0, len(data), len(encoded))
            patches[path] = [Patch(0, len(new), base, Codec.ZSTD_PREFIX, *where, digest=Digest.of(encoded))]
            data += encoded
        if not data:
            return None, {}
        pack = Pack(Digest.of(data), len(data))
        self._store(pack.key, data)
        return pack, patches


def _cut(data: bytes) -> list[bytes]:
    return [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
