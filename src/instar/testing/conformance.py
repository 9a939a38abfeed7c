"""A client with the command line that the TUF conformance suite drives.

``python -m instar.testing.conformance --metadata-dir D init ROOT`` · ``--metadata-url U --metadata-dir D refresh`` ·
the same with ``--target-name P --target-dir T --target-base-url B download``. Exit code 0, or 1 for every failure.

What is under test is instar's own: :class:`~instar.trust.verify.TrustedMetadata` over its HTTP reader.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from instar.errors import Expired, InstarError, Misconfigured, NotFound, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.storage.http import HttpReader
from instar.storage.options import HttpOptions
from instar.system import files
from instar.system.clock import SystemClock
from instar.trust.layout import MAX_ROOT, METADATA, TARGETS, Fetch
from instar.trust.verify import TrustedMetadata

__all__ = ["main"]

# Not *.json: the suite takes every such file in the folder for a trusted role.
_BOOTSTRAP: Final = "bootstrap"
# The suite's targets are a few bytes; this adapter keeps one in memory, where instar itself would stream it.
_MAX_TARGET: Final = 16 * 1024 * 1024
# The suite answers one request after the other and changes the time that a process sees: no second attempts, no waits.
_OPTIONS: Final = HttpOptions(attempts=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and give the exit code."""
    options = _parse(arguments)
    try:
        if options.command == "init":
            _init(options.metadata_dir, options.root)
        else:
            trusted = _refresh(options.metadata_dir, options.metadata_url)
            if options.command == "download":
                _download(trusted, options.target_name, options.target_dir, options.target_base_url)
    except InstarError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m instar.testing.conformance", description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name")
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    options = parser.parse_args(arguments)
    wanted = {
        "init": (),
        "refresh": ("metadata_url",),
        "download": ("metadata_url", "target_name", "target_dir", "target_base_url"),
    }[options.command]
    for name in wanted:
        if getattr(options, name) is None:
            parser.error(f"{options.command} needs --{name.replace('_', '-')}")
    return options


def _init(folder: Path, root: Path) -> None:
    try:
        data = files.read_bounded(root, MAX_ROOT)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_atomic(folder / _BOOTSTRAP, data)
    except (OSError, ValueError) as error:
        msg = f"{root} could not be taken as the trusted root: {error}."
        raise Misconfigured(msg) from error
    # Nothing but the root is there; on the way to saying so, it is checked and put into the cache.
    with contextlib.suppress(Unavailable, Expired):
        TrustedMetadata(folder, root=data, fetch=_no_network, clock=SystemClock()).refresh()


def _refresh(folder: Path, url: str) -> TrustedMetadata:
    try:
        root = files.read_bounded(folder / _BOOTSTRAP, MAX_ROOT)
    except (OSError, ValueError) as error:
        msg = f"There is no trusted root in {folder}."
        raise Misconfigured(msg, hint="Run init first.") from error
    trusted = TrustedMetadata(folder, root=root, fetch=_fetch_from(url, METADATA), clock=SystemClock())
    trusted.refresh()
    return trusted


def _download(trusted: TrustedMetadata, name: str, folder: Path, url: str) -> None:
    target = trusted.target(name)
    if target is None:
        msg = f"Nobody vouches for a target {name}."
        raise NotFound(msg)
    path = folder / quote(name, "")
    try:
        if path.is_file() and Digest.of(files.read_bounded(path, _MAX_TARGET)) == target.digest:
            return
    except (OSError, ValueError):
        pass
    if target.size > _MAX_TARGET:
        msg = f"The target {name} is longer than {_MAX_TARGET} bytes."
        raise Misconfigured(msg)
    data = _fetch_from(url, TARGETS)(quote(target.key), target.size)
    if len(data) != target.size or Digest.of(data) != target.digest:
        msg = f"The target {name} is not what was signed."
        raise Untrusted(msg)
    try:
        files.write_atomic(path, data)
    except OSError as error:
        msg = f"{path} could not be written: {error}."
        raise Misconfigured(msg) from error


def _fetch_from(url: str, prefix: str) -> Fetch:
    reader = HttpReader(url, _OPTIONS)

    def fetch(key: str, limit: int) -> bytes:
        return reader.read(key.removeprefix(prefix), limit=limit)

    return fetch


def _no_network(key: str, limit: int) -> bytes:
    msg = f"{key} of at most {limit} bytes: init does not use the network."
    raise Unavailable(msg)


if __name__ == "__main__":
    sys.exit(main())
