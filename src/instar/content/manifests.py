"""Manifests as they travel: compressed, or as the difference from an older one.

A manifest is identified by the digest of its JSON, as signed in the metadata; so whether it came whole or as a
difference, the same bytes are checked in the end.
"""

from __future__ import annotations

from instar.content._zstd import zstd
from instar.content.codecs import SHORTEST_PREFIX, expand_frame, expand_with_prefix
from instar.errors import Untrusted
from instar.model.digest import Digest
from instar.model.manifest import MAX_JSON, Manifest

__all__ = ["compress_manifest", "expand_delta", "expand_manifest", "make_delta", "parse_manifest"]

_P = zstd.CompressionParameter


def compress_manifest(document: bytes) -> bytes:
    """Compress a manifest's JSON into one Zstandard frame. Publisher's half, but it needs no extra."""
    options: dict[int, int] = {_P.compression_level: 19, _P.window_log: _window(len(document))}
    return zstd.compress(document, options=options)


def expand_manifest(frame: bytes, *, digest: Digest, size: int) -> bytes:
    """Give the JSON that ``frame`` holds: ``size`` bytes with the digest ``digest``.

    Raises:
        Untrusted: it holds anything else. No more than ``size`` bytes are ever decompressed.

    """
    _check_size(size)
    return _checked(expand_frame(frame, size), digest)


def make_delta(old: bytes, new: bytes) -> bytes:
    """Compress the JSON ``new`` with the JSON ``old`` as prefix."""
    if len(old) < SHORTEST_PREFIX:
        return compress_manifest(new)
    options: dict[int, int] = {_P.compression_level: 19, _P.window_log: _window(len(old) + len(new))}
    return zstd.compress(new, options=options, zstd_dict=zstd.ZstdDict(old, is_raw=True).as_prefix)


def expand_delta(old: bytes, delta: bytes, *, digest: Digest, size: int) -> bytes:
    """Give the JSON that ``delta`` makes from the older manifest's JSON: ``size`` bytes with the digest ``digest``.

    Raises:
        Untrusted: it makes anything else.

    """
    _check_size(size)
    return _checked(expand_with_prefix(delta, old, size), digest)


def parse_manifest(document: bytes) -> Manifest:
    """Read the JSON of a manifest that the owner signed.

    Raises:
        Untrusted: it is none, or breaks the rules of manifests.

    """
    try:
        return Manifest.from_json(document)
    except ValueError as error:
        msg = f"The signed manifest cannot be used: {error}."
        raise Untrusted(msg, hint="Nothing was changed; tell the publisher.") from error


def _window(size: int) -> int:
    """Give log2 of a window that reaches over ``size`` bytes, within what the format allows."""
    return min(max(size.bit_length(), 10), 29)


def _check_size(size: int) -> None:
    if not 0 < size <= MAX_JSON:
        msg = f"A manifest of {size} bytes is larger than any can be."
        raise Untrusted(msg, hint="Nothing was changed; tell the publisher.")


def _checked(document: bytes, digest: Digest) -> bytes:
    if Digest.of(document) != digest:
        msg = "The manifest is not the one that was signed."
        raise Untrusted(msg, hint="Nothing was changed; tell the publisher.")
    return document
