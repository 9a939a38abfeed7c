"""``instar init``: keys, the first root, an empty repository, settings.

The settings are written last: while they are missing there is no project, and what is there is taken up again by the
next ``init``, whichever step the one before it was killed at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from instar.errors import Misconfigured, NotFound
from instar.publish.keyfiles import make_key
from instar.publish.project import ROOT_FILE, WORK_FOLDER, Project, open_project
from instar.publish.seen import SEEN_FILE
from instar.publish.settings import FILE_NAME, Keys, Settings
from instar.storage.local import LocalStorage
from instar.storage.opening import open_storage
from instar.storage.ports import Storage
from instar.system import files
from instar.system.clock import Clock, SystemClock
from instar.trust import ceremony
from instar.trust.keys import FILE_SCHEME, Signer, open_signer
from instar.trust.layout import MAX_ROOT, METADATA, metadata_key
from instar.trust.roles import Authority, RoleSet

__all__ = ["Secret", "found_project"]

Secret = Callable[[], str]
"""Gives the passphrase for new keys. Asked once, and only when a key has to be made or opened."""

_FIRST_ROOT: Final = metadata_key("root", 1)
_TIMESTAMP: Final = metadata_key("timestamp", None)
_KEY_NAMES: Final = ("owner", "online")
# Bytes. Somebody's own .gitignore, to which lines are added.
_MAX_IGNORE: Final = 1 << 20


@dataclass(frozen=True)
class _Founding:
    folder: Path
    keys: Path
    secret: Secret | None
    clock: Clock


def found_project(
    folder: Path,
    settings: Settings,
    *,
    secret: Secret | None,
    keys: Path | None = None,
    clock: Clock | None = None,
) -> Project:
    """Make a project and its empty repository.

    Args:
        folder: made at need; may hold other things, but no project.
        settings: what ``instar.toml`` will say; its ``keys`` are set here.
        secret: gives the passphrase for the keys; None leaves them unencrypted.
        keys: the folder of the private keys, ``folder/keys`` by default. Keys that are there are used.
        clock: the publisher's time.

    Raises:
        Misconfigured: there is a project already, the storage holds somebody else's repository, or something cannot
            be written.
        Unavailable: the storage does not answer.

    """
    if (folder / FILE_NAME).exists():
        msg = f"{folder} holds a project already."
        raise Misconfigured(msg, hint="Nothing was changed. Begin another one in another folder.")
    clock = clock or SystemClock()
    key_folder = (keys or folder / "keys").absolute()
    storage = open_storage(settings.storage, base=folder)
    if isinstance(storage, LocalStorage) and key_folder.resolve().is_relative_to(storage.root.resolve()):
        msg = f"The keys in {key_folder} would lie inside the storage, for everybody to read."
        raise Misconfigured(msg, hint="Name another folder for one of them.")
    if secret is not None and not all((key_folder / f"{name}.pem").exists() for name in _KEY_NAMES):
        secret()  # whoever has no answer has made nothing yet
    try:
        files.make_folder(folder)
        files.make_folder(key_folder)
        _ignore(folder, settings, key_folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"its .gitignore is no text: {error}"
        msg = f"{folder} cannot be made a project: {reason}."
        raise Misconfigured(msg, hint="Choose a folder that is yours to write.") from error
    signers = {name: _key(key_folder / f"{name}.pem", secret) for name in _KEY_NAMES}
    uris = Keys(*(_uri(key_folder / f"{name}.pem", folder) for name in _KEY_NAMES))
    settings = Settings(settings.product, settings.storage, settings.urls, uris, settings.lifetimes, settings.release)
    with storage.hold():
        storage.remove_leftovers()
        root = _repository(storage, settings, signers, Project(folder, settings, storage, b"", clock=clock))
    try:
        files.write_atomic(folder / ROOT_FILE, root)
        files.write_atomic(folder / FILE_NAME, settings.to_toml().encode())
    except OSError as error:
        msg = f"{folder / FILE_NAME} cannot be written: {error.strerror or error}."
        raise Misconfigured(msg, hint="Make room, or give yourself access, then run it again.") from error
    return open_project(folder, clock=clock)


def _key(path: Path, secret: Secret | None) -> Signer:
    if not path.exists():
        make_key(path, None if secret is None else secret())
    ask = None if secret is None else lambda _: secret()
    return open_signer(f"{FILE_SCHEME}:{path}", folder=path.parent, passphrase=ask)


def _uri(path: Path, folder: Path) -> str:
    home = folder.absolute()
    shown = path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)
    return f"{FILE_SCHEME}:{shown}"


def _repository(storage: Storage, settings: Settings, signers: dict[str, Signer], project: Project) -> bytes:
    """Give the first root of the repository in the storage, which is made unless an earlier try has made it."""
    if _read(storage, _TIMESTAMP) is not None:
        return _own_repository(project, signers)
    for listed in list(storage.list("")):
        if not listed.key.startswith(METADATA):
            msg = f"The storage {settings.storage} is not empty: it holds {listed.key}."
            raise Misconfigured(msg, hint="Name an empty folder; instar would not know whose things these are.")
        # Without a timestamp there never was a repository: this is what an init left that did not come to its end.
        storage.delete(listed.key)
    made = ceremony.first_files(
        [settings.product],
        owner=[signers["owner"]],
        online=[signers["online"]],
        now=project.clock.now(),
        lifetimes=project.lifetimes,
    )
    for key, data in made[:-1]:
        storage.create(key, data)
    last, timestamp = made[-1]
    storage.replace(last, timestamp, expected=None)
    return dict(made)[_FIRST_ROOT]


def _own_repository(project: Project, signers: dict[str, Signer]) -> bytes:
    root = _read(project.storage, _FIRST_ROOT)
    hint = "Name an empty folder, or go to the project that this repository belongs to."
    if root is None:
        msg = "The storage holds a repository without its first root."
        raise Misconfigured(msg, hint=hint)
    roles = RoleSet.load(project.fetch, root=root)
    for authority in Authority:
        if signers[authority.value].public_key.keyid not in {key.keyid for key in roles.keys(authority)}:
            msg = "The storage holds a repository already, made with other keys."
            raise Misconfigured(msg, hint=hint)
    if project.settings.product not in roles.products:
        msg = f"The storage holds a repository already, of {', '.join(roles.products)}."
        raise Misconfigured(msg, hint=hint)
    return root


def _read(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.read(key, limit=MAX_ROOT)
    except NotFound:
        return None


def _ignore(folder: Path, settings: Settings, keys: Path) -> None:
    """Keep keys, packs and work in progress out of version control."""
    home = folder.absolute()
    places = [home / WORK_FOLDER, keys, home / settings.storage]
    wanted = [f"/{p.relative_to(home).as_posix()}/" for p in places if p != home and p.is_relative_to(home)]
    wanted.append(f"/{SEEN_FILE}")
    path = folder / ".gitignore"
    present = files.read_bounded(path, _MAX_IGNORE).decode() if path.exists() else ""
    missing = [line for line in wanted if line not in present.splitlines()]
    if missing:
        gap = "\n" if present and not present.endswith("\n") else ""
        files.write_atomic(path, (present + gap + "\n".join(missing) + "\n").encode())
