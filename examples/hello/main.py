"""A small app that updates itself: everything an app needs of instar, in one screen.

It prints its version and, with ``update``, fetches the next one. The publisher put the repository's address and the
trusted root beside it as ``update.json`` and ``root.json``.
"""

import json
import sys
from pathlib import Path

import instar

HERE = Path(getattr(sys, "_MEIPASS", Path(__file__).parent))
VERSION = (HERE / "VERSION").read_text().strip()


def configuration() -> instar.Config:
    """Say what is updated, from where, and whom it trusts."""
    settings = json.loads((HERE / "update.json").read_text())
    return instar.Config(
        product=settings["product"],
        url=settings["url"],
        root=(HERE / "root.json").read_bytes(),
        location=instar.find_installation(),
        keep=("notes/*",),
        health=(settings["program"], "--version"),
    )


def main() -> int:
    """Run the app."""
    if sys.argv[1:] == ["--version"]:  # the health command: no updates, no side effects
        print(f"hello {VERSION}")
        return 0
    config = configuration()
    if instar.startup(config).restart_needed:  # finishes or undoes what was begun, counts starts, rolls back
        instar.restart(config)
    if (HERE / "CRASH").exists():  # what a bad release does, for the demonstration
        raise SystemExit("something is badly wrong with this version")
    print(f"Hello from version {VERSION}")
    instar.confirm(config)  # the app came up: keep this version
    if sys.argv[1:] == ["update"]:
        update = instar.Updater(config).check()
        if update is None:
            print("Nothing new.")
        else:
            print(f"Version {update.version}: {update.download_size:,} of {update.full_size:,} bytes to fetch.")
            instar.Updater(config).download(update).install(when="now")
            print("Installed; it runs at the next start.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
