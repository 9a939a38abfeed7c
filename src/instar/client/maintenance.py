"""The beginning and the end of an installation, and what heals it in between."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from instar.client.config import Config
from instar.client.connect import connect
from instar.client.here import Here, disk_errors, make_record, open_here
from instar.client.session import Session
from instar.client.updater import Updater, free_space
from instar.content.downloads import Downloads, never_cancelled
from instar.content.rebuild import Source, make_tree
from instar.content.trees import Difference, Problem, verify_tree
from instar.errors import InstallFailed, InstarError, Misconfigured, Unavailable, Untrusted
from instar.install import Installation, Installed, Layout
from instar.model.manifest import Manifest
from instar.model.progress import OnProgress, ignore_progress
from instar.model.version import Version
from instar.storage import Reader

__all__ = ["Adopted", "FirstInstall", "Repaired", "adopt", "first_install", "repair", "uninstall"]


@dataclass(frozen=True)
class FirstInstall:
    """What was installed, and the bytes that were fetched for it: none, where only the last step had been missing."""

    version: Version
    downloaded: int


@dataclass(frozen=True)
class Adopted:
    """What adopting found: the version, and how what stands there differs from it. Differences cost downloads later."""

    version: Version
    differences: tuple[Problem, ...]


@dataclass(frozen=True)
class Repaired:
    """What a repair found and mended, and the bytes it fetched for it."""

    version: Version
    problems: tuple[Problem, ...]
    downloaded: int


def first_install(
    config: Config,
    *,
    reader: Reader | None = None,
    progress: OnProgress = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    free_space: Callable[[Path], int] = free_space,
) -> FirstInstall:
    """Install the channel's newest release into ``config.location``, which is empty or does not exist.

    One that was interrupted goes on where it stopped when it is called again.

    Raises:
        Misconfigured: something else is there, or the channel has nothing for this platform.
        Unavailable, Untrusted, InstallFailed, Busy, Cancelled: as for ``Updater.check`` and ``Updater.download``.

    """
    with disk_errors(config.location, running=None):
        installation = _begun(config) or Installation.create(
            config.location, record=make_record(config, layout=Layout.VERSIONED), clock=config.clock
        )
        here = Here(config, installation)
        with here.working():
            here.save_trust()
    current = installation.status().current
    if current is not None:  # killed in its very last step, which opening it has just finished
        return FirstInstall(current.version, 0)
    updater = Updater(config, reader=reader, free_space=free_space)
    finding = updater.look()
    if finding.update is None:
        msg = f"Nothing was installed: {finding.reason.value}."
        hint = "Check the channel and the platform, or ask the publisher."
        raise Misconfigured(msg, hint=hint)
    updater.download(finding.update, progress=progress, cancelled=cancelled).install(when="now")
    return FirstInstall(finding.update.version, finding.update.download_size)


def _begun(config: Config) -> Installation | None:
    """Give an installation of the same product that never got its first release."""
    try:
        installation = Installation.open(config.location, clock=config.clock)
    except Misconfigured:
        return None
    if installation.status().current is not None:
        msg = f"{config.location} holds an installation of {installation.record.product} already."
        raise Misconfigured(msg, hint="Update it, or name another folder.")
    record = installation.record
    if (record.product, record.platform, record.layout) != (config.product, config.platform, Layout.VERSIONED):
        return None
    installation.update_record(make_record(config, layout=Layout.VERSIONED, device_id=record.device_id))
    return installation


def adopt(
    config: Config, version: Version | str, *, reader: Reader | None = None, progress: OnProgress = ignore_progress
) -> Adopted:
    """Take over an app that stands in its folder ``config.location`` as ``version``. The app is not touched.

    What differs from the signed release is reported: it is not believed later, so it costs more to download. The app's
    next update replaces the folder in one step.

    Raises:
        Misconfigured: there is no app there, or it is an installation already, or ``version`` is none.
        Untrusted: the owner never signed that version.
        Unavailable, InstallFailed, Busy: as for ``Updater.check``.

    """
    try:
        wanted = version if isinstance(version, Version) else Version(version)
    except ValueError as error:
        msg = f"{error}."
        raise Misconfigured(msg) from error
    if not config.location.is_dir():
        msg = f"There is no app in {config.location}."
        raise Misconfigured(msg, hint="Name the folder that holds the app's files.")
    record = make_record(config, layout=Layout.IN_PLACE)
    with (
        disk_errors(config.location, running=str(wanted)),
        # Until it is known that the owner signed this version, nothing is left behind.
        tempfile.TemporaryDirectory(prefix="instar-") as temporary,
        connect(config, reader) as source,
    ):
        session = Session(config, Path(temporary), source)
        session.refresh()
        manifest = session.manifest(wanted)
        entries = session.channels().of(record.channel, record.platform)
        passed = next((max(e.requires, e.introduces) for e in entries if e.version == wanted), 0)
        differences = verify_tree(config.location, manifest, keep=record.kept.matches, progress=progress)
        release = Installed(wanted, manifest.tree_digest, passed)
        here = Here(config, _taken_over(config, release))
        with here.working():
            here.session(source).manifests.put(manifest.to_json(), manifest)
            here.save_trust()
    return Adopted(wanted, tuple(differences))


def _taken_over(config: Config, release: Installed) -> Installation:
    try:
        return Installation.adopt(
            config.location,
            record=make_record(config, layout=Layout.IN_PLACE),
            release=release,
            clock=config.clock,
        )
    except Misconfigured:
        # An adoption that was killed before its last step is finished by the next one.
        here = open_here(config)
        if here.has_trust or here.installation.status().current != release:
            raise
        return here.installation


def repair(
    config: Config,
    *,
    reader: Reader | None = None,
    progress: OnProgress = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
) -> Repaired:
    """Compare the running version with what the owner signed, and mend what differs. Only that is downloaded.

    Files that are the user's own stay as they are, unless they are part of the release and missing. Each file is
    replaced in one step, so a repair that is interrupted has mended some and harmed none.

    Raises:
        Misconfigured: there is no installation, or nothing is installed yet.
        Unavailable: something is damaged and the repository does not answer.
        Untrusted, InstallFailed, Busy, Cancelled: as for ``Updater.download``.

    """
    here = open_here(config)
    installation = here.installation
    with here.working(), connect(config, reader) as source:
        status, tree = installation.status(), installation.current_tree
        if status.current is None or tree is None:
            msg = f"Nothing is installed in {config.location} yet."
            raise Misconfigured(msg, hint="Install it first.")
        session = here.session(source)
        manifest = _signed_manifest(session, status.current)
        kept = installation.record.kept.matches
        problems = [
            problem
            for problem in verify_tree(tree, manifest, keep=kept, progress=progress, cancelled=cancelled)
            if problem.difference is Difference.MISSING or not kept(problem.path)
        ]
        downloads = Downloads(installation.downloads)
        downloaded = 0
        if problems:
            with installation.lock():
                downloaded = _mend(here, manifest, problems, downloads, source, progress, cancelled)
            downloads.clear()
        return Repaired(status.current.version, tuple(problems), downloaded)


def _signed_manifest(session: Session, current: Installed) -> Manifest:
    """Give the manifest of what is installed: as signed today if the repository answers, else as kept from then."""
    manifest = session.manifests.of_tree(current.tree_digest)
    try:
        session.refresh()
        signed = session.manifest(current.version)
    except (Unavailable, Untrusted) as error:
        # A release that is no longer in the repository is still the one that was verified when it was installed.
        if manifest is None:
            raise _unknown(current, error) from error
        return manifest
    if signed.tree_digest != current.tree_digest and manifest is not None:
        return manifest
    return signed


def _unknown(current: Installed, error: InstarError) -> InstarError:
    msg = f"What belongs to version {current.version} is not known here, and could not be asked: {error}"
    return Unavailable(msg) if isinstance(error, Unavailable) else Untrusted(msg)


def _mend(
    here: Here,
    manifest: Manifest,
    problems: list[Problem],
    downloads: Downloads,
    reader: Reader,
    progress: OnProgress,
    cancelled: Callable[[], bool],
) -> int:
    installation = here.installation
    tree = installation.current_tree
    if tree is None:
        msg = "The installation disappeared."
        raise InstallFailed(msg)
    damaged = {problem.path for problem in problems if problem.difference is not Difference.EXTRA}
    broken = replace(
        manifest,
        files=tuple(file for file in manifest.files if file.path in damaged),
        links=(),
        directories=(),
    )
    intact = replace(manifest, files=tuple(file for file in manifest.files if file.path not in damaged))
    staging = installation.new_staging()
    plan = make_tree(
        broken,
        [Source(tree, intact)],
        downloads,
        staging,
        reader=reader,
        progress=progress,
        cancelled=cancelled,
    )
    # What does not belong goes first: it may stand where a folder of the release has to be.
    for problem in problems:
        if problem.difference is Difference.EXTRA:
            installation.remove(problem.path)
    for folder in manifest.directories:
        if folder in damaged:
            installation.make_folder(folder)
    for file in broken.files:
        installation.replace_file(file.path, staging / file.path, executable=file.executable)
    for link in manifest.links:
        if link.path in damaged:
            installation.replace_link(link.path, link.target)
    return plan.download_size


def uninstall(config: Config, *, keep_user_files: bool = False) -> tuple[Path, ...]:
    """Remove the app and everything that belongs to the installation.

    Args:
        config: the app's.
        keep_user_files: leave the files that the patterns of ``keep`` name.

    Returns:
        The files that were left.

    Raises:
        Misconfigured: there is no installation.
        InstallFailed: something could not be removed. Calling it again goes on.
        Busy: another process works on the installation.

    """
    here = open_here(config)
    with here.working():
        pass  # not held: the lock is one of the files that go, and Windows keeps those that are open
    return here.installation.uninstall(keep_user_files=keep_user_files)
