"""What an app says about its own updates: one frozen value, checked where it is made and handed down in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from instar.client.environment import own_environment
from instar.errors import Misconfigured
from instar.model.names import Name, ProductName
from instar.system.clock import Clock, SystemClock
from instar.system.platform import detect_platform

__all__ = ["DEFAULT_CHANNEL", "MAX_ROOT", "Config", "Connection"]

DEFAULT_CHANNEL: Final = "stable"
# How many starts a new version gets to say that it works, unless told otherwise: one may die of something else.
_MAX_STARTS: Final = 3
# Seconds: an app that unpacks itself on a slow disk needs some, and a hang must end.
_HEALTH_TIMEOUT: Final = 60.0
# A root of a hundred keys with long comments is some 50 kB.
MAX_ROOT: Final = 512_000
_MAX_DEVICE_ID: Final = 200


@dataclass(frozen=True)
class Connection:
    """How to reach the repository. The defaults are right for most; nothing is read from the environment.

    Args:
        headers: sent with every request, for a private repository.
        proxy: a proxy's URL, like ``http://proxy.example:3128``.
        ca_file: certificates to trust instead of the system's.
        insecure_http: take ``http://`` from other machines too. TUF still protects what is installed; what is lost is
            privacy, and the protection of TLS against someone who only wants to keep updates away.

    """

    _: KW_ONLY
    headers: Mapping[str, str] = field(default_factory=dict)
    proxy: str | None = None
    ca_file: Path | None = None
    insecure_http: bool = False


@dataclass(frozen=True)
class Config:
    """What is updated, from where, and whom it trusts.

    Args:
        product: the product's name, as in ``instar init --product``.
        url: where the repository is: ``https://…``, or a folder for updates from a disk.
        root: the content of the trusted ``root.json``; ship it inside the app.
        location: the folder of the installation: the one that holds ``versions`` and ``current``, or, for an app that
            lives in its own folder, that folder. ``instar.find_installation()`` finds it from inside an app.
        mirrors: further URLs of the same repository, tried in order when the first does not answer.
        channel: the channel to follow, None for the one that is on record (``stable`` at first). Naming another one
            than that is the device owner's will to switch, and may lead to an older version.
        facts: what the device says about itself; rollouts can be limited to devices by them.
        platform: which platform's releases; this machine's unless given.
        keep: patterns of files inside the app's folder that belong to the user and survive updates, like ``data/*``.
        health: a command that is run on a new version before it is selected, its first word a path inside the app's
            folder, like ``("myapp", "--version")``. A version for which it does not end with 0 is never selected.
        health_timeout: seconds that it may take.
        max_starts: how many starts a new version has to call ``confirm`` before it is rolled back.
        deadline: seconds from its first start after which the next start rolls an unconfirmed version back; None: none.
        confirmed_by: ``"app"`` when the app calls ``confirm``; ``"health"`` when the health command is all there is.
        device_id: decides who is early in a rollout. A random one is made and kept unless given.
        connection: proxies, headers, certificates.
        build_time: when the app was built. On a device without a clock, time is at least this.
        environment: what the health command gets to see; unless given, the plain parts of this process's own.
        clock: what time it is; for tests.

    Raises:
        Misconfigured: a value cannot be what it should be.

    """

    product: str
    url: str
    root: bytes = field(repr=False)
    location: Path
    _: KW_ONLY
    mirrors: tuple[str, ...] = ()
    channel: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    platform: str = field(default_factory=detect_platform)
    keep: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    health_timeout: float = _HEALTH_TIMEOUT
    max_starts: int = _MAX_STARTS
    deadline: float | None = None
    confirmed_by: Literal["app", "health"] = "app"
    device_id: str | None = None
    connection: Connection = field(default_factory=Connection)
    build_time: datetime | None = None
    environment: Mapping[str, str] = field(default_factory=own_environment, repr=False)
    clock: Clock = field(default_factory=SystemClock, repr=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "product", ProductName(self.product))
            object.__setattr__(self, "platform", Name(self.platform))
            object.__setattr__(self, "channel", None if self.channel is None else Name(self.channel))
        except ValueError as error:
            raise Misconfigured(f"{error}.") from error
        object.__setattr__(self, "location", Path(self.location).absolute())
        for problem in self._problems():
            raise Misconfigured(problem)

    def _problems(self) -> list[str]:
        problems = [f"{url!r} is no address of a repository." for url in self.urls if not _is_address(url)]
        if any(map(_is_text, (self.mirrors, self.keep, self.health))):
            problems.append("mirrors, keep and health are lists of texts, not one text.")
        if not 0 < len(self.root) <= MAX_ROOT:
            problems.append(f"The trusted root is the content of a root.json, 1 to {MAX_ROOT:,} bytes of it.")
        if self.max_starts < 1:
            problems.append("max_starts is at least 1: a new version must be allowed to start.")
        if self.device_id is not None and not 0 < len(self.device_id) <= _MAX_DEVICE_ID:
            problems.append(f"A device's id has 1 to {_MAX_DEVICE_ID} characters.")
        if self.build_time is not None and self.build_time.tzinfo is None:
            problems.append("build_time needs a time zone.")
        return problems

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL and its mirrors, in the order they are tried."""
        return (self.url, *self.mirrors)


def _is_text(value: object) -> bool:
    # A text is a sequence of texts, too: the type checker sees that mistake, a running app would not.
    return isinstance(value, str)


def _is_address(url: str) -> bool:
    if "://" not in url:
        return bool(url)
    parts = urlsplit(url)
    return parts.scheme == "file" or bool(parts.scheme in {"http", "https"} and parts.hostname)
