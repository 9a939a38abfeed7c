"""Which update an image is answered with, and how that is written. The rules themselves are in ``policy.ladder``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from instar.compat.atomupd.image import Image
from instar.compat.atomupd.pool import Pool, PoolImage
from instar.errors import Misconfigured
from instar.policy.ladder import Aim, Ladder, Standing, select_way
from instar.policy.rollout import fits

__all__ = ["Answer", "check_branches", "find_update", "write_answer", "write_answer_line"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The images to install one after the other, oldest first; none: nothing.

    ``replacement`` is the variant that takes the place of the asking image's, "" where that is not at its end.
    ``estimated_size`` is what the first step downloads, in bytes; None: as the image's manifest has it.
    """

    way: tuple[PoolImage, ...] = ()
    release: str = ""
    replacement: str = ""
    estimated_size: int | None = None


def find_update(pool: Pool, image: Image, branch: str, aim: Aim, *, facts: Mapping[str, str] | None = None) -> Answer:
    """Find what a device that runs ``image`` takes next in a branch.

    Args:
        pool: what there is.
        image: what the device runs; it need not be of the pool.
        branch: the branch that it asks for.
        aim: what it asks for; NEWEST where its build is not known.
        facts: what the device says of itself; None when nobody asked it, then releases that need facts are offered
            with their conditions, and the device decides.

    """
    replacement = pool.settings.ended.get(image.variant, "")
    if replacement:
        image = image.of_variant(replacement)
        if aim is not Aim.PENULTIMATE:
            aim = Aim.RETURN
    ladders = pool.ladders(image, branch)
    if facts is not None and any(rung.release.image.conditions for rung in ladders[0].rungs):
        ladders = (_let_in(ladders[0], facts), _let_in(ladders[1], facts))
    standing = Standing(image.order, image.checkpoint)
    way = select_way(ladders, standing, aim, may_return=_may_return(pool, image, branch))
    return Answer(tuple(rung.release for rung in way), image.release, replacement) if way else Answer()


def check_branches(pool: Pool) -> None:
    """Make sure that every device can be answered in every branch, where the configuration is strict.

    Raises:
        Misconfigured: nothing of the pool is in a branch.

    """
    settings = pool.settings
    if not settings.strict:
        return
    for one in pool.images:
        image = one.image
        if image.shadow_checkpoint or image.variant in settings.ended:
            continue
        for branch in settings.branches:
            if not pool.ladders(image, branch)[0].rungs:
                msg = (
                    f"The pool {settings.pool} has no image of {image.product} {image.release} {image.arch} "
                    f"{image.variant} in the branch {branch!r}, which {one.manifest} would be asked for."
                )
                raise Misconfigured(
                    msg,
                    hint="Remove the branch from 'Branches', or set 'StrictPoolValidation = false' for the time in "
                    "which the pool is being built up.",
                )


def write_answer(answer: Answer) -> str:
    """Write an answer as clients read it: sorted keys, four spaces, no line break at the end."""
    return json.dumps(_document(answer), sort_keys=True, indent=4)


def write_answer_line(answer: Answer) -> bytes:
    """Write an answer as the dynamic query gives it, in one line."""
    return json.dumps(_document(answer)).encode()


def _document(answer: Answer) -> dict[str, Any]:
    if not answer.way:
        return {}
    first, *others = answer.way
    image = first.image if answer.estimated_size is None else replace(first.image, estimated_size=answer.estimated_size)
    candidates = [
        {"image": image.export(), "update_path": first.bundle},
        *({"image": one.image.export(), "update_path": one.bundle} for one in others),
    ]
    minor: dict[str, Any] = {"release": answer.release, "candidates": candidates}
    if answer.replacement:
        minor["replacement_eol_variant"] = answer.replacement
    return {"minor": minor}


def _may_return(pool: Pool, image: Image, branch: str) -> bool:
    """Whether the device may be led back to an older image, when there is nothing newer for it."""
    if image.skip:
        return True
    consider = pool.settings.consider
    return branch != image.branch and (
        # To a branch that is more stable, or between two that do not follow each other. An image without a version
        # cannot be compared with those of another branch at all.
        branch in consider.get(image.branch, ())
        or image.branch not in consider.get(branch, ())
        or image.version is None
    )


def _let_in(ladder: Ladder[PoolImage], facts: Mapping[str, str]) -> Ladder[PoolImage]:
    return Ladder(tuple(rung for rung in ladder.rungs if fits(rung.release.image.conditions, facts)))
