"""The commands in the place of steamos-atomupd's programs, for servers and for devices.

Their exit codes are those of the programs they replace: 0 done or nothing to do, 1 an error, and 2 when every question
of a device was refused (4xx).
"""

from __future__ import annotations

# ruff: noqa: PLC0415  # what a command needs is loaded by the command
import contextlib
import functools
import json
import netrc
import os
import platform
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from instar.cli import output
from instar.errors import InstarError, Misconfigured

if TYPE_CHECKING:
    from instar.compat.atomupd.device import ClientSettings, Found, Server
    from instar.compat.atomupd.image import Image
    from instar.compat.atomupd.pool import Pool
    from instar.compat.atomupd.settings import ServerSettings
    from instar.server import Serving
    from instar.storage import HttpReader

__all__ = ["register", "serve_pool"]

_FAILED: Final = 1
_SIGN_AGAIN: Final = 12 * 3600.0  # seconds: several attempts before what is signed expires
_TRUST: Final = Path("/var/lib/instar-atomupd-client")
_CLIENT_CONFIGURATION: Final = Path("/etc/steamos-atomupd/client.conf")

ServerFile = Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The server's configuration.")]
Interval = Annotated[float, typer.Option("--interval", help="Seconds between two looks at the pool, at the least.")]
ClientFile = Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The client's configuration.")]
Manifest = Annotated[
    Path | None, typer.Option("--manifest", metavar="FILE", help="The manifest of the image that runs.")
]
OsRelease = Annotated[
    Path, typer.Option("--os-release", metavar="FILE", help="What describes a system without a manifest.")
]
Variant = Annotated[str | None, typer.Option("--variant", help="Change to another variant.")]
Branch = Annotated[str | None, typer.Option("--branch", help="Follow another branch than the image's own.")]
Penultimate = Annotated[bool, typer.Option("--penultimate", help="The image before the newest.")]
Facts = Annotated[
    list[str] | None,
    typer.Option("--fact", metavar="NAME=VALUE", help="What this device is made of; may be given several times."),
]
RootFile = Annotated[
    Path | None,
    typer.Option("--root", metavar="FILE", help="Believe only answers that this root of trust vouches for."),
]
Trust = Annotated[Path, typer.Option("--trust", metavar="DIR", help="With --root: where signed metadata is kept.")]
Insecure = Annotated[bool, typer.Option("--insecure-http", help="Take addresses without TLS.")]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", metavar="FILE", help="The only authorities to trust for TLS, as PEM.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(
        help="In the place of steamos-atomupd: a server's static tree and queries, and a device's updates with RAUC.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for command in (generate, serve, mkmanifest, query, update):
        group.command()(command)
    group.command("list")(list_)
    app.add_typer(group, name="atomupd", rich_help_panel="Other formats")


@contextlib.contextmanager
def _old_exit_codes() -> Iterator[None]:
    from instar.compat.atomupd.device import NothingThere

    try:
        yield
    except NothingThere as error:
        output.complain(error.message, hint=error.hint)
        raise typer.Exit(error.exit_code) from error
    except InstarError as error:
        output.complain(error.message, hint=error.hint)
        raise typer.Exit(_FAILED) from error


def generate(
    *,
    config: ServerFile,
    folder: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The tree's folder.")] = Path(),
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and write what changes with the pool.")] = False,
    interval: Interval = 5.0,
    owner_key: Annotated[
        str | None, typer.Option("--owner-key", metavar="URI", help="Sign the tree too: file:PATH of the owner's key.")
    ] = None,
    online_key: Annotated[
        str | None, typer.Option("--online-key", metavar="URI", help="And of the online key.")
    ] = None,
    passphrase_env: Annotated[
        str | None, typer.Option("--passphrase-env", metavar="VAR", help="Where the keys' passphrase is.")
    ] = None,
) -> None:
    """Write the static tree of a pool of images, for any web server to serve."""
    from instar.compat.atomupd import tree
    from instar.compat.atomupd import watch as watching
    from instar.compat.atomupd.settings import ServerSettings
    from instar.compat.atomupd.sizes import BundleSizes
    from instar.system.clock import SystemClock

    pool = [Path()]

    def run() -> None:
        settings = ServerSettings.read(config)
        pool[0] = settings.pool
        sizes = BundleSizes(settings.pool, dict(os.environ))
        done = tree.generate(settings, folder, size_of=sizes)
        for warning in (*done.warnings, *sizes.warnings):
            output.warn(f"warning: {warning}")
        output.say(f"{len(done.written)} files written, {done.unchanged} unchanged")
        if owner_key and online_key:
            output.say(f"{_sign(folder, done.paths, owner_key, online_key, passphrase_env)} files signed")

    with _old_exit_codes():
        if bool(owner_key) != bool(online_key):
            msg = "A tree is signed with two keys: --owner-key and --online-key."
            raise Misconfigured(msg)
        if not watch:
            run()
            return
        pool[0] = ServerSettings.read(config).pool
        begun: list[bool] = []

        def run_on() -> bool:
            try:
                run()
            except InstarError as error:
                if not begun:
                    raise
                # Once it runs, a bad pool is told and waited out: the tree stays as it was.
                output.complain(error.message, hint=error.hint)
                return isinstance(error, Misconfigured)  # what nobody has to change in the pool is tried again
            begun.append(True)
            return True

        watching.watch(
            # The pool of the configuration as it is now: that may change too.
            lambda: watching.fingerprint(pool[0], besides=config),
            run_on,
            clock=SystemClock(),
            interval=interval,
            every=_SIGN_AGAIN if owner_key else None,
        )


def _sign(tree: Path, paths: Sequence[str], owner_key: str, online_key: str, passphrase_env: str | None) -> int:
    from instar.cli.secrets import Passphrases
    from instar.compat.atomupd.signing import sign_tree
    from instar.system.clock import SystemClock
    from instar.trust.keys import open_signer

    ask = Passphrases(passphrase_env)
    owner, online = (open_signer(uri, folder=Path(), passphrase=ask) for uri in (owner_key, online_key))
    return sign_tree(tree, paths, owner=[owner], online=[online], now=SystemClock().now())


def serve(
    *,
    config: ServerFile,
    tree: Annotated[Path | None, typer.Option("--tree", metavar="DIR", help="Serve this static tree too.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="The port; 0 takes a free one.")] = None,
    interval: Interval = 5.0,
) -> None:
    """Answer the older dynamic query and a list of the images over HTTP, until Ctrl-C."""
    with _old_exit_codes():
        serve_pool(config, tree=tree, host=host, port=port, interval=interval)


def serve_pool(config: Path, *, tree: Path | None, host: str | None, port: int | None, interval: float = 5.0) -> None:
    """Serve a pool, and read it again when it changes.

    Raises:
        InstarError: the configuration or the pool has an error, or it cannot be served.

    """
    from instar.compat.atomupd import watch as watching
    from instar.compat.atomupd.settings import ServerSettings
    from instar.compat.atomupd.web import make_atomupd_app
    from instar.server import serve_app

    settings = ServerSettings.read(config)
    current = [_read(settings)]
    ended = threading.Event()

    def read_again() -> bool:
        try:
            current[0] = _read(ServerSettings.read(config))
        except InstarError as error:
            output.complain(error.message, hint=error.hint)
        return True

    def look() -> bytes:
        return watching.fingerprint(current[0].settings.pool, besides=config)

    watcher = threading.Thread(
        target=lambda: watching.watch(look, read_again, clock=_Waiting(ended), interval=interval, stop=ended.is_set),
        daemon=True,
    )

    def ready(serving: Serving) -> None:
        watcher.start()
        output.warn(f"Answering for {settings.pool} at {serving.url} (Ctrl-C ends it)")

    try:
        serve_app(
            make_atomupd_app(lambda: current[0], tree=tree),
            host or settings.host,
            settings.port if port is None else port,
            on_ready=ready,
        )
    finally:
        ended.set()
        if watcher.ident is not None:
            watcher.join()


def _read(settings: ServerSettings) -> Pool:
    from instar.compat.atomupd.pool import read_pool

    pool = read_pool(settings)
    for warning in pool.warnings:
        output.warn(f"warning: {warning}")
    return pool


def list_(
    *,
    config: ServerFile,
    branch: Branch = None,
    variant: Variant = None,
    as_json: AsJson = False,
) -> None:
    """List the images of a pool."""
    from instar.compat.atomupd.settings import ServerSettings
    from instar.compat.atomupd.web import list_row

    with _old_exit_codes():
        pool = _read(ServerSettings.read(config))
    rows = [
        list_row(one.image, one.bundle)
        for one in sorted(pool.images, key=lambda one: one.image.order)
        if branch in {None, one.image.branch} and variant in {None, one.image.variant}
    ]

    def human() -> None:
        columns = ("arch", "variant", "branch", "version", "buildid", "checkpoint", "")
        output.table(columns, [_row(row) for row in rows])

    output.report({"images": rows}, as_json=as_json, human=human)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    marks = [mark for mark, key in (("skipped", "skip"), ("shadow", "shadow_checkpoint")) if row[key]]
    requires, introduces = row["requires_checkpoint"], row["introduces_checkpoint"]
    checkpoint = f"{requires or 0} → {introduces}" if introduces else str(requires or "")
    return (
        *(str(row[key]) for key in ("arch", "variant", "branch", "version", "buildid")),
        checkpoint,
        " ".join(marks),
    )


def mkmanifest(  # noqa: PLR0913  # one parameter for each key of a manifest
    *,
    product: Annotated[str | None, typer.Option("--product", help="Else ID of os-release.")] = None,
    release: Annotated[str | None, typer.Option("--release", help="Else VERSION_CODENAME.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Else VARIANT_ID.")] = None,
    arch: Annotated[str | None, typer.Option("--arch", help="Else this machine's.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Else VERSION_ID; 'snapshot' for none.")] = None,
    buildid: Annotated[str | None, typer.Option("--buildid", help="Else BUILD_ID: YYYYMMDD or YYYYMMDD.N.")] = None,
    branch: Branch = None,
    default_update_branch: Annotated[
        str | None, typer.Option("--default-update-branch", help="Else PRODUCT_DEFAULT_UPDATE_BRANCH.")
    ] = None,
    requires_checkpoint: Annotated[int, typer.Option("--requires-checkpoint", min=0)] = 0,
    introduces_checkpoint: Annotated[int, typer.Option("--introduces-checkpoint", min=0)] = 0,
    shadow_checkpoint: Annotated[bool, typer.Option("--shadow-checkpoint")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Do not offer it, and lead away who runs it.")] = False,
    os_release: OsRelease = Path("/etc/os-release"),
    target: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Else it is printed.")] = None,
) -> None:
    """Make the manifest of an image, from os-release and what is given here."""
    from instar.compat.atomupd.osrelease import describe_system, make_manifest
    from instar.system.files import write_atomic

    chosen: dict[str, object] = {
        "product": product,
        "release": release,
        "variant": variant,
        "arch": arch,
        "version": version,
        "buildid": buildid,
        "branch": branch,
        "default_update_branch": default_update_branch,
        "introduces_checkpoint": introduces_checkpoint,
        "requires_checkpoint": requires_checkpoint,
        "shadow_checkpoint": shadow_checkpoint,
        "skip": skip,
    }
    with _old_exit_codes():
        text = make_manifest(*describe_system(os_release, platform.machine(), chosen))
        if target is None:
            typer.echo(text, nl=False)
            return
        try:
            write_atomic(target, text.encode())
        except OSError as error:
            msg = f"{target} cannot be written: {error}."
            raise Misconfigured(msg) from error


def query(  # noqa: PLR0913  # one parameter for each option
    *,
    config: ClientFile = _CLIENT_CONFIGURATION,
    manifest: Manifest = None,
    os_release: OsRelease = Path("/etc/os-release"),
    variant: Variant = None,
    branch: Branch = None,
    penultimate: Penultimate = False,
    fact: Facts = None,
    insecure_http: Insecure = False,
    ca_file: CaFile = None,
    root: RootFile = None,
    trust: Trust = _TRUST,
) -> None:
    """Ask for an update, and write what was found into the runtime folder."""
    with _old_exit_codes():
        _ask(
            config,
            manifest,
            os_release,
            variant,
            branch,
            fact,
            ca_file,
            penultimate=penultimate,
            insecure=insecure_http,
            root=root,
            trust=trust,
        )


def update(  # noqa: PLR0913  # one parameter for each option
    *,
    config: ClientFile = _CLIENT_CONFIGURATION,
    manifest: Manifest = None,
    os_release: OsRelease = Path("/etc/os-release"),
    variant: Variant = None,
    branch: Branch = None,
    penultimate: Penultimate = False,
    fact: Facts = None,
    insecure_http: Insecure = False,
    ca_file: CaFile = None,
    root: RootFile = None,
    trust: Trust = _TRUST,
) -> None:
    """Ask for an update and install its first image with RAUC; the next one is asked for after the restart."""
    from instar.compat.atomupd.device import install_update
    from instar.install.rauc import Rauc

    with _old_exit_codes():
        settings, found = _ask(
            config,
            manifest,
            os_release,
            variant,
            branch,
            fact,
            ca_file,
            penultimate=penultimate,
            insecure=insecure_http,
            root=root,
            trust=trust,
        )
        if not found.steps:
            return
        shown: list[int] = []

        def show(percent: int) -> None:
            if shown[-1:] != [percent]:
                shown[:] = [percent]
                typer.echo(f"{percent}%")

        url = install_update(
            found.steps[0],
            settings.images_url,
            Rauc(dict(os.environ)),
            on_percent=show,
            insecure_http=insecure_http,
        )
        output.say(f"Installed {url}. Restart to run it.")


def _ask(  # noqa: PLR0913  # what a person may have written
    config: Path,
    manifest: Path | None,
    os_release: Path,
    variant: str | None,
    branch: str | None,
    fact: list[str] | None,
    ca_file: Path | None,
    *,
    penultimate: bool,
    insecure: bool,
    root: Path | None,
    trust: Path,
) -> tuple[ClientSettings, Found]:
    from instar.compat.atomupd.device import ClientSettings, query_update, record_update, running_image

    settings = ClientSettings.read(config)
    image = running_image(manifest or settings.manifest, os_release, platform.machine())
    _remark(settings, image, variant, branch)
    found = query_update(
        _server(settings, ca_file, insecure=insecure, root=root, trust=trust),
        image,
        dynamic=settings.query_url is not None,
        variant=variant,
        branch=branch,
        penultimate=penultimate,
        facts=dict(_pair(text) for text in fact or ()),
    )
    record_update(found, settings.runtime)
    if found.withheld:
        output.say("There is an update, but not for a device like this one.")
    elif not found.steps:
        output.say("No update.")
    else:
        if found.replacement:
            output.say(f"The variant {image.variant} is at its end; {found.replacement} takes its place.")
        typer.echo(json.dumps(found.document, indent=2))
    return settings, found


def _remark(settings: ClientSettings, image: Image, variant: str | None, branch: str | None) -> None:
    for what, wanted, known in (("variant", variant, settings.variants), ("branch", branch, settings.branches)):
        if wanted and known and wanted not in known:
            output.warn(f"warning: the configuration does not know the {what} {wanted!r}, only {', '.join(known)}")
    if variant and image.legacy_variant:
        output.warn("warning: an image from before there were branches cannot change its variant")


def _server(
    settings: ClientSettings, ca_file: Path | None, *, insecure: bool, root: Path | None, trust: Path
) -> Server:
    from instar.cli.device import environment_proxy
    from instar.compat.atomupd.device import WebServer
    from instar.storage import HttpOptions, HttpReader

    url = settings.meta_url or settings.query_url or ""
    options = HttpOptions(
        ca_file=ca_file,
        insecure_http=insecure,
        proxy=environment_proxy(url),
        authorization=_password_for(url),
    )
    reader = HttpReader(url, options)
    server = WebServer(reader)
    if root is None:
        return server
    from instar.compat.atomupd.signed import SignedServer
    from instar.system.clock import SystemClock
    from instar.trust import TrustedMetadata

    try:
        trusted = root.read_bytes()
        trust.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The root of trust cannot be used: {error}."
        raise Misconfigured(msg, hint="Check --root and --trust.") from error
    fetch = functools.partial(_fetch, reader)
    return SignedServer(server, TrustedMetadata(trust, root=trusted, fetch=fetch, clock=SystemClock()))


def _fetch(reader: HttpReader, key: str, limit: int) -> bytes:
    return reader.read(key, limit=limit)


def _password_for(url: str) -> str | None:
    """Give what ``~/.netrc`` has for a server, as basic authentication."""
    path = Path.home() / ".netrc"
    parts = urlsplit(url)
    try:
        found = netrc.netrc(str(path)) if path.is_file() else None
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}."
        raise Misconfigured(msg, hint="Correct it, or remove it.") from error
    if found is None:
        return None
    # With its port first, and the default of the file only for a server that is not named at all.
    name = parts.netloc if parts.netloc in found.hosts else parts.hostname or ""
    if (entry := found.authenticators(name)) is None:
        return None
    login, _, password = entry
    return "Basic " + b64encode(f"{login}:{password}".encode()).decode()


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        msg = f"--fact needs NAME=VALUE, not {text!r}."
        raise Misconfigured(msg)
    return name, value


class _Waiting:
    """A clock whose sleep ends when the program does."""

    def __init__(self, ended: threading.Event) -> None:
        from instar.system.clock import SystemClock

        self._ended = ended
        self._clock = SystemClock()
        self.now: Callable[[], Any] = self._clock.now
        self.monotonic: Callable[[], float] = self._clock.monotonic

    def sleep(self, seconds: float) -> None:
        """Wait, or until the end."""
        self._ended.wait(seconds)
