"""Signed answers, the publisher's half: each generated file becomes a TUF target of the tree's own metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from instar.compat.atomupd.device import MAX_ANSWER
from instar.compat.atomupd.signed import PRODUCT, target_of
from instar.errors import NotFound, Unavailable
from instar.model.digest import Digest
from instar.system.files import read_bounded
from instar.system.locks import exclusive_folder
from instar.system.replacement import finish_replacing, replace_files
from instar.trust.keys import Signer
from instar.trust.roles import RoleSet

__all__ = ["ROOT", "sign_tree"]

ROOT: Final = "metadata/1.root.json"
"""What devices are given to trust, relative to the tree."""


def sign_tree(
    tree: Path, paths: Iterable[str], *, owner: Sequence[Signer], online: Sequence[Signer], now: datetime
) -> int:
    """Sign the files of a tree that changed since they were signed, and what expires soon.

    What was signed and is not among ``paths`` stays signed, as it stays in the tree.

    Args:
        tree: the tree's folder.
        paths: the files that were generated, relative to it.
        owner: the keys that vouch for answers.
        online: the keys that vouch for there being nothing newer.
        now: the publisher's time.

    Returns:
        How many files were signed anew.

    Raises:
        Misconfigured: a key is missing or not the repository's.
        Untrusted: the metadata that is there is not what the keys signed.
        Unavailable: something cannot be read or written.

    """
    signers = [*owner, *online]
    try:
        with exclusive_folder(tree, what=f"the tree {tree}"):
            finish_replacing(tree)
            if (tree / "metadata/timestamp.json").exists():
                roles = RoleSet.load(lambda key, limit: _read(tree, key, limit), root=_read(tree, ROOT, MAX_ANSWER))
                roles.renew(now, signers)
            else:
                roles = RoleSet.create([one.public_key for one in owner], [one.public_key for one in online])
                roles.add_product(PRODUCT)
            signed = 0
            known = roles.targets(PRODUCT)
            for path in paths:
                data = _read(tree, path, MAX_ANSWER)
                digest, before = Digest.of(data), known.get(target_of(path))
                if before is None or (before.size, before.digest) != (len(data), digest):
                    roles.set_target(target_of(path), size=len(data), digest=digest)
                    signed += 1
            replace_files(tree, roles.changes(now, signers))
            return signed
    except (OSError, ValueError) as error:
        msg = f"The tree {tree} could not be signed: {error}."
        raise Unavailable(msg, hint="Correct that, and run this again.") from error


def _read(tree: Path, key: str, limit: int) -> bytes:
    try:
        return read_bounded(tree / key, limit)
    except FileNotFoundError as error:
        msg = f"{tree} holds no {key}."
        raise NotFound(msg) from error
