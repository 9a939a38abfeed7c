"""What the repository says, as far as it can be believed: metadata, channels, manifests, each cached on this disk.

Locking is the caller's. Which release to take is not decided here (``policy.select``), nor what to do with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from instar.client.config import Config
from instar.client.manifests import ManifestStore
from instar.content.manifests import expand_delta, expand_manifest, parse_manifest
from instar.errors import InstarError, Misconfigured, Unavailable, Untrusted
from instar.model.channel import MAX_JSON as MAX_CHANNELS
from instar.model.channel import Channels
from instar.model.digest import Digest
from instar.model.manifest import MAX_JSON as MAX_MANIFEST
from instar.model.manifest import Manifest, piece_key
from instar.model.version import Version
from instar.storage import Reader
from instar.system import files
from instar.trust.layout import channels_path, floor_path, manifest_path
from instar.trust.verify import Target, TrustedMetadata

__all__ = ["Session", "read_verified"]

# A signed list of differences is as long as the number of base releases; a device looks at no more than this.
_MAX_DELTAS: Final = 64
_TELL: Final = "Nothing was changed; tell the publisher."


class Session:
    """One repository, looked at for one product on one platform.

    Args:
        config: whom to trust, which product and platform.
        folder: where to cache, made at need; nobody else writes there.
        reader: the repository.

    """

    def __init__(self, config: Config, folder: Path, reader: Reader) -> None:
        self._product = config.product
        self._platform = config.platform
        self._channels_file = folder / "channels.json"
        self._reader = reader
        self._source = reader
        self._ready = False
        self.manifests = ManifestStore(folder / "manifests")
        self._metadata = TrustedMetadata(
            folder / "metadata",
            root=config.root,
            fetch=lambda key, limit: self._source.read(key, limit=limit),
            clock=config.clock,
            not_before=config.build_time,
        )

    def refresh(self) -> None:
        """Ask the repository what is new. Two small requests when nothing is.

        Each of the mirrors is asked until one serves metadata that holds: one that serves something else costs a
        try, not the update.

        Raises:
            Expired: the newest that is served is too old.
            Untrusted: what is served is not what the owner signed.
            Unavailable: the repository does not answer.
            Misconfigured: it refuses us.

        """
        first: InstarError | None = None
        for source in self._reader.alternatives():
            self._source = source
            try:
                self._metadata.refresh()
            except (Unavailable, Untrusted, Misconfigured) as error:
                first = first or error
            else:
                self._ready = True
                return
        self._source = self._reader
        if first is not None:
            raise first

    def load(self) -> None:
        """Believe what the cache holds as long as it is valid; no network.

        Raises:
            Expired: it is too old; says since when.
            Unavailable: there is no complete cache.

        """
        self._metadata.load()
        self._ready = True

    def ensure(self) -> None:
        """Do as :meth:`load` unless something is believed already. Raises as it does."""
        if not self._ready:
            self.load()

    @property
    def expires(self) -> datetime:
        """When what is known now will be too old."""
        return self._metadata.expires

    @property
    def now(self) -> datetime:
        """What time it is at least, whatever this machine's clock says."""
        return self._metadata.now

    def channels(self) -> Channels:
        """Give the product's channels: from the cache while the signed digest is still the cached one's.

        Raises:
            Unavailable: the repository has no such product, or does not answer.
            Untrusted: what it serves was not signed.

        """
        target = self._metadata.target(channels_path(self._product))
        if target is None:
            msg = f"The repository does not know the product {self._product}."
            raise Unavailable(msg, hint="Check the product's name and the repository's address.")
        data = self._cached_channels(target)
        if data is None:
            if target.size > MAX_CHANNELS:
                raise _too_long(target, MAX_CHANNELS)
            data = read_verified(self._reader, target.key, target.digest, target.size)
            files.make_folder(self._channels_file.parent)
            files.write_atomic(self._channels_file, data)
        try:
            channels = Channels.from_json(data)
        except ValueError as error:
            msg = f"The channels of {self._product} cannot be read: {error}."
            raise Untrusted(msg, hint=_TELL) from error
        if channels.product != self._product:
            msg = f"The channels of {self._product} are those of {channels.product}."
            raise Untrusted(msg, hint=_TELL)
        # A device without a clock learns from it what time it is at least, and so how far a ramp has come.
        self._metadata.note_time(channels.published)
        return channels

    def _cached_channels(self, target: Target) -> bytes | None:
        try:
            data = files.read_bounded(self._channels_file, MAX_CHANNELS)
        except (OSError, ValueError):
            return None
        return data if Digest.of(data) == target.digest else None

    def floor(self) -> Version | None:
        """Give the lowest version that the owner lets run, None for any.

        Raises:
            Untrusted: what the owner signed cannot be understood. It could be a floor, so nothing is installed.

        """
        target = self._metadata.target(floor_path(self._product))
        if target is None:
            return None
        try:
            return Version(target.custom["floor"])
        except (KeyError, TypeError, ValueError) as error:
            msg = f"The security floor of {self._product} cannot be read."
            raise Untrusted(msg, hint=_TELL) from error

    def manifest(self, version: Version) -> Manifest:
        """Give the manifest of a release: from this disk, as a difference from one that is here, or whole.

        Raises:
            Untrusted: the owner signed no such release, or what is served is not it.
            Unavailable: the repository does not answer.

        """
        target = self._metadata.target(manifest_path(self._product, self._platform, version))
        if target is None:
            msg = f"No release {version} of {self._product} for {self._platform} was ever signed by its owner."
            raise Untrusted(msg, hint=_TELL)
        document = self._document(target)
        manifest = parse_manifest(document)
        signed_for = (manifest.product, manifest.platform, manifest.version)
        if signed_for != (self._product, self._platform, version):
            msg = f"The manifest of {version} is that of {manifest.product} {manifest.version} for {manifest.platform}."
            raise Untrusted(msg, hint=_TELL)
        self.manifests.put(document, manifest)
        return manifest

    def _document(self, target: Target) -> bytes:
        digest, size = _digest_and_size(target, target.custom.get("json"))
        if size > MAX_MANIFEST or target.size > MAX_MANIFEST:
            raise _too_long(target, MAX_MANIFEST)
        document = self.manifests.get(digest)
        if document is None:
            document = self._from_delta(target, digest, size)
        if document is None:
            frame = read_verified(self._reader, target.key, target.digest, target.size)
            document = expand_manifest(frame, digest=digest, size=size)
        return document

    def _from_delta(self, target: Target, digest: Digest, size: int) -> bytes | None:
        """Try the smallest difference from a manifest that is here. If it is wrong, the whole one is next."""
        rows = target.custom.get("deltas", [])
        best: tuple[int, Digest, bytes] | None = None
        for row in rows[:_MAX_DELTAS] if isinstance(rows, list) else []:
            try:
                delta_digest, delta_size = _digest_and_size(target, row)
                old = self.manifests.get(Digest.parse(row["from"]))
            except (Untrusted, KeyError, TypeError, ValueError):
                continue
            if old is not None and delta_size < min(target.size, best[0] if best else target.size):
                best = (delta_size, delta_digest, old)
        if best is None:
            return None
        delta_size, delta_digest, old = best
        key = piece_key(delta_digest, "delta")
        try:
            delta = read_verified(self._reader, key, delta_digest, delta_size)
            return expand_delta(old, delta, digest=digest, size=size)
        except (Untrusted, Unavailable):
            return None


def read_verified(reader: Reader, key: str, digest: Digest, size: int) -> bytes:
    """Read an object of ``size`` bytes with the digest ``digest``, from the first mirror that serves it.

    Raises:
        Untrusted: none serves that content.
        Unavailable: none answers.
        Misconfigured: they refuse us.

    """
    first: InstarError | None = None
    for source in reader.alternatives():
        try:
            # As a stream of known length, so that a slow line has time for a large object.
            with source.stream(key, length=size) as blocks:
                data = b"".join(blocks)
        except (Unavailable, Untrusted, Misconfigured) as error:
            first = first or error
            continue
        if Digest.of(data) == digest:
            return data
        msg = f"The content of {key} is not what was signed."
        first = first or Untrusted(msg, hint=_TELL)
    if first is None:
        msg = "There is no repository to read from."
        raise Unavailable(msg)
    raise first


def _digest_and_size(target: Target, row: object) -> tuple[Digest, int]:
    try:
        if not isinstance(row, Mapping):
            msg = "no object"
            raise TypeError(msg)
        fields: Mapping[str, Any] = row
        size = fields["size"]
        if type(size) is not int or size < 0:
            msg = "no size"
            raise TypeError(msg)
        return Digest.parse(fields["sha256"]), size
    except (KeyError, TypeError, ValueError) as error:
        msg = f"The signed entry of {target.path} does not say what its content is."
        raise Untrusted(msg, hint=_TELL) from error


def _too_long(target: Target, limit: int) -> Untrusted:
    return Untrusted(f"{target.path} is longer than the {limit:,} bytes that a device takes.", hint=_TELL)
