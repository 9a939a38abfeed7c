"""The first root, and roots that several owners sign one after the other on machines that need no network.

:meth:`RoleSet.changes <instar.trust.roles.RoleSet.changes>` signs when all keys are at hand. Where they are not, a
root travels: each owner calls :func:`add_signature`, and :func:`missing_signatures` says how many more it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from instar.errors import Misconfigured, Unavailable
from instar.trust.roles import Lifetimes, RoleSet

__all__ = ["add_signature", "first_files", "missing_signatures"]


def first_files(
    products: Sequence[str],
    *,
    owner: Sequence[Signer],
    online: Sequence[Signer],
    now: datetime,
    lifetimes: Lifetimes | None = None,
) -> list[tuple[str, bytes]]:
    """Make a repository with products and without releases.

    Args:
        products: their names.
        owner: keys of the owner; all sign, and one is enough from then on.
        online: keys of what is online; the same.
        now: the publisher's time.
        lifetimes: how long signatures count.

    Returns:
        Keys and contents in the order of uploading. ``metadata/1.root.json`` is what apps are given to trust.

    Raises:
        Misconfigured: no keys, one key in both authorities, or a name that cannot be a product's.
        Unavailable: a key service did not sign.

    """
    roles = RoleSet.create(
        [signer.public_key for signer in owner],
        [signer.public_key for signer in online],
        lifetimes=lifetimes,
    )
    for product in products:
        roles.add_product(product)
    return roles.changes(now, [*owner, *online])


def add_signature(root: bytes, signer: Signer) -> bytes:
    """Sign root metadata with one more key, and keep the signatures that are there.

    The caller shows the person what they sign: this does not judge the root.

    Raises:
        Misconfigured: it is not root metadata.
        Unavailable: the key service did not sign.

    """
    metadata = _parse(root)
    try:
        metadata.sign(signer, append=True)
    except RepositoryError as error:
        msg = f"The key {signer.public_key.keyid} did not sign: {error}."
        raise Unavailable(msg, hint="Check the key service or device, then try again.") from error
    return metadata.to_bytes()


def missing_signatures(root: bytes, *, previous: bytes | None) -> int:
    """Count the signatures that a root still lacks: of its own keys, and of those of the root before it.

    Args:
        root: the root that travels.
        previous: the root that clients have now; None for the first of all.

    Raises:
        Misconfigured: one of them is not root metadata, or they do not follow each other.

    """
    metadata = _parse(root)
    before = None if previous is None else _parse(previous).signed
    try:
        result = metadata.signed.get_root_verification_result(before, metadata.signed_bytes, metadata.signatures)
    except ValueError as error:
        msg = f"The two roots do not belong together: {error}."
        raise Misconfigured(msg, hint="Compare with the root whose version is one less.") from error
    return max(result.first.missing, result.second.missing)


def _parse(data: bytes) -> Metadata[Root]:
    try:
        metadata = Metadata[Root].from_bytes(data)
    except RepositoryError as error:
        msg = "This is not TUF metadata."
        raise Misconfigured(msg, hint="Give a root.json file.") from error
    if metadata.signed.type != Root.type:
        msg = f"This is {metadata.signed.type} metadata, not root metadata."
        raise Misconfigured(msg, hint="Give a root.json file.")
    return metadata
