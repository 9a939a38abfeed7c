"""A pool: images found by their manifests below a folder, checked as a whole, and put on ladders for the selection.

Reading it changes nothing, and chunk stores are never walked.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from instar.compat.atomupd.image import Image, ImageOrder, read_manifest
from instar.compat.atomupd.settings import ServerSettings
from instar.compat.atomupd.version import BuildId
from instar.errors import Misconfigured
from instar.policy.ladder import Ladder, Rung

__all__ = ["BUNDLE", "CHUNKS_DETAILS", "MANIFEST", "STORE", "Pool", "PoolImage", "read_pool", "walk_folders"]

MANIFEST: Final = ".manifest.json"
BUNDLE: Final = ".raucb"
STORE: Final = ".castr"
CHUNKS_DETAILS: Final = ".chunks_details.json"

_SHOWN: Final = 10
"""Problems that one message names: enough to see what they have in common."""


@dataclass(frozen=True, slots=True)
class PoolImage:
    """An image of a pool.

    ``manifest`` is its file below the pool; ``bundle`` the one to install, "" for an image that is not offered.
    """

    image: Image
    manifest: str
    bundle: str

    @property
    def stem(self) -> str:
        """What the names of all files of this image begin with, below the pool."""
        return self.manifest.removesuffix(MANIFEST)


@dataclass
class Pool:
    """What a server has to offer. ``images`` in the order in which they were found, with those that are skipped.

    ``warnings`` are for a person.
    """

    settings: ServerSettings
    images: tuple[PoolImage, ...]
    warnings: tuple[str, ...] = ()
    _ladders: dict[tuple[str, ...], tuple[Ladder[PoolImage], Ladder[PoolImage]]] = field(
        default_factory=dict, init=False, repr=False
    )

    def ladders(self, image: Image, branch: str) -> tuple[Ladder[PoolImage], Ladder[PoolImage]]:
        """Give what a device with ``image`` can be offered in a branch: with the more stable branches, and without."""
        key = (image.product, image.arch, image.release, image.variant, branch)
        if key not in self._ladders:
            *line, _ = key
            found = [*self._offered.get(key, ())]
            for other in self.settings.consider.get(branch, ()):
                # Images without a version cannot be put in order with those of another branch.
                found += [one for one in self._offered.get((*line, other), ()) if one.image.version is not None]
            if not found:
                return Ladder(()), Ladder(())  # not kept: strangers ask for names without end
            wide = Ladder.of(_rung(one) for one in found)
            narrow = Ladder(tuple(rung for rung in wide.rungs if rung.release.image.branch == branch))
            self._ladders[key] = (wide, narrow)
        return self._ladders[key]

    @cached_property
    def _offered(self) -> dict[tuple[str, ...], list[PoolImage]]:
        offered: defaultdict[tuple[str, ...], list[PoolImage]] = defaultdict(list)
        for one in self.images:
            if not one.image.skip:
                image = one.image
                offered[image.product, image.arch, image.release, image.variant, image.branch].append(one)
        return dict(offered)


def read_pool(settings: ServerSettings) -> Pool:
    """Walk the pool, read every manifest, and judge them together.

    Raises:
        Misconfigured: the pool cannot be used; the message names files and says what to do.

    """
    if not settings.pool.is_dir():
        msg = f"The pool {settings.pool} is not a folder."
        raise Misconfigured(msg, hint="Set 'PoolDir' to the folder that holds the images.")
    images: list[PoolImage] = []
    warnings = list(settings.warnings)
    problems: list[str] = []
    seen: defaultdict[tuple[str, BuildId], list[tuple[ImageOrder, str]]] = defaultdict(list)
    unread: list[OSError] = []
    for manifest in _manifests(settings.pool, unread.append):
        try:
            image, remarks = read_manifest(settings.pool / manifest)
        except (OSError, ValueError) as error:
            problems.append(f"{manifest} cannot be read: {error}. Correct it, or remove it with its image")
            continue
        warnings += [f"{manifest}: {remark}" for remark in remarks]
        builds = seen[image.release, image.buildid]
        if twin := next((other for order, other in builds if not (order < image.order or image.order < order)), None):
            problems.append(
                f"{manifest} has the version, release and build of {twin} ({image.version_text} {image.release} "
                f"{image.buildid}). Give one of them a build id of its own, or remove it"
            )
            continue
        builds.append((image.order, manifest))
        needs_bundle = not (image.skip or image.shadow_checkpoint)
        one = PoolImage(image, manifest, manifest.removesuffix(MANIFEST) + BUNDLE if needs_bundle else "")
        if missing := _missing_files(settings.pool, one):
            problems.append(f"{manifest} lies without {missing}. Put it there, or set 'skip' in the manifest")
        elif image.skip or _is_served(image, settings):
            images.append(one)
    # Passed over in silence, the images in them would seem to be withdrawn, and devices be led elsewhere.
    problems += [
        f"the folder {error.filename} cannot be read: {error.strerror}. Let it be read, or remove it"
        for error in unread
    ]
    problems += _checkpoint_problems(images)
    warnings += _without_replacement(images)
    if not images:
        warnings.append(
            f"the pool {settings.pool} holds no image that the configuration serves: is it the right folder?"
        )
    if problems:
        shown = "; ".join(problems[:_SHOWN]) + (f"; and {len(problems) - _SHOWN} more" if problems[_SHOWN:] else "")
        msg = f"The pool {settings.pool} has errors: {shown}."
        raise Misconfigured(msg, hint="Nothing was written.")
    return Pool(settings, tuple(images), tuple(warnings))


def walk_folders(
    pool: Path, on_error: Callable[[OSError], object] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Give every folder of a pool that can hold manifests, in order of their paths.

    Chunk stores and hidden folders are not entered: there is nothing in them, and there may be very much of it.

    Args:
        pool: the pool's folder.
        on_error: told of each folder that cannot be read; None: they are passed over.

    Yields:
        The folder, and the names of its files and of its chunk stores.

    """
    for folder, folders, files in os.walk(pool, onerror=on_error):
        stores = sorted(name for name in folders if name.endswith(STORE))
        folders[:] = sorted(name for name in folders if not name.endswith(STORE) and not name.startswith("."))
        yield folder, sorted(files), stores


def _manifests(pool: Path, on_error: Callable[[OSError], object]) -> Iterator[str]:
    for folder, files, _ in walk_folders(pool, on_error):
        relative = os.path.relpath(folder, pool)
        for name in files:
            if name.endswith(MANIFEST):
                yield name if relative == os.curdir else f"{relative}/{name}"


def _missing_files(pool: Path, one: PoolImage) -> str:
    if not one.bundle:
        return ""
    stem = os.path.join(pool, one.stem)  # noqa: PTH118  # ten thousand times
    if not os.path.isfile(stem + BUNDLE):  # noqa: PTH113  # the same
        return f"its bundle {os.path.basename(stem)}{BUNDLE}"  # noqa: PTH119  # the same
    if not os.path.isdir(stem + STORE):  # noqa: PTH112  # the same
        return f"its chunk store {os.path.basename(stem)}{STORE}"  # noqa: PTH119  # the same
    return ""


def _is_served(image: Image, settings: ServerSettings) -> bool:
    return (
        image.product in settings.products
        and image.release in settings.releases
        and image.variant in settings.variants
        and image.branch in settings.branches
        and image.arch in settings.archs
        and (settings.unstable or not image.is_unstable)
    )


def _checkpoint_problems(images: Iterable[PoolImage]) -> Iterator[str]:
    introduced: dict[tuple[str, str, int, bool], str] = {}
    for one in images:
        image = one.image
        if 0 < image.introduces_checkpoint <= image.requires_checkpoint:
            yield (
                f"{one.manifest} requires checkpoint {image.requires_checkpoint} and introduces "
                f"{image.introduces_checkpoint}. Let it introduce a higher one than it requires"
            )
        if image.shadow_checkpoint and not image.introduces_checkpoint:
            yield f"{one.manifest} is a shadow checkpoint that introduces none. Say which one it introduces"
        if image.shadow_checkpoint and image.skip:
            yield f"{one.manifest} is a shadow checkpoint and skipped. To take a shadow away, remove its manifest"
        if image.introduces_checkpoint and not image.skip:
            key = (image.variant, image.branch, image.introduces_checkpoint, image.shadow_checkpoint)
            if key in introduced:
                yield (
                    f"{one.manifest} introduces checkpoint {image.introduces_checkpoint} of {image.variant} "
                    f"{image.branch} as {introduced[key]} does. Set 'skip' in one of them"
                )
            introduced[key] = one.manifest


def _without_replacement(images: Iterable[PoolImage]) -> Iterator[str]:
    """Remark on checkpoints that were taken back while nothing stands in their place."""
    found = [one for one in images if one.image.introduces_checkpoint and not one.image.shadow_checkpoint]
    standing = {_introduction(one.image) for one in found if not one.image.skip}
    for one in found:
        if one.image.skip and _introduction(one.image) not in standing:
            yield (
                f"{one.manifest} is skipped, and no other image introduces checkpoint "
                f"{one.image.introduces_checkpoint} of {one.image.variant} {one.image.branch}"
            )


def _introduction(image: Image) -> tuple[str, str, int]:
    return (image.variant, image.branch, image.introduces_checkpoint)


def _rung(one: PoolImage) -> Rung[PoolImage]:
    image = one.image
    return Rung(
        release=one,
        order=image.order,
        requires=image.requires_checkpoint,
        introduces=image.introduces_checkpoint,
        virtual=image.shadow_checkpoint,
        line=(image.variant, image.branch),
    )
