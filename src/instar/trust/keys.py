"""Private keys of the publisher: made, kept encrypted, and opened by URI. Never asks a person itself.

``file:PATH`` is a PKCS#8 PEM file, encrypted or not. Every other scheme goes to ``securesystemslib`` (``hsm:``,
``awskms:``, ``gcpkms:``, ``azurekms:``, ``vault:`` …), which needs to be told the public key.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from instar.errors import InstarError, Misconfigured
from instar.system import files

__all__ = ["FILE_SCHEME", "Key", "Passphrase", "Signer", "create_key", "create_unencrypted_key", "open_signer"]

FILE_SCHEME: Final = "file"
"""URI scheme of a private key in a file."""

Passphrase = Callable[[str], str]
"""Asks for a secret. The argument says which, for a person: ``passphrase of keys/owner.pem``."""

# An RSA key of 16,384 bits takes 13 kB; a file longer than this is not a key.
_MAX_KEY_FILE: Final = 64 * 1024
_PRIVATE_MODE: Final = 0o600


def create_key(path: Path, *, passphrase: str) -> CryptoSigner:
    """Make an Ed25519 key and write it, encrypted, to a new file of mode 0600.

    Raises:
        Misconfigured: the passphrase is empty, the file exists or cannot be written.

    """
    if not passphrase:
        msg = "A private key needs a passphrase that is not empty."
        raise Misconfigured(msg, hint="Give one, or ask for unencrypted keys by name.")
    return _create(path, BestAvailableEncryption(passphrase.encode()))


def create_unencrypted_key(path: Path) -> CryptoSigner:
    """Make an Ed25519 key and write it to a new file of mode 0600 that whoever reads it can use.

    Raises:
        Misconfigured: the file exists or cannot be written.

    """
    return _create(path, NoEncryption())


def _create(path: Path, encryption: KeySerializationEncryption) -> CryptoSigner:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        file = files.create_file(path, mode=_PRIVATE_MODE)
    except FileExistsError as error:
        msg = f"There is a file at {path} already."
        raise Misconfigured(msg, hint="A key is never overwritten: move it away, or name another file.") from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with file:
            file.write(pem)
            files.sync_file(file)
        files.sync_folder(path.parent)
    except OSError as error:
        # Half a key would only stand in the way of the next attempt.
        with contextlib.suppress(OSError):
            path.unlink()
        raise _unwritable(path, error) from error
    return CryptoSigner(private)


def _unwritable(path: Path, error: OSError) -> Misconfigured:
    msg = f"The key file {path} could not be written: {error.strerror or error}."
    return Misconfigured(msg, hint="Its folder must exist and be yours to write.")


def open_signer(
    uri: str,
    *,
    folder: Path,
    public: Key | None = None,
    passphrase: Passphrase | None = None,
) -> Signer:
    """Open a private key.

    Args:
        uri: ``file:PATH``, or a URI of ``securesystemslib``.
        folder: what a relative ``PATH`` starts from.
        public: the public key that it must belong to; for a scheme other than ``file`` it cannot be left out.
        passphrase: asked only when the key is encrypted, or the hardware wants a PIN.

    Raises:
        Misconfigured: there is no such key, it cannot be read, the passphrase is wrong, or it is another key.

    """
    scheme, colon, rest = uri.partition(":")
    if not colon or not rest:
        msg = f"{uri!r} is not the URI of a key."
        raise Misconfigured(msg, hint="Write file:PATH, or a scheme of securesystemslib such as awskms: or hsm:.")
    if scheme == FILE_SCHEME:
        return _open_file(folder / rest, public, passphrase)
    return _open_elsewhere(uri, public, passphrase)


def _open_elsewhere(uri: str, public: Key | None, passphrase: Passphrase | None) -> Signer:
    if public is None:
        msg = f"The public key that belongs to {uri} is not known."
        raise Misconfigured(msg, hint="Give it: a key in a service or in hardware is opened by its public half.")
    try:
        return Signer.from_priv_key_uri(uri, public, passphrase)
    except InstarError:
        raise
    except Exception as error:  # securesystemslib documents that its signers raise whatever their drivers raise
        msg = f"The key {uri} could not be opened: {error}."
        raise Misconfigured(msg, hint="Check the URI, its driver and your access to it.") from error


def _open_file(path: Path, public: Key | None, passphrase: Passphrase | None) -> CryptoSigner:
    try:
        pem = files.read_bounded(path, _MAX_KEY_FILE)
    except FileNotFoundError as error:
        msg = f"There is no key file {path}."
        raise Misconfigured(msg, hint="Bring the key to this machine, or correct its URI.") from error
    except (OSError, ValueError) as error:
        msg = f"The key file {path} could not be read: {error}."
        raise Misconfigured(msg, hint="It must be yours to read, and a PKCS#8 PEM file.") from error

    secret = _ask(path, pem, passphrase)
    try:
        private = load_pem_private_key(pem, secret)
        signer = CryptoSigner(private)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if secret is not None:
            msg = f"The passphrase does not open {path}."
            raise Misconfigured(msg, hint="Try again, or check that it is the right key file.") from error
        msg = f"The file {path} holds no private key that instar can use."
        raise Misconfigured(msg, hint="It must be a PKCS#8 PEM file, best with an Ed25519 key.") from error
    if public is None:
        return signer
    try:
        # Not the signer above: the repository may call the same key by an id that another tool computed.
        return CryptoSigner(private, public if isinstance(public, SSlibKey) else None)
    except ValueError as error:
        msg = f"The key in {path} is not the one that the repository knows (key id {public.keyid})."
        raise Misconfigured(msg, hint="Use the key file that belongs to this repository.") from error


def _ask(path: Path, pem: bytes, passphrase: Passphrase | None) -> bytes | None:
    """Get the passphrase of a PEM file, or None where it has none (RFC 7468, section 11; RFC 1421 for the old form)."""
    if b"ENCRYPTED" not in pem:
        return None
    if passphrase is None:
        msg = f"The key {path} is encrypted, and there is nobody to ask for its passphrase."
        raise Misconfigured(msg, hint="Give the passphrase, for a script in an environment variable.")
    secret = passphrase(f"passphrase of {os.fspath(path)}").encode()
    if not secret:
        msg = f"The passphrase of {path} cannot be empty."
        raise Misconfigured(msg, hint="Give the passphrase that the key was made with.")
    return secret
