"""An installation as the client sees it: opened, with the client's own files beside the installer's.

The client keeps in ``<state>/client``: ``root.json`` (the trusted root), ``connection.json``, ``metadata/``,
``channels.json``, ``manifests/``, ``contact.json`` (how the last check went) and ``work.lock``. The lock keeps other
checks and downloads away for as long as those take; the installer has its own, which it holds only for moments, so
that an app can start and confirm while another process downloads.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instar.client.config import DEFAULT_CHANNEL, MAX_ROOT, Config, Connection
from instar.client.environment import own_environment
from instar.errors import InstallFailed, InstarError, Misconfigured
from instar.install import Confirmation, Installation, Layout, Record
from instar.model.names import Name, ProductName
from instar.system import files, locks
from instar.system.clock import Clock, SystemClock

if TYPE_CHECKING:
    from instar.client.session import Session
    from instar.storage import Reader

__all__ = ["Contact", "Here", "disk_errors", "load_config", "make_record", "open_here"]

_FOLDER: Final = "client"
_ROOT: Final = "root.json"
_CONNECTION: Final = "connection.json"
_CONTACT: Final = "contact.json"
# Bytes of our own small files: some headers, a sentence.
_MAX_SMALL: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Contact:
    """How the last attempt to reach the repository went: ``problem`` is None when it went well."""

    when: datetime
    problem: str | None


@dataclass(frozen=True)
class Here:
    """An installation and what its app says about updates."""

    config: Config
    installation: Installation

    @property
    def folder(self) -> Path:
        """Where the client keeps its files."""
        return self.installation.state_folder / _FOLDER

    @property
    def channel(self) -> Name:
        """The channel to follow: the one that the app names, else the one on record."""
        return Name(self.config.channel) if self.config.channel else self.installation.record.channel

    @property
    def switches_channel(self) -> bool:
        """Whether the app names another channel than the one that was followed so far."""
        return self.channel != self.installation.record.channel

    @property
    def running(self) -> str | None:
        """The version that runs, for error messages."""
        current = self.installation.status().current
        return None if current is None else str(current.version)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Keep other checks and downloads away, and say it properly when the disk refuses.

        Raises:
            Busy: another one is at work.
            InstallFailed: the disk is full, read-only or broken.
            Misconfigured: the installation was removed.

        """
        with disk_errors(self.installation.location, running=self.running):
            if not self.installation.state_folder.is_dir():
                self.installation.reread()  # which says that it was removed; nothing is made in its place
            files.make_folder(self.folder)
            with locks.exclusive(self.folder / "work.lock", what=f"{self.installation.location}"):
                # Another process may have switched the channel since this object was made.
                self.installation.reread()
                yield

    def session(self, reader: Reader) -> Session:
        """Give a look at the repository that is cached here. For use while :meth:`working`."""
        # Imported here: an app's start, which asks no repository, pays for no cryptography and no HTTP.
        from instar.client.session import Session  # noqa: PLC0415

        return Session(self.config, self.folder, reader)

    def save_record(self, *, channel: Name) -> None:
        """Put what the app says about itself on record, and the channel it follows from now on."""
        old = self.installation.record
        new = replace(make_record(self.config, layout=old.layout, device_id=old.device_id), channel=channel)
        if new != old:
            self.installation.update_record(new)

    def save_trust(self) -> None:
        """Keep the trusted root and how to reach the repository, so that commands later need only the folder."""
        files.make_folder(self.folder)
        connection = self.config.connection
        document = {
            "headers": dict(connection.headers),
            "proxy": connection.proxy,
            "ca_file": None if connection.ca_file is None else str(connection.ca_file),
            "insecure_http": connection.insecure_http,
        }
        # Headers may hold a password to a private repository.
        files.write_atomic(self.folder / _CONNECTION, json.dumps(document, indent=1).encode(), mode=0o600)
        files.write_atomic(self.folder / _ROOT, self.config.root)

    @property
    def has_trust(self) -> bool:
        """Whether :meth:`save_trust` was reached: the last step of a first install or an adoption."""
        return (self.folder / _ROOT).is_file()

    def note_contact(self, error: InstarError | None) -> None:
        """Remember how the attempt to reach the repository went. That it cannot be written down harms nobody."""
        when = self.config.clock.now().astimezone(UTC).isoformat()
        document = json.dumps({"when": when, "problem": None if error is None else str(error)})
        with contextlib.suppress(OSError):
            # Not durable, and half of it is as good as none: this is for a person who wonders.
            (self.folder / _CONTACT).write_text(document, encoding="utf-8")

    def contact(self) -> Contact | None:
        """Say how the last attempt went, None if there was none that anybody remembers."""
        try:
            row = json.loads(files.read_bounded(self.folder / _CONTACT, _MAX_SMALL))
            return Contact(datetime.fromisoformat(row["when"]), row["problem"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


@contextlib.contextmanager
def disk_errors(location: Path, *, running: str | None) -> Iterator[None]:
    """Turn an error of the disk into one that tells a person what to do.

    Raises:
        InstallFailed: in place of ``OSError``.

    """
    try:
        yield
    except OSError as error:
        msg = f"The disk of {location} refused: {error.strerror or error}."
        hint = "Make room there, and make sure that it can be written; then try again."
        raise InstallFailed(msg, running=running, hint=hint) from error


def open_here(config: Config) -> Here:
    """Open the installation that ``config`` names.

    Raises:
        Misconfigured: there is none, or it is another product's or platform's.

    """
    installation = Installation.open(config.location, clock=config.clock)
    record = installation.record
    if (record.product, record.platform) != (config.product, config.platform):
        msg = (
            f"{config.location} holds {record.product} for {record.platform}, "
            f"not {config.product} for {config.platform}."
        )
        raise Misconfigured(msg, hint="Name the folder of the right installation.")
    return Here(config, installation)


def make_record(config: Config, *, layout: Layout, device_id: str = "") -> Record:
    """Say of an installation what ``config`` says.

    Raises:
        Misconfigured: something in it cannot be.

    """
    try:
        return Record(
            product=ProductName(config.product),
            platform=Name(config.platform),
            urls=config.urls,
            channel=Name(config.channel or DEFAULT_CHANNEL),
            layout=layout,
            keep=config.keep,
            health=config.health,
            health_timeout=config.health_timeout,
            max_starts=config.max_starts,
            deadline=config.deadline,
            confirmation=Confirmation.BY_APP if config.confirmed_by == "app" else Confirmation.BY_HEALTH,
            device_id=config.device_id or device_id or secrets.token_hex(16),
            facts=dict(config.facts),
        )
    except ValueError as error:
        msg = f"{error}."
        raise Misconfigured(msg) from error


def load_config(
    location: Path,
    *,
    channel: str | None = None,
    proxy: str | None = None,
    environment: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> Config:
    """Make the configuration of an existing installation from what was kept when it was made.

    Args:
        location: its folder.
        channel: another channel to follow from now on.
        proxy: used when none was kept.
        environment: what programs of the app get to see; the usual selection unless given.
        clock: what time it is.

    Raises:
        Misconfigured: there is no installation, or what was kept with it cannot be read.

    """
    clock = clock or SystemClock()
    installation = Installation.open(location, clock=clock)
    record = installation.record
    folder = installation.state_folder / _FOLDER
    try:
        root = files.read_bounded(folder / _ROOT, MAX_ROOT)
        row: Mapping[str, Any] = json.loads(files.read_bounded(folder / _CONNECTION, _MAX_SMALL))
        connection = Connection(
            headers={str(name): str(value) for name, value in row["headers"].items()},
            proxy=row["proxy"] or proxy,
            ca_file=None if row["ca_file"] is None else Path(row["ca_file"]),
            insecure_http=row["insecure_http"] is True,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{location} does not say whom it trusts."
        raise Misconfigured(msg, hint="Run the command that made the installation once more.") from error
    return Config(
        product=record.product,
        url=record.urls[0],
        root=root,
        location=location,
        mirrors=record.urls[1:],
        channel=channel,
        facts=record.facts,
        platform=record.platform,
        keep=record.keep,
        health=record.health,
        health_timeout=record.health_timeout,
        max_starts=record.max_starts,
        deadline=record.deadline,
        confirmed_by="health" if record.confirmation is Confirmation.BY_HEALTH else "app",
        device_id=record.device_id or None,
        connection=connection,
        environment=own_environment() if environment is None else environment,
        clock=clock,
    )
