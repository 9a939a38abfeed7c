"""The device's side: ask the server for an update, write down what it said, and let RAUC install it.

The same addresses, fallbacks and files as the older client. What is trusted is the connection (https) and the bundle's
own signature, which RAUC checks; answers that are signed themselves are read with :mod:`instar.compat.atomupd.signed`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode, urljoin, urlsplit

from instar.compat.atomupd.image import Image, read_manifest
from instar.compat.atomupd.osrelease import describe_system
from instar.compat.atomupd.paths import exact_path, fallback_path, penultimate_path
from instar.errors import Misconfigured, NotFound, Untrusted
from instar.install.rauc import BundleInstaller, OnPercent
from instar.policy.rollout import fits
from instar.storage import HttpReader, RequestRefused
from instar.system.files import make_folder, read_bounded, sync_folder, write_atomic

__all__ = [
    "ClientSettings",
    "Found",
    "NothingThere",
    "Server",
    "Step",
    "WebServer",
    "install_update",
    "query_update",
    "record_update",
    "running_image",
]

MAX_ANSWER: Final = 1 << 20
"""Bytes of an answer: a kilobyte for each checkpoint on the way."""

UPDATE_FILE: Final = "update.json"
_MAX_FILE: Final = 1 << 20

RUNTIME: Final = Path("/run/steamos-atomupd")
"""The folder for what is forgotten at the next start."""
MANIFEST: Final = Path("/etc/steamos-atomupd/manifest.json")
"""The manifest of the image that runs."""


class NothingThere(NotFound):
    """Every attempt was answered, and each time the server said that the request cannot be answered (4xx)."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The client's configuration file. Exactly one of ``meta_url`` and ``query_url`` is set."""

    meta_url: str | None
    query_url: str | None
    images_url: str
    variants: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    runtime: Path = RUNTIME
    manifest: Path = MANIFEST

    @classmethod
    def read(cls, path: Path) -> ClientSettings:
        """Read a configuration file.

        Raises:
            Misconfigured: it cannot be read or used.

        """
        try:
            ini = ConfigParser(interpolation=None)
            ini.read_string(read_bounded(path, _MAX_FILE).decode())
            server = ini["Server"]
            images = server["ImagesUrl"].strip()
        except (OSError, ValueError, IniError) as error:
            msg = f"The configuration {path} cannot be read: {error}."
            raise Misconfigured(msg, hint="Name the client's configuration file with -c.") from error
        except KeyError as error:
            msg = f"The configuration {path} lacks {error}: [Server] with ImagesUrl and MetaUrl."
            raise Misconfigured(msg, hint="Add it there.") from error
        meta, query = (server.get(key, "").strip() or None for key in ("MetaUrl", "QueryUrl"))
        if not meta and not query:
            msg = f"The configuration {path} names no server: [Server] needs MetaUrl (or QueryUrl)."
            raise Misconfigured(msg, hint="Add it there.")
        lists = {
            key: tuple(word.strip() for word in server.get(key, "").split(";") if word.strip())
            for key in ("Variants", "Branches")
        }
        return cls(
            meta_url=meta,
            query_url=None if meta else query,
            images_url=images if images.endswith("/") else images + "/",
            variants=lists["Variants"],
            branches=lists["Branches"],
            runtime=Path(ini.get("Host", "RuntimeDir", fallback=str(RUNTIME))),
            manifest=Path(ini.get("Host", "Manifest", fallback=str(MANIFEST))),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One image on the way: what it is, and where its bundle is, relative to the images' address."""

    image: Image
    update_path: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the server said. ``steps``: the images to install one after the other, none for nothing.

    ``withheld``: there is an update, but not for a device like this one.
    """

    document: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    replacement: str = ""
    withheld: bool = False


class Server(Protocol):
    """The port: whoever answers for the images."""

    def read(self, path: str) -> bytes:
        """Read the answer at a path of the static tree.

        Raises:
            NotFound: there is none (4xx).
            Unavailable, Untrusted: as their names say.

        """

    def ask(self, query: str) -> bytes:
        """Ask the dynamic server. Errors as for ``read``."""


class WebServer:
    """A server behind an address. A refusal of any kind (4xx) is a :class:`NotFound`."""

    def __init__(self, reader: HttpReader) -> None:
        self._reader = reader

    def read(self, path: str) -> bytes:
        """Read the answer at a path of the static tree."""
        try:
            return self._reader.read(path, limit=MAX_ANSWER)
        except (RequestRefused, Misconfigured) as error:
            raise NotFound(error.message, hint=error.hint) from error

    def ask(self, query: str) -> bytes:
        """Ask the dynamic server."""
        try:
            return self._reader.read_query(query, limit=MAX_ANSWER)
        except (RequestRefused, Misconfigured) as error:
            raise NotFound(error.message, hint=error.hint) from error


def running_image(manifest: Path, os_release: Path, machine: str) -> Image:
    """Read what image runs here: from its manifest, or from ``os-release`` where it has none.

    Raises:
        Misconfigured: neither says it.

    """
    try:
        return read_manifest(manifest)[0]
    except FileNotFoundError:
        return describe_system(os_release, machine)[1]
    except (OSError, ValueError) as error:
        msg = f"The manifest {manifest} cannot be read: {error}."
        raise Misconfigured(msg, hint="Name the manifest of the system that runs.") from error


def query_update(
    server: Server,
    image: Image,
    *,
    dynamic: bool = False,
    variant: str | None = None,
    branch: str | None = None,
    penultimate: bool = False,
    facts: Mapping[str, str] | None = None,
) -> Found:
    """Ask for an update of ``image``.

    Args:
        server: whom to ask.
        image: what runs.
        dynamic: whether it answers queries, instead of having a static tree.
        variant: another variant to change to.
        branch: the branch to follow; None for the image's own.
        penultimate: ask for the image before the newest.
        facts: what this device is made of.

    Raises:
        NothingThere: each attempt was refused.
        Unavailable: the server failed, or cannot be reached.
        Untrusted: the answer is none.
        Misconfigured: the penultimate image was asked of a dynamic server, which cannot say it.

    """
    facts = facts or {}
    branch = branch or image.default_update_branch
    if dynamic and penultimate:
        msg = "A server that is asked by queries knows no --penultimate."
        raise Misconfigured(msg, hint="Leave it out, or set MetaUrl in the client's configuration.")
    if dynamic:
        asking = image.of_variant(variant) if variant and not image.legacy_variant else image
        attempts = [_query_of(asking, branch, facts)]
    elif penultimate:
        attempts = [penultimate_path(image, branch, variant=variant)]
    elif variant and variant != image.variant and not image.legacy_variant:
        attempts = [fallback_path(image, branch, variant=variant)]
    else:
        attempts = [exact_path(image, branch), fallback_path(image, branch)]
    for number, attempt in enumerate(attempts, 1):
        try:
            data = server.ask(attempt) if dynamic else server.read(attempt)
        except NotFound as error:
            if number == len(attempts):
                msg = f"The server has no answer for this image: {error.message}"
                raise NothingThere(msg, hint="Is the branch right, and does the server know this image?") from error
            continue
        return _understand(data, image, facts)
    raise AssertionError


def record_update(found: Found, runtime: Path) -> Path | None:
    """Write down what was found, where the system's other programs look for it; nothing found: remove what is there.

    Raises:
        Misconfigured: it cannot be written.

    """
    path = runtime / UPDATE_FILE
    try:
        if found.steps:
            make_folder(runtime)
            write_atomic(path, json.dumps(found.document, indent=2).encode())
            return path
        if path.exists():
            path.unlink()
            sync_folder(runtime)
    except OSError as error:
        msg = f"{path} cannot be written: {error}."
        raise Misconfigured(msg, hint="Set RuntimeDir to a folder that can be.") from error
    return None


def install_update(
    step: Step, images_url: str, installer: BundleInstaller, *, on_percent: OnPercent, insecure_http: bool
) -> str:
    """Install the first image of what was found. The next one is asked for after the next start.

    Returns:
        The bundle's address.

    Raises:
        InstallFailed, Misconfigured: as the installer says, or the address is not protected by TLS.
        Untrusted: the answer leads elsewhere than below the images' address.

    """
    parts = urlsplit(images_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"The ImagesUrl {images_url!r} is no address of a web server."
        raise Misconfigured(msg, hint="Give it in the client's configuration like https://updates.example.com/images.")
    if parts.scheme == "http" and not insecure_http and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        msg = f"{images_url} is not protected by TLS."
        raise Misconfigured(msg, hint="Use https:// in ImagesUrl, or --insecure-http where that is acceptable.")
    url = urljoin(images_url, quote(step.update_path))
    if not url.startswith(images_url) or ".." in step.update_path.split("/"):
        msg = f"The server names a bundle outside of {images_url}: {step.update_path[:200]!r}."
        raise Untrusted(msg, hint="Nothing was installed; tell the publisher.")
    installer.install(url, on_percent=on_percent)
    return url


def _query_of(image: Image, branch: str, facts: Mapping[str, str]) -> str:
    fields = {key: value for key, value in image.export().items() if key not in {"conditions", "estimated_size"}}
    if not image.legacy_variant:
        fields |= {"default_update_branch": branch}
    return urlencode(fields | {f"fact.{name}": value for name, value in facts.items()})


def _understand(data: bytes, image: Image, facts: Mapping[str, str]) -> Found:
    if not data.strip():
        return Found()
    try:
        document = json.loads(data)
        minor = document.get("minor") or {}
        steps = tuple(
            Step(Image.parse(one["image"])[0], _path_of(one["update_path"])) for one in minor.get("candidates", [])
        )
        replacement = _word_of(minor.get("replacement_eol_variant", ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"The server's answer cannot be understood: {error}."
        raise Untrusted(msg, hint="Nothing was changed; tell the publisher.") from error
    # Whoever runs the first image already goes on with the one behind it; one further on would lead in a circle.
    if steps and _is_same(steps[0].image, image):
        steps = steps[1:]
        minor["candidates"] = minor["candidates"][1:]
    if any(_is_same(step.image, image) for step in steps):
        msg = "The server's answer leads back to the image that runs."
        raise Untrusted(msg, hint="Nothing was changed; tell the publisher.")
    if steps and not fits(steps[0].image.conditions, facts):
        return Found(replacement=replacement, withheld=True)
    return Found(document if steps else {}, steps, replacement)


def _path_of(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value or value.startswith("/"):
        msg = "'update_path' is not a relative path"
        raise ValueError(msg)
    return value


def _word_of(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        msg = "'replacement_eol_variant' is not a text"
        raise ValueError(msg)
    return value


def _is_same(one: Image, other: Image) -> bool:
    return not (one.order < other.order or other.order < one.order) and one.variant == other.variant
