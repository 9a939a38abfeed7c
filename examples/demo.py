"""The main job, from beginning to end, on this machine alone: run ``scripts/demo``.

Builds a small real app in three versions, of which the third is broken; publishes, serves, installs, rolls out to a
tenth and then to all, updates by patch, lets the broken one be rolled back by itself, halts it, and prints what went
over the wire. Every step is a real ``instar`` command or the app itself, shown before it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import instar
from instar.model.channel import Channels
from instar.policy.rollout import is_in
from instar.system.clock import SystemClock
from instar.system.files import remove_tree

HELLO = Path(__file__).parent / "hello"
PRODUCT = "hello"
# What the app bundles: instar itself and what it needs. Real libraries, so that the sizes mean something.
LIBRARIES = (
    "backports",
    "cffi",
    "cryptography",
    "packaging",
    "pycparser",
    "pygments",
    "securesystemslib",
    "tuf",
    "urllib3",
)
SIMULATED_DEVICES = 1000
STARTUP_SECONDS = 30

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """The demonstration did not show what it promises."""


@dataclass
class Stage:
    """Where it all happens."""

    folder: Path
    url: str
    transfers: list[tuple[str, int, int]]

    @property
    def project(self) -> Path:
        """The publisher's folder."""
        return self.folder / "publisher"

    @property
    def device(self) -> Path:
        """The installation on the "other" machine."""
        return self.folder / "device"

    def instar(self, *arguments: str | Path, show: bool = True) -> Any:
        """Run one instar command, shown as a person would type it, and give what it reports."""
        shown = " ".join(str(a).replace(f"{self.folder}/", "") for a in arguments)
        if show:
            console.print(f"[bold cyan]$[/] instar {shown}")
        command = [sys.executable, "-m", "instar", *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        if done.returncode:
            console.print(done.stdout + done.stderr)
            msg = f"instar {shown} ended with {done.returncode}"
            raise DemoFailed(msg)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def run_app(self, *arguments: str) -> str:
        """Start the installed app, as its user would."""
        console.print(f"[bold cyan]$[/] device/current/hello {' '.join(arguments)}")
        command = [str(self.device / "current" / "hello"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        output = (done.stdout + done.stderr).strip()
        console.print(f"[dim]{output}[/]")
        return output


def build(stage: Stage, version: str, *, broken: bool = False) -> Path:
    """Build the app's bundle: a launcher, the app's code, and the libraries it needs."""
    bundle = stage.folder / "build" / f"hello-{version}"
    library = bundle / "lib"
    library.mkdir(parents=True)
    site = Path(sysconfig.get_paths()["platlib"])
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in LIBRARIES:
        if (site / name).is_dir():
            shutil.copytree(site / name, library / name, ignore=ignore)
    for extension in site.glob("_cffi_backend*"):
        shutil.copy2(extension, library)
    shutil.copytree(Path(instar.__file__).parent, library / "instar", ignore=ignore)
    shutil.copy2(HELLO / "main.py", bundle)
    (bundle / "VERSION").write_text(version + "\n")
    (bundle / "root.json").write_bytes((stage.project / "root.json").read_bytes())
    settings = {"product": PRODUCT, "url": stage.url, "program": "hello"}
    (bundle / "update.json").write_text(json.dumps(settings))
    launcher = bundle / "hello"
    launcher.write_text(
        "#!/bin/sh\n"
        'here=$(dirname "$(readlink -f "$0")")\n'
        f'PYTHONPATH="$here/lib" PYTHONDONTWRITEBYTECODE=1 exec "{sys.executable}" "$here/main.py" "$@"\n',
    )
    launcher.chmod(0o755)
    if version != "1.0.0":
        develop(library, version)
    if broken:
        (bundle / "CRASH").touch()
    return bundle


def develop(library: Path, version: str) -> None:
    """Do to the code what a release does: some modules change a little, one grows."""
    for number, module in enumerate(sorted((library / "pygments" / "lexers").glob("*.py"))):
        if number % 4 == 0:
            module.write_text(module.read_text().replace('"""\n', f'"""\n# Looked at again for {version}.\n', 1))
    (library / "pygments" / "news.py").write_text(f'"""What is new in {version}."""\n' * 200)


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def serve(stage: Stage, port: int) -> subprocess.Popen[bytes]:
    """Serve the repository until the demonstration ends."""
    console.print(f"[bold cyan]$[/] instar serve -C publisher --port {port} &")
    command = [sys.executable, "-m", "instar", "serve", "-C", str(stage.project), "--port", str(port)]
    with (stage.folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    stop(process)
    msg = "the server did not start: " + (stage.folder / "server.log").read_text()
    raise DemoFailed(msg)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and wait for it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def expect(condition: object, what: str) -> None:
    """Check that the demonstration shows what it says."""
    if not condition:
        raise DemoFailed(what)
    console.print(f"  [green]✓[/] {what}")


def chapter(title: str) -> None:
    """Begin a part."""
    console.print(f"\n[bold]{title}[/]")


def play(stage: Stage, port: int) -> subprocess.Popen[bytes]:
    """Play all of it; gives the server, which still runs."""
    chapter("1. A publisher with two keys: what may ever run, and what is offered to whom")
    stage.instar("init", stage.project, "--product", PRODUCT, "--no-passphrase", "--url", stage.url)
    stage.instar("release", build(stage, "1.0.0"), "-C", stage.project, "--version", "1.0.0")
    server = serve(stage, port)
    try:
        first_install(stage)
        rollout(stage)
        broken_release(stage)
    except BaseException:
        stop(server)
        raise
    return server


def first_install(stage: Stage) -> None:
    """Install version 1 on the device."""
    chapter("2. A first install on another machine")
    done = stage.instar("install", PRODUCT, "--url", stage.url, "--root", stage.project / "root.json", stage.device)
    stage.transfers.append(("first install of 1.0.0", done["transferred"], done["transferred"]))
    expect("version 1.0.0" in stage.run_app(), "version 1.0.0 runs")


def rollout(stage: Stage) -> None:
    """Release version 2 to some, then to all."""
    chapter("3. Version 2 for a tenth of the devices, then for all")
    stage.instar("release", build(stage, "2.0.0"), "-C", stage.project, "--version", "2.0.0", "--percent", "10")
    offered = simulate(stage, "2.0.0")
    some = 0.05 < offered / SIMULATED_DEVICES < 0.15  # noqa: PLR2004  # a tenth, give or take what chance does
    expect(some, f"{offered} of {SIMULATED_DEVICES} simulated devices are offered it, with no server asked")
    mine = stage.instar("check", stage.device)["update"]
    console.print(f"  this device {'is one of the early tenth' if mine else 'is not among them yet'}")
    stage.instar("rollout", "2.0.0", "-C", stage.project, "--percent", "100")
    update = stage.instar("check", stage.device)["update"]
    expect(update and update["version"] == "2.0.0", "now it is offered to this device")
    console.print(f"  {update['download_size']:,} bytes to fetch of {update['full_size']:,}")
    output = stage.run_app("update")
    expect("Installed" in output, "the app updated itself while it ran")
    stage.transfers.append(("update 1.0.0 → 2.0.0", update["download_size"], update["full_size"]))
    expect("version 2.0.0" in stage.run_app(), "version 2.0.0 runs, and has confirmed that it works")


def simulate(stage: Stage, version: str) -> int:
    """Count the simulated devices that a rollout lets in, by the very rule that real ones use."""
    newest = max((stage.project / "repository/targets" / PRODUCT).glob("*.channels.json"), key=os.path.getmtime)
    (platforms,) = Channels.from_json(newest.read_bytes()).entries.values()
    (entries,) = platforms.values()
    entry = next(entry for entry in entries if str(entry.version) == version)
    now = SystemClock().now()
    devices = (f"device-{number}" for number in range(SIMULATED_DEVICES))
    return sum(is_in(entry, device_id=device, product=PRODUCT, facts={}, now=now) for device in devices)


def broken_release(stage: Stage) -> None:
    """Release version 3, which crashes at start, and watch the device heal itself."""
    chapter("4. Version 3 crashes when it starts")
    stage.instar("release", build(stage, "3.0.0", broken=True), "-C", stage.project, "--version", "3.0.0")
    update = stage.instar("check", stage.device)["update"]
    stage.run_app("update")
    stage.transfers.append(("update 2.0.0 → 3.0.0", update["download_size"], update["full_size"]))
    for _ in range(3):
        expect("badly wrong" in stage.run_app(), "it crashed")
    expect("version 2.0.0" in stage.run_app(), "the next start went back to 2.0.0 by itself")
    expect(stage.instar("check", stage.device)["update"] is None, "and 3.0.0 is not offered to this device again")
    stage.instar("halt", "3.0.0", "-C", stage.project)
    expect(simulate(stage, "3.0.0") == 0, "halted: no other device is offered it either")
    stage.instar("verify", "-C", stage.project)
    expect(stage.device.joinpath("current").exists(), "a stranger finds every signature, pack and patch in order")


def report(stage: Stage) -> None:
    """Print what went over the wire."""
    table = Table(title="What was transferred", title_justify="left")
    table.add_column("step")
    for heading in ("bytes fetched", "full download", "share"):
        table.add_column(heading, justify="right")
    for step, fetched, full in stage.transfers:
        table.add_row(step, f"{fetched:,}", f"{full:,}", f"{fetched / full:.2%}")
    console.print()
    console.print(table)


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description="Shows instar's main job on this machine, in under two minutes.")
    parser.add_argument("--keep", action="store_true", help="leave everything, with the server running, to play with")
    arguments = parser.parse_args()
    port = free_port()
    stage = Stage(Path(tempfile.mkdtemp(prefix="instar-demo-")), f"http://127.0.0.1:{port}/", [])
    started = time.monotonic()
    try:
        server = play(stage, port)
    except DemoFailed as error:
        console.print(f"[bold red]The demonstration failed:[/] {error}\nEverything is left in {stage.folder}")
        return 1
    report(stage)
    console.print(f"\nDone in {time.monotonic() - started:.0f} seconds.")
    if arguments.keep:
        console.print(
            f"The server runs (process {server.pid}) at {stage.url}; the files are in {stage.folder}\n"
            f"Try, in that folder: .venv/bin/instar status device, or publisher/instar.toml. "
            f"When done: kill {server.pid}",
        )
    else:
        stop(server)
        remove_tree(stage.folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
