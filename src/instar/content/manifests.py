"""Manifests as they travel: compressed, or as the difference from an older one.

A manifest is identified by the digest of its JSON, as signed in the metadata; so whether it came whole or as a
difference, the same bytes are checked in the end.
"""

from __future__ import annotations

from instar.model.digest import Digest
from instar.model.manifest import Manifest

__all__ = ["compress_manifest", "expand_delta", "expand_manifest", "make_delta", "parse_manifest"]


def compress_manifest(document: bytes) -> bytes:
    """Compress a manifest's JSON into one Zstandard frame. Publisher's half, but it needs no extra."""
    raise NotImplementedError


def expand_manifest(frame: bytes, *, digest: Digest, size: int) -> bytes:
    """Give the JSON that ``frame`` holds: ``size`` bytes with the digest ``digest``.

    Raises:
        Untrusted: it holds anything else. No more than ``size`` bytes are ever decompressed.

    """
    raise NotImplementedError


def make_delta(old: bytes, new: bytes) -> bytes:
    """Compress the JSON ``new`` with the JSON ``old`` as prefix."""
    raise NotImplementedError


def expand_delta(old: bytes, delta: bytes, *, digest: Digest, size: int) -> bytes:
    """Give the JSON that ``delta`` makes from the older manifest's JSON: ``size`` bytes with the digest ``digest``.

    Raises:
        Untrusted: it makes anything else.

    """
    raise NotImplementedError


def parse_manifest(document: bytes) -> Manifest:
    """Read the JSON of a manifest that the owner signed.

    Raises:
        Untrusted: it is none, or breaks the rules of manifests.

    """
    raise NotImplementedError
