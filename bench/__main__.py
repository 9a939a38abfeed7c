"""`scripts/bench apps`: instar against tufup on real apps. Prints the page; writes figures and docs/benchmarks.md.

`scripts/bench atomupd`: the static tree of a large pool of images, and queries against Flask and gunicorn.

Exit code 1 when a promise was missed, 2 when something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import atomupd, instar_side
from bench.chunks import missing_chunks
from bench.inputs import QT, SCIENTIFIC, SMALL, App, describe, fetch
from bench.many_releases import measure
from bench.measure import machine
from bench.peer_tufup import Tufup
from bench.report import Pair, promises, to_markdown

_ROOT = Path(__file__).parents[1]
# Inputs, the peer's environment, and the work of the last run; not tracked.
_CACHE = _ROOT / ".bench"
# The peer's figures that take too long to make anew each time; tracked.
_KEPT = Path(__file__).with_name("kept")
# Seconds that the peer gets for one release; the scientific app's trees take it longer than anyone would wait.
_PEER_LIMIT = 1800.0
_RELEASES = 10_000


def main() -> int:
    """Parse the arguments, run, report."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    subcommands = parser.add_subparsers(dest="command", required=True)
    apps = subcommands.add_parser("apps", help="stand-alone apps, against tufup")
    apps.add_argument(
        "--full", action="store_true", help="run tufup on the largest apps too (20 to 50 minutes, 5 GB of memory)"
    )
    apps.add_argument("--quick", action="store_true", help="the small app only; nothing is written to docs")
    apps.add_argument("--keep", action="store_true", help="with --full: keep tufup's figures for later runs")
    apps.add_argument("--only", choices=["qt", "scientific", "small"], action="append", help="only these apps")
    subcommands.add_parser("atomupd", help="a pool of images: its static tree and the queries for it")
    args = parser.parse_args()
    return run_atomupd() if args.command == "atomupd" else run_apps(args)


def run_atomupd() -> int:
    """Measure, write, say whether the promise was missed."""
    folder = work("atomupd", "pool")
    tree = atomupd.measure_tree(folder)
    queries = atomupd.measure_queries(folder, peer_environment("flask"))
    now = datetime.now(UTC)
    results = _CACHE / "results"
    results.mkdir(parents=True, exist_ok=True)
    result = {"date": f"{now:%Y-%m-%d}", "machine": machine(), "tree": tree, "queries": queries}
    (results / f"atomupd-{now:%Y%m%dT%H%M%S}.json").write_text(json.dumps(result, indent=1) + "\n")
    page = atomupd.to_markdown(tree, queries)
    print(page)
    about = f"Written by `scripts/bench atomupd` on {now:%Y-%m-%d}, {machine()['cores']} cores; do not edit."
    (_ROOT / "docs" / "benchmarks-atomupd.md").write_text(f"# Benchmarks of atomupd\n\n{about}\n\n{page}\n")
    if queries["ratio, peer decides"] < atomupd.PROMISE:
        sys.stderr.write("missed: queries per second and core\n")
        return 1
    return 0


def run_apps(args: argparse.Namespace) -> int:
    """Measure, write, say which promises were missed."""
    chosen = ["small"] if args.quick else args.only or ["qt", "scientific", "small"]
    apps = [app for app in (QT, SCIENTIFIC, SMALL) if app.name in chosen]
    trees = {app.name: fetch(app, _CACHE / "inputs") for app in apps}
    python = peer_environment()
    pairs = [measure_pair(app, trees[app.name], python, full=args.full, keep=args.keep) for app in apps]
    more: dict[str, Any] = {"without_patches": {app.name: without_patches(app, trees[app.name]) for app in apps}}
    if "small" in chosen:
        more |= measure_small(trees["small"], python)

    now = datetime.now(UTC)
    result = {
        "date": f"{now:%Y-%m-%d}",
        "machine": machine(),
        "apps": {pair.key: {"inputs": pair.inputs, "instar": pair.ours, "tufup": pair.peer} for pair in pairs},
        **more,
    }
    results = _CACHE / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"apps-{now:%Y%m%dT%H%M%S}.json").write_text(json.dumps(result, indent=1) + "\n")
    page = to_markdown(pairs, more, date=result["date"], machine=result["machine"])
    print(page)
    if not args.quick and not args.only:
        (_ROOT / "docs" / "benchmarks.md").write_text(page)
    missed = [promise.what for promise in promises(pairs, more) if not promise.kept]
    for what in missed:
        sys.stderr.write(f"missed: {what}\n")
    return 1 if missed else 0


def measure_pair(app: App, trees: list[Path], python: Path, *, full: bool, keep: bool) -> Pair:
    """Both sides of the last two versions of an app; the peer's from a kept run, unless there is none or `full`."""
    say(app.title)
    old, new = trees[-2:]
    inputs = describe(app, trees)
    ours = instar_side.pair(old, new, work(app.name, "pair"))
    kept = _KEPT / f"{app.name}.json"
    record = json.loads(kept.read_text()) if kept.exists() and not full else None
    if record and _requirements(record["inputs"]) == _requirements(inputs):
        about = record["machine"]
        origin = f"{record['date']}, {about['cores']} cores, {about['processor']}"
        return Pair(app.name, inputs, ours, record["figures"], kept_from=origin)
    peer = tufup(python, app.name).pair(old, new, limit_seconds=_PEER_LIMIT)
    if keep:
        record = {
            "peer": "tufup 0.10.0",
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": machine(),
            "inputs": inputs,
            "figures": peer,
        }
        kept.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return Pair(app.name, inputs, ours, peer)


def _requirements(inputs: dict[str, Any]) -> list[list[str]]:
    """What was installed: a kept run of something else is no answer."""
    return [list(version["requirements"]) for version in inputs["versions"]]


def without_patches(app: App, trees: list[Path]) -> dict[str, Any]:
    """The update of a device that has nothing to patch from, and its yardstick."""
    say(f"{app.name}: without patches")
    old, new = trees[-2:]
    folder = work(app.name, "without-patches")
    figures = instar_side.without_patches(new, folder, pair_folder=work(app.name, "pair"))
    yardstick = _CACHE / "inputs" / f"{app.name}-chunks.json"
    if not yardstick.exists():
        yardstick.write_text(json.dumps(missing_chunks(old, new)))
    return figures | {"yardstick": json.loads(yardstick.read_text())}


def measure_small(trees: list[Path], python: Path) -> dict[str, Any]:
    """Where the number of releases is the subject, not their size."""
    say("small: across all its releases")
    across = {
        "steps": len(trees) - 1,
        "ours": instar_side.across(trees, work("small", "across")),
        "peer": tufup(python, "across").across(trees),
    }
    say(f"small: {_RELEASES:,} releases in the repository")
    many = {
        "ours": measure(trees[-2:], work("small", "many"), releases=_RELEASES),
        "peer": tufup(python, "many").many_releases(trees[-2:], releases=_RELEASES),
    }
    return {"across": across, "many_releases": many}


def tufup(python: Path, name: str) -> Tufup:
    """The peer with a clean folder."""
    return Tufup(python, Path(__file__).with_name("tufup_driver.py"), _CACHE / "work" / f"tufup-{name}")


def work(app: str, scenario: str) -> Path:
    """Where a scenario works; left there afterwards, to look at."""
    return _CACHE / "work" / f"{app}-{scenario}"


def peer_environment(peer: str = "tufup") -> Path:
    """The interpreter of the peer's own environment, made when it is missing or the pins changed."""
    pins = _ROOT / "requirements" / f"peer-{peer}.txt"
    folder = _CACHE / f"peer-{peer}"
    python, made_from = folder / "bin" / "python", folder / "made-from.txt"
    if made_from.exists() and made_from.read_text() == pins.read_text():
        return python
    say(f"making the environment of {peer}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    # Without dependency resolution: the file is complete, and pip cannot pin extras of extras.
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--requirement",
        pins,
    ]
    subprocess.run(pip, check=True)
    made_from.write_text(pins.read_text())
    return python


def say(what: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{what}\n")


if __name__ == "__main__":
    sys.exit(main())
