"""Where signed things stand in a repository, and what both halves call them. Names only: no cryptography, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from urllib.parse import unquote

from instar.model.digest import Digest

__all__ = [
    "MANIFEST_SUFFIX",
    "MAX_ROOT",
    "MAX_SNAPSHOT",
    "MAX_TARGETS",
    "MAX_TIMESTAMP",
    "METADATA",
    "SIGNED_AT",
    "TARGETS",
    "TIME_FORMAT",
    "Fetch",
    "Target",
    "bins_prefix",
    "channels_path",
    "channels_role",
    "floor_path",
    "manifest_path",
    "metadata_key",
    "parse_time",
    "role_bound",
    "role_of",
    "taken_versions",
    "target_key",
]

METADATA: Final = "metadata/"
"""Prefix of the keys of all role files."""

TARGETS: Final = "targets/"
"""Prefix of the keys of all TUF targets."""

MANIFEST_SUFFIX: Final = ".manifest"
"""How the target path of a manifest ends."""

SIGNED_AT: Final = "x-instar-signed-at"
"""Field in the signed part of ``timestamp.json``: when it was signed, by the publisher's clock.

TUF says only when metadata ends. A device whose clock was reset learns from this what time it is at least.
"""

MAX_ROOT: Final = 512_000
"""Bytes of a root file: dozens of keys and signatures of the largest kinds fit."""

MAX_TIMESTAMP: Final = 16_384
"""Bytes of ``timestamp.json``, fetched at every check: it names one file, so all beyond 1 kB are signatures."""

MAX_SNAPSHOT: Final = 2_000_000
"""Bytes of a snapshot: some 40 for each role, so 50,000 roles: 200 products that each have 256 hash bins."""

MAX_TARGETS: Final = 5_000_000
"""Bytes of a targets role: 256 manifests at 1 kB are common; other publishers' tools may put thousands in one role."""

TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
"""How TUF writes a moment: UTC, whole seconds."""

_BOUNDS: Final = {"root": MAX_ROOT, "timestamp": MAX_TIMESTAMP, "snapshot": MAX_SNAPSHOT}
_ROLE_FILE: Final = re.compile(r"(?:(?P<version>[1-9][0-9]{0,17})\.)?(?P<role>[^/]+)\.json")


class Fetch(Protocol):
    """Where metadata comes from: a storage, a mirror, a test."""

    def __call__(self, key: str, limit: int) -> bytes:
        """Read the whole object at ``key``, like ``metadata/timestamp.json``, of at most ``limit`` bytes.

        Raises:
            NotFound: the storage answered that there is none.
            Unavailable: it did not answer, or not in time.
            Untrusted: it is longer than ``limit``.

        """


@dataclass(frozen=True, slots=True)
class Target:
    """A file that some role vouches for.

    Args:
        path: its TUF target path, like ``myapp/channels.json``.
        key: where a storage holds it.
        size: its length in bytes.
        digest: SHA-256 of its content.
        custom: what the role says about it beyond that; JSON values, not checked here.

    """

    path: str
    key: str
    size: int
    digest: Digest
    custom: Mapping[str, Any] = field(default_factory=dict)


def manifest_path(product: str, platform: str, version: object) -> str:
    """Give the target path of a release's manifest."""
    return f"{product}/{platform}-{version}{MANIFEST_SUFFIX}"


def channels_path(product: str) -> str:
    """Give the target path of a product's channels file."""
    return f"{product}/channels.json"


def floor_path(product: str) -> str:
    """Give the target path whose ``custom["floor"]`` is the lowest version that may run."""
    return f"{product}/security-floor"


def channels_role(product: str) -> str:
    """Give the name of the role that signs a product's channels file."""
    return f"{product}-channels"


def bins_prefix(product: str) -> str:
    """Give what the names of a product's hash bins begin with."""
    return f"{product}-bins"


def target_key(path: str, digest: Digest, *, consistent_snapshot: bool = True) -> str:
    """Give the key of a target; with consistent snapshots each content has its own (TUF specification 6.2)."""
    folder, slash, name = path.rpartition("/")
    prefix = f"{digest}." if consistent_snapshot else ""
    return f"{TARGETS}{folder}{slash}{prefix}{name}"


def metadata_key(role: str, version: int | None) -> str:
    """Give the key of a role's file; only ``timestamp`` has no version in its name."""
    return f"{METADATA}{role}.json" if version is None else f"{METADATA}{version}.{role}.json"


def taken_versions(keys: Iterable[str]) -> dict[str, int]:
    """Find the highest version number of each role among a storage's keys. What is no role file is passed over."""
    taken: dict[str, int] = {}
    for key in keys:
        match = _ROLE_FILE.fullmatch(key.removeprefix(METADATA))
        if match and match["version"]:
            taken[match["role"]] = max(taken.get(match["role"], 0), int(match["version"]))
    return taken


def role_of(key: str) -> str:
    """Give the role whose file is at ``key``: ``metadata/7.root.json`` is ``root``."""
    name = key.removeprefix(METADATA).removesuffix(".json")
    version, dot, role = name.partition(".")
    # tuf quotes names of roles; instar's own need none.
    return unquote(role if dot and version.isdigit() else name)


def role_bound(role: str) -> int:
    """Give how many bytes the file of ``role`` may have at most."""
    return _BOUNDS.get(role, MAX_TARGETS)


def parse_time(text: object) -> datetime | None:
    """Read a moment in TUF's format, or None where it is none."""
    try:
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC) if isinstance(text, str) else None
    except ValueError:
        return None
