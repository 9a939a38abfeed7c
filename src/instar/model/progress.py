"""How far a long piece of work is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["OnProgress", "Phase", "Progress", "ignore_progress"]


class Phase(StrEnum):
    """What is being done. The values are shown to people."""

    SCAN = "reading files"
    COMPRESS = "compressing"
    PATCH = "making patches"
    UPLOAD = "uploading"
    VERIFY = "verifying"
    DOWNLOAD = "downloading"
    REBUILD = "rebuilding"


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` bytes of one phase. ``total`` may grow while a phase runs."""

    phase: Phase
    done: int
    total: int


OnProgress = Callable[[Progress], None]
"""Called often, from any thread of the work: keep it short. An exception raised in it stops the work and escapes."""


def ignore_progress(_: Progress) -> None:
    """Take no notice: the default where nobody watches."""
