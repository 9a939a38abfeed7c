"""The static tree: every answer as a file, for any web server to serve.

What is in the tree and was not generated is left alone. Which update an image gets is not decided here.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from instar.compat.atomupd.answers import Answer, check_branches, find_update, write_answer
from instar.compat.atomupd.image import Image
from instar.compat.atomupd.paths import exact_path, fallback_path, penultimate_path, remote_info_path
from instar.compat.atomupd.pool import Pool, PoolImage, read_pool
from instar.compat.atomupd.settings import ServerSettings
from instar.errors import Misconfigured, Unavailable
from instar.policy.ladder import Aim
from instar.system.files import make_folder
from instar.system.locks import exclusive_folder
from instar.system.replacement import finish_replacing, replace_files

__all__ = ["Generated", "SizeOf", "generate", "plan_tree"]

_ESTIMATED: Final = 150
"""For how many of the newest images the size of the update is estimated: a year of releases. A device that is further
behind estimates it itself."""

SizeOf = Callable[[PoolImage, PoolImage], int]
"""Estimates how many bytes a device with the first image downloads for the second; 0: unknown."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What was done: files written, files found as they should be, and warnings for a person.

    ``paths`` are all that belong to the tree now, written or not.
    """

    paths: tuple[str, ...]
    written: tuple[str, ...]
    unchanged: int
    warnings: tuple[str, ...]


@dataclass
class _Plan:
    """What the tree should hold. ``texts`` is kept by answer: thousands of devices are given the same few."""

    tree: Path
    files: dict[str, bytes] = field(default_factory=dict)
    paths: dict[str, None] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    unchanged: int = 0
    warnings: list[str] = field(default_factory=list)
    texts: dict[Answer, bytes] = field(default_factory=dict)
    sizeless: dict[bytes, Any] = field(default_factory=dict)

    def write(self, answer: Answer) -> bytes:
        if answer not in self.texts:
            self.texts[answer] = write_answer(answer).encode()
        return self.texts[answer]

    def is_as_it_should_be(self, path: str, answer: Answer) -> bool:
        """Whether the file is there and says the same, whatever sizes it gives: they were right when it was written."""
        text = self.write(replace(answer, estimated_size=0))
        try:
            with open(os.path.join(self.tree, path), "rb") as file:  # noqa: PTH118, PTH123  # ten thousands of times
                there = file.read()
        except FileNotFoundError:
            return False
        if there == text:
            return True
        try:
            found = json.loads(there)
        except (ValueError, RecursionError):
            self.warnings.append(f"{path} could not be read as JSON and is replaced")
            return False
        if text not in self.sizeless:
            self.sizeless[text] = _without_sizes(json.loads(text))
        return bool(_without_sizes(found) == self.sizeless[text])


def generate(settings: ServerSettings, tree: Path, *, size_of: SizeOf) -> Generated:
    """Bring the static tree up to date with the pool.

    Raises:
        Misconfigured: the pool or the configuration has an error; nothing was changed.
        Busy: somebody else is writing this tree.
        Unavailable: the tree could not be written. Every file in it is whole, and the next run completes it.

    """
    pool = read_pool(settings)
    check_branches(pool)
    try:
        make_folder(tree)
        with exclusive_folder(tree, what=f"the tree {tree}"):
            finish_replacing(tree)
            planned = plan_tree(pool, tree, size_of=size_of)
            replace_files(tree, planned.files.items())
            warnings = (*pool.warnings, *planned.warnings, *_leftovers(tree, planned.seen))
            return Generated(tuple(planned.paths), tuple(planned.files), planned.unchanged, warnings)
    except (OSError, ValueError) as error:
        msg = f"The tree {tree} could not be written: {error}."
        raise Unavailable(msg, hint="Make room or permission for it there; the next run completes it.") from error


def plan_tree(pool: Pool, tree: Path, *, size_of: SizeOf) -> _Plan:
    """Find out what has to be written. Reads the tree and changes nothing.

    Raises:
        Misconfigured: a shadow checkpoint was an image that devices may run.

    """
    plan = _Plan(tree)
    written = plan.paths
    for number, one in enumerate(sorted(pool.images, key=lambda one: one.image.order, reverse=True)):
        image = one.image
        _plan_remote_info(plan, pool, image, written)
        estimates = number < _ESTIMATED or image.introduces_checkpoint > 0
        for branch in pool.settings.branches:
            if image.shadow_checkpoint:
                _refuse_earlier_image(tree, one, branch)
                continue
            for path, aim in _paths(image, branch):
                # The newest image writes a path that several share.
                if path in written:
                    continue
                written[path] = None
                if aim is Aim.NEWER:
                    plan.seen.add(path)
                answer = find_update(pool, image, branch, aim)
                if plan.is_as_it_should_be(path, answer):
                    plan.unchanged += 1
                    continue
                if answer.way and estimates and aim is Aim.NEWER:
                    answer = replace(answer, estimated_size=size_of(one, answer.way[0]))
                plan.files[path] = plan.write(answer)
    return plan


def _paths(image: Image, branch: str) -> Iterator[tuple[str, Aim]]:
    yield exact_path(image, branch), Aim.NEWER
    yield fallback_path(image, branch), Aim.NEWEST
    yield penultimate_path(image, branch), Aim.PENULTIMATE


def _plan_remote_info(plan: _Plan, pool: Pool, image: Image, written: dict[str, None]) -> None:
    path = remote_info_path(image)
    info = pool.settings.remote_info.get(image.arch)
    if info is None or path in written:
        return
    written[path] = None
    # Nobody is to choose a variant at its end; who has it must not see it vanish from the choices.
    variants = [one for one in info.variants if one not in pool.settings.ended or one == image.variant]
    ini = RawConfigParser()
    ini.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation has it: keep the case
    ini["Server"] = {"Variants": ";".join(variants), "Branches": ";".join(info.branches)}
    text = io.StringIO()
    ini.write(text)
    data = text.getvalue().encode()
    target = plan.tree / path
    if target.is_file() and target.read_bytes() == data:
        plan.unchanged += 1
    else:
        plan.files[path] = data


def _refuse_earlier_image(tree: Path, one: PoolImage, branch: str) -> None:
    path = exact_path(one.image, branch)
    if (tree / path).exists():
        msg = (
            f"{one.manifest} is a shadow checkpoint, but {tree / path} shows that it was an image that devices may run."
        )
        raise Misconfigured(msg, hint="Make it an image again, and the shadow another one. Nothing was written.")


def _leftovers(tree: Path, seen: set[str]) -> Iterator[str]:
    """Name the answers that were not generated, in the folders of those that were."""
    for folder in sorted({path.rpartition("/")[0] for path in seen}):
        for name in sorted(os.listdir(tree / folder)):  # noqa: PTH208  # names are all that is asked
            path = f"{folder}/{name}"
            if name.endswith(".json") and path not in seen:
                yield (
                    f"{path} was left: no image of the pool has it. Remove it, or put the image's manifest back "
                    "with 'skip' set, so that devices that run it are led on"
                )


def _without_sizes(document: object) -> object:
    if isinstance(document, dict):
        return {key: 0 if key == "estimated_size" else _without_sizes(value) for key, value in document.items()}
    return [_without_sizes(item) for item in document] if isinstance(document, list) else document
