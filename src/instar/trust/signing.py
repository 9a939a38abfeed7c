"""One role file at a time, for the publisher: checked against who may sign it, or signed. No editing, no order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import SerializationError

from instar.errors import Misconfigured, NotFound, Unavailable, Untrusted
from instar.trust.layout import Fetch, metadata_key, role_bound, role_of

__all__ = ["check_role", "follow_roots", "sign_role"]

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


def check_role(kind: type[S], data: bytes, role: str, delegator: Root | Targets, version: int | None) -> S:
    """Parse ``data`` as ``role`` if ``delegator``'s keys signed it. Expiry is not judged.

    Args:
        kind: the type that it must have.
        data: the file's content.
        role: the role's name.
        delegator: who names the keys.
        version: which version it must be; None for any.

    Raises:
        Untrusted: it is not all of that.

    """
    try:
        metadata = Metadata[S].from_bytes(data)
        signed = metadata.signed
        problem = None
        if not isinstance(signed, kind):
            problem = f"it is of type {signed.type}"
        elif version is not None and signed.version != version:
            problem = f"it is version {signed.version}, not {version}"
        else:
            delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise _forged(role, error) from error
    if problem:
        raise _forged(role, problem)
    return signed


def _forged(role: str, problem: object) -> Untrusted:
    msg = f"The {role} metadata in the storage is not what its keys signed: {problem}."
    return Untrusted(msg, hint="Somebody or something changed the storage: find out before you publish.")


def follow_roots(fetch: Fetch, trusted: bytes) -> Root:
    """Go from a trusted root to the newest that the storage holds, each signed by the keys of the one before.

    Raises:
        Misconfigured: ``trusted`` is no root metadata.
        Untrusted: a later root is not properly signed.
        Unavailable: the storage did not answer.

    """
    try:
        # The one file that is judged by itself: it is where trust begins.
        delegator = Metadata[Root].from_bytes(trusted).signed
        root = check_role(Root, trusted, Root.type, delegator, None)
    except (RepositoryError, AttributeError, Untrusted) as error:
        msg = "The trusted root is not valid root metadata."
        raise Misconfigured(msg, hint="Use the root.json that was made when the repository was.") from error
    while True:
        version = root.version + 1
        try:
            data = fetch(metadata_key(Root.type, version), role_bound(Root.type))
        except NotFound:
            return root
        newer = check_role(Root, data, Root.type, root, version)
        root = check_role(Root, data, Root.type, newer, version)


def sign_role(metadata: Metadata[S], key: str, wanted: Iterable[Role], signers: Iterable[Signer]) -> bytes:
    """Sign a role with every signer that counts for it, and serialise it.

    Args:
        metadata: the role; its signatures are replaced.
        key: where it will be stored, for the messages and the bound on its length.
        wanted: each of these key lists must reach its threshold: a new root has to please the old one as well.
        signers: the private keys at hand.

    Raises:
        Misconfigured: too few of them, or the file would be longer than what devices accept.
        Unavailable: a key service did not sign.

    """
    wanted, name = list(wanted), role_of(key)
    try:
        _ = metadata.signed_bytes
    except SerializationError as error:
        msg = f"The {name} metadata holds something that cannot be signed: {error.__cause__}."
        raise Misconfigured(msg, hint="Use text, whole numbers, lists and objects only.") from error
    metadata.signatures.clear()
    for signer in signers:
        if any(signer.public_key.keyid in role.keyids for role in wanted):
            try:
                metadata.sign(signer, append=True)
            except RepositoryError as error:
                msg = f"The key {signer.public_key.keyid} did not sign: {error}."
                raise Unavailable(msg, hint="Check the key service or device, then try again.") from error
    for role in wanted:
        present = len(metadata.signatures.keys() & set(role.keyids))
        if present < role.threshold:
            msg = f"The {name} metadata needs {role.threshold} signature(s) of its keys, and {present} can be made."
            keys = ", ".join(role.keyids)
            raise Misconfigured(msg, hint=f"Give the private key(s) with the id(s) {keys}.")
    data = metadata.to_bytes()
    if len(data) > role_bound(name):
        msg = f"The {name} metadata would be {len(data)} bytes long; devices take {role_bound(name)}."
        raise Misconfigured(msg, hint="Say less in it: fewer targets, or less beside each.")
    return data
