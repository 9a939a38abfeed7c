"""New private keys in files, whole or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path

from instar.errors import Misconfigured
from instar.system import files
from instar.trust.keys import create_key, create_unencrypted_key

__all__ = ["make_key"]


def make_key(path: Path, passphrase: str | None) -> None:
    """Make a key at ``path``, where there is none; None leaves it unencrypted.

    It is made beside its place and moved: half a key must never stand where a later attempt looks for a whole one.

    Raises:
        Misconfigured: it cannot be written.

    """
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    if passphrase is None:
        create_unencrypted_key(fresh)
    else:
        create_key(fresh, passphrase=passphrase)
    try:
        files.move(fresh, path)
    except OSError as error:
        msg = f"The key file {path} could not be written: {error.strerror or error}."
        raise Misconfigured(msg, hint="Its folder must be yours to write.") from error
