"""The publisher's commands. Each one reads its arguments, calls one function of ``instar.publish``, and reports.

``instar.publish`` is imported when a command runs: it needs packages that a device with this program does not have.
"""

from __future__ import annotations

# ruff: noqa: PLC0415  # see above
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instar.cli import output
from instar.cli.arguments import (
    open_here,
    read_notes,
    to_duration,
    to_effort,
    to_name,
    to_offer,
    to_optional_name,
    to_pair,
    to_product,
    to_version,
    to_where,
)
from instar.cli.output import human_size
from instar.cli.releases import describe_offer, details_document, report_changes, say_details, say_verification
from instar.cli.secrets import new_passphrase
from instar.cli.stopping import stopping_soon
from instar.errors import Misconfigured, Untrusted

if TYPE_CHECKING:
    from instar.publish import Project

__all__ = ["register"]

Home = Annotated[Path, typer.Option("-C", metavar="DIR", help="The folder with instar.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Report as JSON.")]
VersionArgument = Annotated[str, typer.Argument(metavar="VERSION")]
PassphraseEnv = Annotated[
    str | None,
    typer.Option("--passphrase-env", metavar="VAR", help="Read the keys' passphrase from this environment variable."),
]
OnPlatform = Annotated[str | None, typer.Option("--platform", help="Only on this platform.")]
InChannel = Annotated[str | None, typer.Option("--channel", help="Only in this channel.")]
Percent = Annotated[float, typer.Option("--percent", help="How many of the devices are offered it.")]
Ramp = Annotated[
    str | None, typer.Option("--ramp", metavar="DURATION", help="Reach that percentage gradually: 90m, 12h, 3d, 1w.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="FACT=V1,V2", help="Only devices that have one of these values of a fact."),
]
AllowOlder = Annotated[bool, typer.Option("--allow-older", help="Take a version older than the channel's newest.")]


def register(app: typer.Typer) -> None:
    """Add the publisher's commands to the program."""
    for command in (init, release, promote, rollout, halt, resume, yank, verify, refresh, prune, rotate, serve):
        app.command(rich_help_panel="Publisher")(command)
    app.command("list", rich_help_panel="Publisher")(list_)
    app.command("show", rich_help_panel="Publisher")(show)
    app.command("floor", rich_help_panel="Publisher")(floor)


def init(  # noqa: PLR0913  # one parameter for each option
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder, made at need.")],
    *,
    product: Annotated[str, typer.Option("--product", help="The product's name.")],
    storage: Annotated[
        str,
        typer.Option("--storage", metavar="URL", help="What to publish to: a folder (relative to DIR) or an address."),
    ] = "repository",
    url: Annotated[
        list[str] | None, typer.Option("--url", metavar="PUBLIC_URL", help="Where devices will find it.")
    ] = None,
    keys: Annotated[Path | None, typer.Option("--keys", metavar="DIR", help="Where the private keys are kept.")] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the keys unencrypted: whoever reads them can use them.")
    ] = False,
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Make a project: keys, settings, and an empty repository."""
    from instar import publish

    if no_passphrase and passphrase_env:
        msg = "--no-passphrase and --passphrase-env exclude each other."
        raise Misconfigured(msg)
    settings = publish.Settings(to_product(product), storage, tuple(url or ()))
    secret = None if no_passphrase else new_passphrase(passphrase_env)
    project = publish.found_project(folder, settings, secret=secret, keys=keys)
    names = {"project": folder, "settings": folder / "instar.toml", "root": folder / "root.json"}
    document = {
        **{name: str(path) for name, path in names.items()},
        "product": project.settings.product,
        "storage": storage,
        "owner_key": project.settings.keys.owner,
        "online_key": project.settings.keys.online,
    }
    output.report(document, as_json=as_json, human=lambda: _say_founded(project, encrypted=secret is not None))


def _say_founded(project: Project, *, encrypted: bool) -> None:
    keys = project.settings.keys
    output.say(f"Made the project {project.settings.product} in {project.folder}.")
    output.say(f"  {project.folder / 'root.json'}: build it into your app; it is what devices trust.")
    output.say(f"  {project.folder / 'instar.toml'}: settings; keep both under version control.")
    output.say(f"  {keys.owner} and {keys.online}: private keys{'' if encrypted else ', NOT ENCRYPTED'}.")
    output.say("Keep a copy of the owner's key off line: without it nothing new can ever be released.")


def release(  # noqa: PLR0913  # one parameter for each option
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE_DIR", help="The app's folder, as your bundler made it.")],
    *,
    version: Annotated[str, typer.Option("--version", help="Its version, as PEP 440 has them.")],
    platform: Annotated[
        str | None, typer.Option("--platform", help="Where it runs; by default where this program does.")
    ] = None,
    channel: Annotated[str | None, typer.Option("--channel", help="Where to offer it (instar.toml: stable).")] = None,
    percent: Percent = 100.0,
    ramp: Ramp = None,
    only: Only = None,
    notes: Annotated[Path | None, typer.Option("--notes", metavar="FILE", help="What is new, for people.")] = None,
    meta: Annotated[
        list[str] | None, typer.Option("--meta", metavar="K=V", help="Something about it, for programs.")
    ] = None,
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="No device may skip this release.")] = False,
    effort: Annotated[str | None, typer.Option("--effort", help="fast or best: time here against bytes there.")] = None,
    base_releases: Annotated[
        int | None, typer.Option("--base-releases", metavar="K", help="Make patches from the last K releases.")
    ] = None,
    allow_older: AllowOlder = False,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Publish a folder as a release."""
    from instar import publish
    from instar.system.platform import detect_platform

    wanted = publish.Wanted(
        version=to_version(version),
        platform=to_name(platform) if platform else detect_platform(),
        channel=to_optional_name(channel),
        offer=to_offer(percent, ramp, only),
        notes=read_notes(notes),
        meta=dict(to_pair(text, "--meta") for text in meta or ()),
        checkpoint=checkpoint,
        allow_older=allow_older,
        effort=to_effort(effort),
        base_releases=base_releases,
    )
    project = open_here(home, passphrase_env)
    with stopping_soon(), output.bar() as progress:
        done = publish.release(project, bundle, wanted, progress=progress)
    document = {
        "product": project.settings.product,
        "version": str(done.version),
        "platform": done.platform,
        "channel": done.channel,
        "percent": done.percent,
        "size": done.size,
        "new": done.new,
        "uploaded": done.uploaded,
        "patches": done.patches,
        "patched_from": [str(base) for base in done.bases],
    }
    output.report(
        document,
        as_json=as_json,
        human=lambda: output.say(
            f"Released {project.settings.product} {done.version} for {done.platform} in {done.channel} "
            f"to {done.percent:g} %: {human_size(done.size)} installed, {human_size(done.new)} new, "
            f"{human_size(done.uploaded)} uploaded, {done.patches} patches."
        ),
    )


def promote(  # noqa: PLR0913  # one parameter for each option
    version: VersionArgument,
    *,
    to: Annotated[str, typer.Option("--to", metavar="CHANNEL", help="The channel to offer it in as well.")],
    percent: Percent = 100.0,
    ramp: Ramp = None,
    only: Only = None,
    platform: OnPlatform = None,
    allow_older: AllowOlder = False,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Offer a release in another channel."""
    from instar import publish

    changes = publish.promote(
        open_here(home, passphrase_env),
        to_version(version),
        to_name(to),
        platform=to_optional_name(platform),
        offer=to_offer(percent, ramp, only),
        allow_older=allow_older,
    )
    report_changes("Promoted", changes, as_json=as_json)


def rollout(  # noqa: PLR0913  # one parameter for each option
    version: VersionArgument,
    *,
    percent: Percent,
    ramp: Ramp = None,
    only: Only = None,
    channel: InChannel = None,
    platform: OnPlatform = None,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Widen or narrow whom a release is offered to."""
    from instar import publish

    changes = publish.rollout(
        open_here(home, passphrase_env),
        to_version(version),
        to_offer(percent, ramp, only),
        where=to_where(channel, platform),
    )
    report_changes("Changed", changes, as_json=as_json)


def halt(
    version: VersionArgument,
    *,
    channel: InChannel = None,
    platform: OnPlatform = None,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Offer a release to nobody until it is resumed. Devices that have it keep it."""
    from instar import publish

    project = open_here(home, passphrase_env)
    changes = publish.halt(project, to_version(version), where=to_where(channel, platform))
    report_changes("Halted", changes, as_json=as_json)


def resume(
    version: VersionArgument,
    *,
    channel: InChannel = None,
    platform: OnPlatform = None,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Offer a halted release again, to as many as before."""
    from instar import publish

    project = open_here(home, passphrase_env)
    changes = publish.resume(project, to_version(version), where=to_where(channel, platform))
    report_changes("Resumed", changes, as_json=as_json)


def yank(
    version: VersionArgument,
    *,
    channel: InChannel = None,
    platform: OnPlatform = None,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw a release for good. Devices that run it go back to the newest good one below it."""
    from instar import publish

    project = open_here(home, passphrase_env)
    changes = publish.yank(project, to_version(version), where=to_where(channel, platform))
    report_changes("Yanked", changes, as_json=as_json)


def floor(
    version: VersionArgument,
    *,
    allow_lower: Annotated[bool, typer.Option("--allow-lower", help="Take a floor below the one there is.")] = False,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Set the security floor: nothing older than VERSION may be installed any more, whatever a channel offers."""
    from instar import publish

    before = publish.set_floor(open_here(home, passphrase_env), to_version(version), allow_lower=allow_lower)
    output.report(
        {"floor": version, "before": None if before is None else str(before)},
        as_json=as_json,
        human=lambda: output.say(f"The security floor is {version} now; it was {before or 'not set'}."),
    )


def list_(home: Home = Path(), *, as_json: AsJson = False) -> None:
    """List the releases, and how each is offered."""
    from instar import publish

    listing = publish.list_releases(open_here(home, None))
    document = {
        "releases": [
            {
                "version": str(row.version),
                "platform": row.platform,
                "channels": [offered.to_document() for offered in row.offered],
            }
            for row in listing.releases
        ],
        "floor": listing.floor,
        "expires": listing.expires.isoformat(),
    }

    def human() -> None:
        if not listing.releases:
            output.say("No releases yet: instar release BUNDLE_DIR --version 1.0.0")
        else:
            rows = [
                (str(row.version), row.platform, "\n".join(map(describe_offer, row.offered)) or "no channel any more")
                for row in listing.releases
            ]
            output.table(("Version", "Platform", "Offered"), rows)
        if listing.floor:
            output.say(f"Security floor: {listing.floor}")
        output.say(f"The first signature ends on {listing.expires:%Y-%m-%d %H:%M} UTC (instar refresh).")

    output.report(document, as_json=as_json, human=human)


def show(
    version: VersionArgument, platform: OnPlatform = None, home: Home = Path(), *, as_json: AsJson = False
) -> None:
    """Show one release: sizes, patches, notes, and how it is offered."""
    from instar import publish

    found = publish.show_release(open_here(home, None), to_version(version), platform=to_optional_name(platform))
    output.report(
        {"version": version, "platforms": [details_document(details) for details in found]},
        as_json=as_json,
        human=lambda: say_details(found),
    )


def verify(home: Home = Path(), *, as_json: AsJson = False) -> None:
    """Read the whole repository as a stranger would, and check everything. Ends with 3 if something is wrong."""
    from instar import publish

    with output.bar() as progress:
        report = publish.verify_repository(open_here(home, None), progress=progress)
    document = {
        "sound": not report.problems,
        **{
            name: getattr(report, name)
            for name in ("releases", "packs", "frames", "files", "patches", "deltas", "unchecked", "size")
        },
        "problems": [{"where": problem.where, "what": problem.what} for problem in report.problems],
    }
    output.report(document, as_json=as_json, human=lambda: say_verification(report))
    if report.problems:
        raise typer.Exit(Untrusted.exit_code)


def refresh(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Sign everything again, due or not.")] = False,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Sign again what expires soon. Needs the owner's key only for what the owner signs."""
    from instar import publish

    done = publish.refresh(open_here(home, passphrase_env), everything=everything)
    soonest = min(done.expires.values())
    output.report(
        {
            "renewed": list(done.renewed),
            "expires": {name: expires.isoformat() for name, expires in sorted(done.expires.items())},
        },
        as_json=as_json,
        human=lambda: output.say(
            (f"Renewed {', '.join(done.renewed)}. " if done.renewed else "Nothing had to be renewed. ")
            + f"The first signature ends on {soonest:%Y-%m-%d %H:%M} UTC."
        ),
    )


def prune(  # one parameter for each option
    *,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", help="Give up releases in no channel beyond the newest N of a platform."),
    ] = None,
    grace: Annotated[
        str, typer.Option("--grace", metavar="DURATION", help="Keep what was in use within this time.")
    ] = "1d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Remove what nobody needs any more."""
    from instar import publish

    done = publish.prune(open_here(home, passphrase_env), keep=keep, grace=to_duration(grace), dry_run=dry_run)
    output.report(
        {"releases": list(done.releases), "objects": list(done.objects), "size": done.size, "dry_run": dry_run},
        as_json=as_json,
        human=lambda: output.say(
            f"{'Would remove' if dry_run else 'Removed'} {len(done.releases)} releases and "
            f"{len(done.objects)} objects, {human_size(done.size)}."
        ),
    )


def rotate(
    key: Annotated[str, typer.Argument(metavar="owner|online", help="Whose key to replace.")],
    *,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Leave the new key unencrypted.")] = False,
    home: Home = Path(),
    passphrase_env: PassphraseEnv = None,
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one. Devices follow by themselves."""
    from instar import publish
    from instar.trust.roles import Authority

    try:
        authority = Authority(key)
    except ValueError as error:
        msg = f"There is no key {key!r}: it is 'owner' or 'online'."
        raise Misconfigured(msg) from error
    project = open_here(home, passphrase_env)
    secret = None if no_passphrase else new_passphrase(passphrase_env)()
    keyid = publish.rotate(project, authority, passphrase=secret)
    output.report(
        {"key": key, "keyid": keyid},
        as_json=as_json,
        human=lambda: output.say(f"The {key} key is {keyid[:12]}… now. Keep a copy of its file where the old one was."),
    )


def serve(
    *,
    port: Annotated[int, typer.Option("--port", help="The port; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    home: Home = Path(),
    atomupd: Annotated[
        Path | None,
        typer.Option("--atomupd", metavar="FILE", help="Answer for this steamos-atomupd configuration instead."),
    ] = None,
    tree: Annotated[Path | None, typer.Option("--tree", metavar="DIR", help="With --atomupd: its static tree.")] = None,
) -> None:
    """Serve the repository over HTTP until Ctrl-C. In production any bucket or web server does it."""
    if atomupd is not None:
        from instar.cli.atomupd import serve_pool

        serve_pool(atomupd, tree=tree, host=host, port=port)
        return
    from instar.server import serve as run_server
    from instar.storage import LocalStorage

    storage = open_here(home, None).storage
    if not isinstance(storage, LocalStorage):
        msg = "Only a repository in a local folder can be served."
        raise Misconfigured(msg)
    run_server(
        storage.root,
        host,
        port,
        on_ready=lambda serving: output.warn(f"Serving {storage.root} at {serving.url} (Ctrl-C ends it)"),
    )
