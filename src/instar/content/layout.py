"""Which chunks a release stores itself, and how they are put together into frames. Pure. Publisher's half.

Large frames make first installs small, and updates large where only a part of a frame is needed. So what is needed by
different devices goes into different frames:

1. content that no patch leads to: every device fetches it,
2. content that a device with the most likely base makes by patch,
3. content that earlier releases hold, stored once more because the frames it lies in have become mostly useless:
   a device with an earlier release has it, only first installs and old ones fetch it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from instar.model.digest import Digest
from instar.model.manifest import Frame, Manifest

__all__ = ["FRAME_TARGET", "Content", "FramePlan", "Group", "Known", "known_chunks", "plan_frames", "worn_out"]

FRAME_TARGET: Final = 16 << 20
"""Bytes of content in a frame, more or less. Every frame begins with nothing to refer to; measured on a 282 MB app,
level 19: frames of 1 MiB 78.0 MB, 4 MiB 74.2, 8 MiB 72.3, one frame 69.1. A device holds some frames in memory."""

_LEAST_USE: Final = 0.75
"""Share of an earlier frame's content that must still be of use, or what is of use is stored once more."""


class Group(IntEnum):
    """Who needs the content, in the order of the pack."""

    NO_PATCH = 0
    PATCHED = 1
    STORED_AGAIN = 2


@dataclass(frozen=True, slots=True)
class Content:
    """A file's content as chunks: their digests and sizes in order. ``kind`` brings alike content together."""

    digest: Digest
    path: str
    kind: str
    chunks: tuple[tuple[Digest, int], ...]


@dataclass(frozen=True, slots=True)
class FramePlan:
    """A frame to be made: its chunks in order, each as the content that it belongs to and its number there."""

    group: Group
    chunks: Sequence[tuple[Content, int]]


@dataclass(frozen=True, slots=True)
class Known:
    """Where an earlier release keeps a chunk: in ``frame`` of ``manifest``, from ``offset``."""

    manifest: Manifest
    frame: Frame
    offset: int


def known_chunks(manifests: Iterable[Manifest]) -> dict[Digest, Known]:
    """Note where earlier releases keep their chunks, the first mentioned first."""
    known: dict[Digest, Known] = {}
    for manifest in manifests:
        for chunk in manifest.chunks:
            known.setdefault(chunk.digest, Known(manifest, manifest.frames[chunk.frame], chunk.offset))
    return known


def worn_out(contents: Sequence[Content], known: Mapping[Digest, Known]) -> set[Digest]:
    """Give the chunks that lie in frames of which too little is still of use."""
    needed = {digest: size for content in contents for digest, size in content.chunks if digest in known}
    used: dict[Digest, int] = {}
    for digest, size in needed.items():
        frame = known[digest].frame
        used[frame.digest] = used.get(frame.digest, 0) + size
    return {digest for digest in needed if used[(f := known[digest].frame).digest] < _LEAST_USE * f.size}


def plan_frames(
    contents: Sequence[Content],
    *,
    elsewhere: Collection[Digest],
    again: Collection[Digest],
    patched: Collection[Digest],
) -> list[FramePlan]:
    """Put chunks into frames. No chunk is in two of them.

    Args:
        contents: distinct ones.
        elsewhere: chunks that stay where earlier releases have them.
        again: chunks that earlier releases have, and that are stored once more.
        patched: contents that a patch leads to.

    """
    seen = set(elsewhere)
    groups: dict[Group, list[list[tuple[Content, int]]]] = {group: [] for group in Group}
    # Those without a patch first: a chunk that both kinds share is fetched by everybody.
    for content in sorted(contents, key=lambda c: (c.digest in patched, c.kind, c.path)):
        runs: dict[Group, list[tuple[Content, int]]] = {}
        for number, (digest, _) in enumerate(content.chunks):
            if digest in seen:
                continue
            seen.add(digest)
            group = Group.PATCHED if content.digest in patched else Group.NO_PATCH
            runs.setdefault(Group.STORED_AGAIN if digest in again else group, []).append((content, number))
        for group, run in runs.items():
            groups[group].append(run)
    return [FramePlan(group, chunks) for group in Group for chunks in _fill(groups[group])]


def _fill(runs: Sequence[list[tuple[Content, int]]]) -> list[list[tuple[Content, int]]]:
    """Join the runs of small files, and split those of large ones evenly."""
    frames: list[list[tuple[Content, int]]] = []
    current: list[tuple[Content, int]] = []
    filled = 0
    for run in runs:
        size = sum(content.chunks[number][1] for content, number in run)
        if current and filled + size > FRAME_TARGET:
            frames.append(current)
            current, filled = [], 0
        # A file that needs several frames gets them alike, and none of them holds anything else.
        count = -(-size // FRAME_TARGET)
        if count > 1:
            frames.extend(_split(run, size / count))
            continue
        current.extend(run)
        filled += size
    return [*frames, current] if current else frames


def _split(run: Sequence[tuple[Content, int]], target: float) -> list[list[tuple[Content, int]]]:
    parts: list[list[tuple[Content, int]]] = [[]]
    done = 0
    for content, number in run:
        if done >= target * len(parts):
            parts.append([])
        parts[-1].append((content, number))
        done += content.chunks[number][1]
    return parts
