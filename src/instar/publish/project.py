"""A publisher's folder: settings, the trusted root, keys by URI, and the storage that is published to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from instar.errors import Misconfigured
from instar.publish.settings import Settings, read_settings
from instar.storage.opening import open_storage
from instar.storage.ports import Storage
from instar.system.clock import Clock, SystemClock
from instar.system.files import read_bounded
from instar.trust import keys as trust_keys
from instar.trust.keys import Passphrase, Signer
from instar.trust.layout import MAX_ROOT
from instar.trust.roles import Authority, Lifetimes, RoleSet

__all__ = ["ROOT_FILE", "WORK_FOLDER", "Project", "open_project"]

ROOT_FILE: Final = "root.json"
"""The trusted root beside the settings: what the publisher believes the storage by, and what apps are built with."""
WORK_FOLDER: Final = ".instar-work"
"""Where packs are made before they are uploaded; emptied by whoever publishes next."""


@dataclass(frozen=True)
class Project:
    """Everything a publisher's operation needs.

    Args:
        folder: where ``instar.toml`` is; relative paths in it start here.
        settings: what it says.
        storage: what is published to.
        root: the trusted root metadata. Nothing in the storage is believed unless it follows from this.
        passphrase: asked for the secrets of encrypted keys; None where there is nobody to ask.
        clock: the publisher's time.

    """

    folder: Path
    settings: Settings
    storage: Storage
    root: bytes = field(repr=False)
    passphrase: Passphrase | None = field(default=None, repr=False)
    clock: Clock = field(default_factory=SystemClock, repr=False)

    @property
    def work(self) -> Path:
        """The folder for work in progress."""
        return self.folder / WORK_FOLDER

    def key_files(self) -> dict[str, Path]:
        """Give the private keys that are in files, by whose they are."""
        found = {}
        for authority in Authority:
            scheme, _, rest = self.key_uri(authority).partition(":")
            if scheme == trust_keys.FILE_SCHEME:
                found[authority.value] = self.folder / rest
        return found

    def key_uri(self, authority: Authority) -> str:
        """Give where the private key of an authority is."""
        return self.settings.keys.owner if authority is Authority.OWNER else self.settings.keys.online

    def fetch(self, key: str, limit: int) -> bytes:
        """Read a small object of the storage."""
        return self.storage.read(key, limit=limit)

    def roles(self) -> RoleSet:
        """Read who vouches for what.

        Raises:
            NotFound: the storage holds no repository.
            Untrusted: it holds one that ``root`` does not vouch for.
            Unavailable: it did not answer.

        """
        return RoleSet.load(self.fetch, root=self.root, lifetimes=self.lifetimes)

    @property
    def lifetimes(self) -> Lifetimes:
        """How long signatures count."""
        days = self.settings.lifetimes
        return Lifetimes(
            root=days.of("root"),
            targets=days.of("targets"),
            channels=days.of("channels"),
            snapshot=days.of("snapshot"),
            timestamp=days.of("timestamp"),
        )

    def open_signers(self, roles: RoleSet, authorities: Iterable[Authority]) -> list[Signer]:
        """Open the private keys of some authorities, and check that the repository knows them.

        Raises:
            Misconfigured: a key is missing, cannot be opened, or is not the repository's.

        """
        return [self._open_signer(authority, roles) for authority in authorities]

    def _open_signer(self, authority: Authority, roles: RoleSet) -> Signer:
        uri = self.key_uri(authority)
        known = roles.keys(authority)
        # A key in a service or in hardware is opened by its public half; one in a file says itself which it is.
        public = None if uri.startswith(f"{trust_keys.FILE_SCHEME}:") else known[0]
        signer = trust_keys.open_signer(uri, folder=self.folder, public=public, passphrase=self.passphrase)
        if signer.public_key.keyid not in {key.keyid for key in known}:
            msg = f"The {authority.value} key {uri} is not the one that the repository knows."
            raise Misconfigured(msg, hint="Correct [keys] in instar.toml, or bring the right key file.")
        return signer


def open_project(folder: Path, *, passphrase: Passphrase | None = None, clock: Clock | None = None) -> Project:
    """Open the folder that ``instar init`` made.

    Raises:
        Misconfigured: it is none, or its settings are wrong.

    """
    settings = read_settings(folder)
    path = folder / ROOT_FILE
    try:
        root = read_bounded(path, MAX_ROOT)
    except (OSError, ValueError) as error:
        msg = f"The trusted root {path} cannot be read: {getattr(error, 'strerror', None) or error}."
        raise Misconfigured(
            msg, hint="Restore it from version control; it is what your apps were built with."
        ) from error
    storage = open_storage(settings.storage, base=folder)
    return Project(folder, settings, storage, root, passphrase, clock or SystemClock())
