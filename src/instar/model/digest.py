"""SHA-256 digests as values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

__all__ = ["Digest"]

_SIZE = 32


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The SHA-256 of some content: 32 bytes, written as 64 lower-case hexadecimal digits.

    Raises:
        ValueError: ``raw`` is not 32 bytes long.

    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != _SIZE:
            msg = f"a SHA-256 digest has {_SIZE} bytes, not {len(self.raw)}"
            raise ValueError(msg)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 64 lower-case hexadecimal digits.

        Raises:
            ValueError: it is anything else. Upper case is refused so that one content has one name.

        """
        if len(text) != 2 * _SIZE or not set(text) <= set("0123456789abcdef"):
            msg = f"not a SHA-256 digest in lower-case hexadecimal: {text[:80]!r}"
            raise ValueError(msg)
        return cls(bytes.fromhex(text))

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """Compute the digest of ``data``."""
        return cls(hashlib.sha256(data).digest())

    @property
    def hex(self) -> str:
        """The 64 digits."""
        return self.raw.hex()

    @property
    def short(self) -> str:
        """The first 12 digits, for people and folder names; never for a decision about trust."""
        return self.raw.hex()[:12]

    def __str__(self) -> str:
        return self.hex
