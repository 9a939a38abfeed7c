"""The device's commands. Each one reads its arguments, calls one function of ``instar.client``, and reports."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import typer

from instar import client
from instar.cli import output
from instar.cli.output import human_size
from instar.client.here import load_config
from instar.errors import Misconfigured
from instar.system import files

__all__ = ["SOMETHING_NEW", "environment_proxy", "register"]

SOMETHING_NEW: Final = 10
"""Exit code of ``check --exit-code`` when there is an update: none of the error families'."""

# A root.json has some kilobytes; the library refuses what is larger than this anyway.
_MAX_ROOT: Final = 512_000

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the installation.")]
AsJson = Annotated[bool, typer.Option("--json", help="Report as JSON.")]
Url = Annotated[str, typer.Option("--url", help="Where the repository is.")]
Root = Annotated[Path, typer.Option("--root", help="The publisher's root.json: whom to trust.")]
Mirrors = Annotated[list[str] | None, typer.Option("--mirror", help="Another address of the same repository.")]
Channel = Annotated[str | None, typer.Option("--channel", help="The channel to follow.")]
Platform = Annotated[str | None, typer.Option("--platform", help="The platform, instead of this machine's.")]
Keep = Annotated[list[str] | None, typer.Option("--keep", help="Files of the user's inside the app, like 'data/*'.")]
Health = Annotated[
    str | None,
    typer.Option("--health", help="A command, run inside a new version before it is selected, like 'myapp --version'."),
]
MaxStarts = Annotated[int, typer.Option("--max-starts", help="Starts a new version has to confirm that it works.")]
ConfirmedBy = Annotated[
    str, typer.Option("--confirmed-by", help="Who says that a new version works: 'app', or only the 'health' command.")
]
Facts = Annotated[list[str] | None, typer.Option("--fact", help="What the device says of itself, as KEY=VALUE.")]
DeviceId = Annotated[str | None, typer.Option("--device-id", help="The device's id, instead of a random one.")]
Headers = Annotated[list[str] | None, typer.Option("--header", help="Sent with each request, as 'Name: value'.")]
CaFile = Annotated[Path | None, typer.Option("--ca-file", help="Certificates to trust instead of the system's.")]
InsecureHttp = Annotated[bool, typer.Option("--insecure-http", help="Take http:// from other machines too.")]


def register(app: typer.Typer) -> None:
    """Add the device's commands to the program."""
    for command in (install, adopt, check, update, status, confirm, rollback, retry, repair, uninstall):
        app.command(rich_help_panel="Device")(command)


def install(  # noqa: PLR0913  # one parameter for each option
    product: Annotated[str, typer.Argument(help="The product's name.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty folder, or one to make.")],
    *,
    url: Url,
    root: Root,
    mirror: Mirrors = None,
    channel: Channel = None,
    platform: Platform = None,
    keep: Keep = None,
    health: Health = None,
    max_starts: MaxStarts = 3,
    confirmed_by: ConfirmedBy = "app",
    fact: Facts = None,
    device_id: DeviceId = None,
    header: Headers = None,
    ca_file: CaFile = None,
    insecure_http: InsecureHttp = False,
    as_json: AsJson = False,
) -> None:
    """Install a product. It is found under DIR/current/."""
    config = _config(
        product=product,
        location=folder,
        url=url,
        root=root,
        mirrors=mirror,
        channel=channel,
        platform=platform,
        keep=keep,
        health=health,
        max_starts=max_starts,
        confirmed_by=confirmed_by,
        facts=fact,
        device_id=device_id,
        connection=_connection(url, header, ca_file, insecure_http=insecure_http),
    )
    with output.bar() as progress:
        done = client.first_install(config, progress=progress)
    output.report(
        {"installed": str(done.version), "transferred": done.downloaded},
        as_json=as_json,
        human=lambda: output.say(
            f"Installed {product} {done.version} in {folder}: {human_size(done.downloaded)} transferred. "
            f"The app is under {folder / 'current'}."
        ),
    )


def adopt(  # noqa: PLR0913  # one parameter for each option
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that holds the app's files.")],
    *,
    product: Annotated[str, typer.Option("--product", help="The product's name.")],
    version: Annotated[str, typer.Option("--version", help="The version that stands there.")],
    url: Url,
    root: Root,
    mirror: Mirrors = None,
    channel: Channel = None,
    platform: Platform = None,
    keep: Keep = None,
    health: Health = None,
    max_starts: MaxStarts = 3,
    confirmed_by: ConfirmedBy = "app",
    fact: Facts = None,
    device_id: DeviceId = None,
    header: Headers = None,
    ca_file: CaFile = None,
    insecure_http: InsecureHttp = False,
    as_json: AsJson = False,
) -> None:
    """Take over an app that stands in its folder already. The app itself is not touched."""
    config = _config(
        product=product,
        location=folder,
        url=url,
        root=root,
        mirrors=mirror,
        channel=channel,
        platform=platform,
        keep=keep,
        health=health,
        max_starts=max_starts,
        confirmed_by=confirmed_by,
        facts=fact,
        device_id=device_id,
        connection=_connection(url, header, ca_file, insecure_http=insecure_http),
    )
    with output.bar() as progress:
        adopted = client.adopt(config, version, progress=progress)
    output.report(
        {"adopted": str(adopted.version), "differences": _problems(adopted.differences)},
        as_json=as_json,
        human=lambda: _say_adopted(product, adopted),
    )


def check(
    folder: Folder,
    channel: Channel = None,
    *,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help=f"End with {SOMETHING_NEW} instead of 0 when there is an update.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether there is an update, how many bytes it would cost, and why."""
    finding = client.Updater(_existing(folder, channel)).look()
    output.report(
        {
            "current": None if finding.current is None else str(finding.current),
            "update": None if finding.update is None else _update(finding.update),
        },
        as_json=as_json,
        human=lambda: _say_finding(finding),
    )
    if exit_code and finding.update is not None:
        raise typer.Exit(SOMETHING_NEW)


def update(
    folder: Folder,
    channel: Annotated[
        str | None, typer.Option("--channel", help="Switch to this channel; may lead to an older version.")
    ] = None,
    when: Annotated[str, typer.Option("--when", help="'now', or 'next-start' of the app.")] = "now",
    *,
    as_json: AsJson = False,
) -> None:
    """Check, download and install."""
    if when not in {"now", "next-start"}:
        msg = f"--when is 'now' or 'next-start', not {when!r}."
        raise Misconfigured(msg)
    updater = client.Updater(_existing(folder, channel))
    finding = updater.look()
    found = finding.update
    if found is None:
        output.report(
            {"current": None if finding.current is None else str(finding.current), "installed": None},
            as_json=as_json,
            human=lambda: _say_finding(finding),
        )
        return
    with output.bar() as progress:
        staged = updater.download(found, progress=progress)
    outcome = staged.install(when="now" if when == "now" else "next-start")
    output.report(
        {
            "current": None if finding.current is None else str(finding.current),
            "installed": str(found.version),
            "outcome": outcome.name.lower().replace("_", "-"),
            "transferred": found.download_size,
            "full_size": found.full_size,
        },
        as_json=as_json,
        human=lambda: output.say(
            f"Version {found.version}: {outcome.value}. {human_size(found.download_size)} transferred, "
            f"{_share(found.download_size, found.full_size)} of the full {human_size(found.full_size)}."
        ),
    )


def status(folder: Folder, *, as_json: AsJson = False) -> None:
    """Say how the installation stands, by what is known on this machine."""
    found = client.status(_existing(folder))
    output.report(_status(found), as_json=as_json, human=lambda: _say_status(found))


def confirm(folder: Folder, *, as_json: AsJson = False) -> None:
    """Declare that the running version works."""
    config = _existing(folder)
    client.confirm(config)
    output.report(
        {"confirmed": _text(client.status(config).version)}, as_json=as_json, human=lambda: output.say("Confirmed.")
    )


def retry(folder: Folder, *, as_json: AsJson = False) -> None:
    """Let versions that failed here be offered again."""
    forgotten = [str(version) for version in client.forget_failures(_existing(folder))]
    output.report(
        {"forgotten": forgotten},
        as_json=as_json,
        human=lambda: output.say(
            f"These may be offered again: {', '.join(forgotten)}." if forgotten else "No version failed here."
        ),
    )


def rollback(
    folder: Folder,
    reason: Annotated[
        str, typer.Option("--reason", help="Kept with the version that is left.")
    ] = "rolled back by hand",
    *,
    as_json: AsJson = False,
) -> None:
    """Go back to the version before, and do not take the current one again."""
    version = client.rollback(_existing(folder), reason)
    output.report(
        {"version": str(version)},
        as_json=as_json,
        human=lambda: output.say(f"Version {version} runs from the next start on."),
    )


def repair(folder: Folder, *, as_json: AsJson = False) -> None:
    """Mend what differs from the signed release. Only that is downloaded."""
    with output.bar() as progress:
        repaired = client.repair(_existing(folder), progress=progress)
    output.report(
        {
            "version": str(repaired.version),
            "repaired": _problems(repaired.problems),
            "transferred": repaired.downloaded,
        },
        as_json=as_json,
        human=lambda: _say_repaired(repaired),
    )


def uninstall(
    folder: Folder,
    *,
    keep_user_files: Annotated[
        bool, typer.Option("--keep-user-files", help="Leave the files named by --keep.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the app and everything that belongs to its installation."""
    left = client.uninstall(_existing(folder), keep_user_files=keep_user_files)
    output.report(
        {"left": [str(path) for path in left]},
        as_json=as_json,
        human=lambda: output.say(f"Removed. {len(left)} files of yours were left." if left else "Removed."),
    )


def _config(*, root: Path, **values: Any) -> client.Config:
    """Make the configuration from what stands on the command line; options that were not given keep their defaults."""
    try:
        trusted = files.read_bounded(root, _MAX_ROOT)
    except (OSError, ValueError) as error:
        msg = f"The trusted root {root} cannot be read: {getattr(error, 'strerror', None) or error}."
        raise Misconfigured(msg, hint="Give the root.json that the publisher made.") from error
    values["url"] = _address(values["url"])
    values["mirrors"] = [_address(text, must_exist=False) for text in values["mirrors"] or ()]
    values["facts"] = dict(_pair(text, "=", "--fact") for text in values["facts"] or ())
    values["health"] = _words(values["health"])
    for name in ("mirrors", "keep"):
        values[name] = tuple(values[name] or ())
    if values["confirmed_by"] not in {"app", "health"}:
        msg = f"--confirmed-by is 'app' or 'health', not {values['confirmed_by']!r}."
        raise Misconfigured(msg)
    return client.Config(root=trusted, **{name: value for name, value in values.items() if value is not None})


def _address(text: str, *, must_exist: bool = True) -> str:
    """Give an address that means the same from every folder; a local one may be relative on the command line."""
    if not text or "://" in text or text.startswith("file:"):
        return text
    folder = Path(text).absolute()
    if must_exist and not folder.is_dir():
        msg = f"{text!r} is no folder, and no address of a web server."
        raise Misconfigured(msg, hint="An address begins with https://; a repository can also be a folder.")
    return str(folder)


def _words(command: str | None) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command or ""))
    except ValueError as error:
        msg = f"--health is no command: {error}."
        raise Misconfigured(msg) from error


def _connection(url: str, headers: list[str] | None, ca_file: Path | None, *, insecure_http: bool) -> client.Connection:
    return client.Connection(
        headers=dict(_pair(text, ":", "--header") for text in headers or ()),
        ca_file=None if ca_file is None else ca_file.absolute(),
        insecure_http=insecure_http,
        proxy=environment_proxy(url),
    )


def _existing(folder: Path, channel: str | None = None) -> client.Config:
    config = load_config(folder, channel=channel)
    proxy = config.connection.proxy or environment_proxy(config.url)
    return replace(config, connection=replace(config.connection, proxy=proxy))


def environment_proxy(url: str) -> str | None:
    """Give the proxy that the environment names for this address."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _pair(text: str, separator: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        msg = f"{option} needs a name and a value with {separator!r} between them, not {text!r}."
        raise Misconfigured(msg)
    return name.strip(), value.strip()


def _update(found: client.Update) -> dict[str, Any]:
    return {
        "version": str(found.version),
        "direction": found.direction.value,
        "reason": found.reason.value,
        "download_size": found.download_size,
        "full_size": found.full_size,
        "installed_size": found.installed_size,
        "requests": found.requests,
        "download_by": dict(found.download_by),
        "made_by": dict(found.made_by),
        "notes": found.notes,
        "meta": dict(found.meta),
        "checkpoint": found.checkpoint or None,
    }


def _problems(problems: tuple[Any, ...]) -> list[dict[str, str]]:
    return [{"path": problem.path, "difference": problem.difference.value} for problem in problems]


def _say_finding(finding: client.Finding) -> None:
    if finding.update is None:
        output.say(f"Nothing new: {finding.reason.value}.")
        return
    found = finding.update
    output.say(
        f"Version {found.version} is available ({found.reason.value}); installed is {found.current or 'nothing'}."
    )
    output.say(
        f"It costs {human_size(found.download_size)} in {found.requests} request{'' if found.requests == 1 else 's'}, "
        f"{_share(found.download_size, found.full_size)} of the full {human_size(found.full_size)}."
    )
    if found.download_size:
        output.say(f"  to download: {_parts(found.download_by)}")
    output.say(f"  made from:   {_parts(found.made_by)}")
    if found.checkpoint:
        output.say("It cannot be skipped: later versions build on it.")
    if found.notes:
        output.say()
        output.say(found.notes.rstrip())


def _say_adopted(product: str, adopted: client.Adopted) -> None:
    output.say(f"{product} {adopted.version} is taken over and will be updated in its place.")
    if adopted.differences:
        output.say(
            f"{_entries(adopted.differences)} not as in the signed release; the next update replaces what differs:"
        )
        _say_problems(adopted.differences)


def _say_repaired(repaired: client.Repaired) -> None:
    if not repaired.problems:
        output.say(f"Version {repaired.version} is as its publisher signed it; nothing to repair.")
        return
    output.say(
        f"Version {repaired.version}: {_entries(repaired.problems)} mended, "
        f"{human_size(repaired.downloaded)} transferred."
    )
    _say_problems(repaired.problems)


def _entries(problems: tuple[Any, ...]) -> str:
    return "1 entry was" if len(problems) == 1 else f"{len(problems)} entries were"


def _say_problems(problems: tuple[Any, ...]) -> None:
    shown = 20
    for problem in problems[:shown]:
        output.say(f"  {problem.path}: {problem.difference.value}")
    if len(problems) > shown:
        output.say(f"  and {len(problems) - shown} more")


def _status(found: client.Status) -> dict[str, Any]:
    return {
        "location": str(found.location),
        "product": found.product,
        "platform": found.platform,
        "channel": found.channel,
        "urls": list(found.urls),
        "layout": found.layout,
        "device_id": found.device_id,
        "version": _text(found.version),
        "phase": found.phase.value,
        "previous": _text(found.previous),
        "staged": _text(found.staged),
        "at_start": found.at_start,
        "starts": found.starts,
        "max_starts": found.max_starts,
        "unfinished": found.unfinished,
        "failed": [
            {"version": str(failure.version), "reason": failure.reason, "when": failure.when.isoformat()}
            for failure in found.failed
        ],
        "known_until": _text(found.known_until and found.known_until.isoformat()),
        "expired_since": _text(found.expired_since and found.expired_since.isoformat()),
        "offered": _text(found.offered),
        "last_contact": None
        if found.contact is None
        else {"when": found.contact.when.isoformat(), "problem": found.contact.problem},
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _say_status(found: client.Status) -> None:
    standing = found.phase.value
    if found.phase.value == "pending":
        standing = f"pending: started {found.starts} of {found.max_starts} times without being confirmed"
    output.say(f"{found.product} {found.version or '(nothing installed)'} on {found.platform}, {standing}.")
    output.say(f"Channel {found.channel}, from {', '.join(found.urls)}.")
    if found.unfinished:
        output.say("A step was interrupted; the next command or start finishes it.")
    if found.staged:
        output.say(f"Version {found.staged} waits{' for the next start of the app' if found.at_start else ''}.")
    if found.previous:
        output.say(f"Version {found.previous} can be gone back to.")
    for failure in found.failed:
        lines = failure.reason.splitlines() or [""]
        output.say(f"Version {failure.version} failed here at {failure.when:%Y-%m-%d %H:%M} UTC: {lines[0]}")
    _say_contact(found)


def _say_contact(found: client.Status) -> None:
    contact = found.contact
    if contact is None:
        output.say("No check was made yet.")
    elif contact.problem is None:
        output.say(f"The last check, at {contact.when:%Y-%m-%d %H:%M} UTC, went well.")
    else:
        output.say(f"The last check, at {contact.when:%Y-%m-%d %H:%M} UTC, failed: {contact.problem}")
    if found.expired_since:
        output.say(f"What is known of the repository is too old since {found.expired_since:%Y-%m-%d %H:%M} UTC.")
    elif found.known_until:
        offered = f"version {found.offered} is offered" if found.offered else "nothing newer is offered"
        output.say(f"By what is known, valid until {found.known_until:%Y-%m-%d %H:%M} UTC, {offered}.")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "all"


def _parts(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{human_size(size)} {what}" for what, size in sizes.items() if size) or "nothing"
