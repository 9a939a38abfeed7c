"""What keeps a repository trusted: signatures renewed before they end, keys replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from instar.errors import Misconfigured
from instar.publish.keyfiles import make_key
from instar.publish.project import Project
from instar.publish.session import publishing
from instar.system import files
from instar.trust.keys import FILE_SCHEME, Signer, open_signer
from instar.trust.roles import Authority

__all__ = ["Refreshed", "refresh", "rotate"]

# No signature lasts longer, so at a time that far ahead all of them are due.
_FAR: Final = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Roles that were signed again, and when each role's signature ends from now on."""

    renewed: tuple[str, ...]
    expires: Mapping[str, datetime]


def refresh(project: Project, *, everything: bool = False) -> Refreshed:
    """Sign again what has less than a third of its lifetime left.

    The owner's key is opened only when something of the owner's is due.

    Args:
        project: the project.
        everything: renew all roles, due or not.

    Raises:
        Misconfigured: a key is missing. What the other key can renew has been renewed nevertheless.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    with publishing(project) as session:
        moment = session.now + _FAR if everything else session.now
        signers = project.open_signers(session.roles, [Authority.ONLINE])
        renewal = session.roles.renew(moment, signers)
        renewed, missing = list(renewal.renewed), renewal.missing
        failed: Misconfigured | None = None
        if missing:
            try:
                signers += project.open_signers(session.roles, [Authority.OWNER])
            except Misconfigured as error:
                failed = error
            else:
                renewed += session.roles.renew(moment, signers).renewed
        session.commit(signers)
        if failed:
            names = ", ".join(f"{name} ({expires:%Y-%m-%d})" for name, expires in sorted(missing.items()))
            msg = f"What the online key signs is renewed; the owner must renew {names}. {failed.message}"
            raise Misconfigured(msg, hint=failed.hint) from failed
    return Refreshed(tuple(sorted(renewed)), project.roles().expiries())


def rotate(project: Project, authority: Authority, *, passphrase: str | None) -> str:
    """Replace the key of an authority by a new one. Gives the new key's id.

    Clients must never meet a signature that their root does not know, so it takes two publications: old and new key
    together, then the new one alone. Killed at any step, it goes on from there when it is called again.

    Args:
        project: the project; the key to replace is in a file.
        authority: whose key.
        passphrase: for the new key; None leaves it unencrypted.

    Raises:
        Misconfigured: the key is not in a file, the new one cannot be written, or another key is missing.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    uri = project.key_uri(authority)
    scheme, _, rest = uri.partition(":")
    if scheme != FILE_SCHEME:
        msg = f"The key {uri} is not in a file, so instar cannot make its successor."
        raise Misconfigured(msg, hint="Make it with the tool of its service, then change [keys] in instar.toml.")
    path = project.folder / rest
    following = path.with_name(f"{path.stem}.next{path.suffix}")
    # Opened before anything is made: a mistyped passphrase must leave nothing. And before it is replaced: from the last
    # publication on, nobody knows it any more.
    old = open_signer(uri, folder=project.folder, passphrase=project.passphrase)
    roles = project.roles()
    known = {key.keyid for key in roles.keys(authority)}
    others = project.open_signers(roles, [Authority.ONLINE if authority is Authority.OWNER else Authority.OWNER])
    if old.public_key.keyid not in known and not following.exists():
        msg = f"The {authority.value} key {uri} is not the one that the repository knows."
        raise Misconfigured(msg, hint="Correct [keys] in instar.toml, or bring the right key file.")
    new = _successor(project, following, passphrase)
    if old.public_key.keyid in known:
        _hand_over(project, authority, [old, new], replaced=old, others=others)
    _hand_over(project, authority, [new], replaced=old, others=others)
    try:
        files.move(following, path)
    except OSError as error:
        msg = f"The new key could not take the place of {path}: {error.strerror or error}."
        raise Misconfigured(msg, hint=f"Rename {following} to {path} yourself.") from error
    return str(new.public_key.keyid)


def _successor(project: Project, path: Path, passphrase: str | None) -> Signer:
    if not path.exists():
        make_key(path, passphrase)
    ask = project.passphrase if passphrase is None else (lambda _: passphrase)
    try:
        return open_signer(f"{FILE_SCHEME}:{path.absolute()}", folder=project.folder, passphrase=ask)
    except Misconfigured as error:
        msg = f"{path} is the new key of a rotation that did not come to its end, and cannot be opened: {error.message}"
        raise Misconfigured(msg, hint="Give the passphrase for new keys that you gave then.") from error


def _hand_over(
    project: Project, authority: Authority, signers: list[Signer], *, replaced: Signer, others: list[Signer]
) -> None:
    with publishing(project) as session:
        keys = [signer.public_key for signer in signers]
        session.roles.set_keys(authority, keys, replacing=[replaced.public_key])
        # Whoever was there before signs too: a client may have the root before, or the one after.
        session.commit([*{id(signer): signer for signer in (replaced, *signers)}.values(), *others])
