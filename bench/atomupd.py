"""The static tree of a large pool, and the dynamic query against Flask and gunicorn.

The pool has 10,000 images of eight streams, each with a manifest, an empty bundle and a store of ten chunk files.
Servers run on one core, the load (h2load, HTTP/1.1) on another; they get the same queries, one for each image, in turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from bench.measure import run
from instar.compat.atomupd.answers import find_update, write_answer_line
from instar.compat.atomupd.pool import Pool, read_pool
from instar.compat.atomupd.settings import ServerSettings
from instar.policy.ladder import Aim

__all__ = ["measure_queries", "measure_tree", "to_markdown"]

_IMAGES: Final = 10_000
_CHUNKS: Final = 10  # files for each image
_BRANCHES: Final = ("stable", "rc", "beta", "main")
_VARIANTS: Final = ("steamdeck", "vanilla")
_CHECKPOINT_EVERY: Final = 100  # builds of a stream
_SECONDS: Final = 10
_CLIENTS: Final = 32
# gunicorn's default worker closes every connection, which costs it more; threads keep them.
_PEER_WORKER: Final = ("--worker-class", "gthread", "--threads", "1")
PROMISE: Final = 8.0
"""How many times the queries of the peer, per second and core."""

_CONFIGURATION: Final = """\
[Images]
PoolDir = {pool}
Unstable = True
Products = steamos
Releases = holo
Variants = {variants}
Branches = {branches}
Archs = amd64
[Images.BranchesToConsider]
rc = stable
beta = stable rc
main = stable rc beta
"""


def make_pool(folder: Path) -> Path:
    """Make the pool, unless it is there from an earlier run; give the server's configuration."""
    pool = folder / "pool"
    configuration = folder / "server.conf"
    words = {"variants": " ".join(_VARIANTS), "branches": " ".join(_BRANCHES)}
    configuration.write_text(_CONFIGURATION.format(pool=pool, **words))
    if (folder / "complete").exists():
        shutil.rmtree(pool / "added", ignore_errors=True)
        return configuration
    shutil.rmtree(pool, ignore_errors=True)
    for number in range(_IMAGES):
        add_image(pool, number)
    (folder / "complete").touch()
    return configuration


def add_image(pool: Path, number: int, place: str | None = None) -> None:
    """Add one image: its manifest, an empty bundle, and some chunk files."""
    stream, build = number % 8, number // 8
    branch, variant = _BRANCHES[stream % 4], _VARIANTS[stream // 4]
    checkpoint, introduces = divmod(build, _CHECKPOINT_EVERY)[0], build % _CHECKPOINT_EVERY == 0 and build > 0
    fields = {
        "product": "steamos",
        "release": "holo",
        "variant": variant,
        "branch": branch,
        "arch": "amd64",
        "version": f"3.{build // 50}.{build % 50}",
        "buildid": f"20{10 + build // 336:02d}{build // 28 % 12 + 1:02d}{build % 28 + 1:02d}.{stream}",
        "requires_checkpoint": checkpoint - 1 if introduces else checkpoint,
        "introduces_checkpoint": checkpoint if introduces else 0,
    }
    folder = pool / (place or f"{variant}/{branch}/{build // 100}/{fields['buildid']}")
    folder.mkdir(parents=True)
    stem = f"steamos-{fields['buildid']}-{variant}"
    (folder / f"{stem}.manifest.json").write_text(json.dumps(fields))
    (folder / f"{stem}.raucb").touch()
    store = folder / f"{stem}.castr"
    store.mkdir()
    for chunk in range(_CHUNKS):
        (store / f"{chunk:064x}.cacnk").touch()


def measure_tree(folder: Path) -> dict[str, Any]:
    """Generate the tree, then again with nothing new, then with one image more."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = make_pool(folder)
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    argv: list[str | Path] = [sys.executable, "-m", "instar", "atomupd", "generate", "-c", configuration, "-o", tree]
    steps = {}
    for name in ("first", "nothing new", "one image more"):
        if name == "one image more":
            add_image(folder / "pool", _IMAGES + 7, place="added")
        done = run(argv)
        if done.exit_code:
            msg = f"generate ended with {done.exit_code}"
            raise RuntimeError(msg)
        steps[name] = done.as_json() | {"output": done.output.strip()}
    return {"images": _IMAGES, "chunks": _IMAGES * _CHUNKS, "steps": steps}


def measure_queries(folder: Path, peer_python: Path) -> dict[str, Any]:
    """Load both servers, one after the other, each on a core of its own."""
    configuration = make_pool(folder)
    pool = read_pool(ServerSettings.read(configuration))
    queries = write_queries(pool, folder)
    ours = [sys.executable, "-m", "instar", "atomupd", "serve", "-c", configuration, "--port", "8771"]
    gunicorn = [peer_python, "-m", "gunicorn", "--bind", "127.0.0.1:8772", "--chdir", Path(__file__).parent]
    environment = {"BENCH_MEMORY": str(folder / "memory.json")}
    result: dict[str, Any] = {"queries": len(pool.images), "peers": {}}
    with serving(ours, 8771):
        result["ours"] = load(8771, queries, folder)
        result["ours_at_half_load"] = load(8771, queries, folder, rate=result["ours"]["per_second"] / 2)
        hundred = folder / "queries-100.txt"
        hundred.write_text("".join(queries.read_text().splitlines(keepends=True)[:100]))
        result["ours_hundred_images"] = load(8771, hundred, folder)
    looked_up = folder / "queries-lookup.txt"
    looked_up.write_text(queries.read_text().replace("/?", "/lookup?"))
    with serving([*gunicorn, *_PEER_WORKER, "flask_peer:app"], 8772, environment):
        for name, asked in (("decides", queries), ("looks up", looked_up)):
            found = load(8772, asked, folder)
            half = load(8772, asked, folder, rate=found["per_second"] / 2)
            result["peers"][name] = {"full": found, "half_load": half}
            result["ratio, peer " + name] = round(result["ours"]["per_second"] / found["per_second"], 1)
    return result


def write_queries(pool: Pool, folder: Path) -> Path:
    """Write a query for each image, and the answers for the peer to look up."""
    lines, answers = [], {}
    for one in pool.images:
        image = one.image
        fields = {key: value for key, value in image.export().items() if key != "estimated_size"}
        lines.append(f"/?{urlencode(fields)}\n")
        found = find_update(pool, image, image.branch, Aim.NEWER, facts={})
        identity = ("product", "release", "variant", "arch", "version", "buildid", "branch")
        answers["/".join(str(fields[key]) for key in identity)] = write_answer_line(found).decode() if found.way else ""
    memory = {
        "answers": answers,
        "images": [{"image": one.image.export(), "update_path": one.bundle} for one in pool.images],
        "consider": {key: list(value) for key, value in pool.settings.consider.items()},
    }
    (folder / "memory.json").write_text(json.dumps(memory))
    queries = folder / "queries.txt"
    queries.write_text("".join(lines))
    return queries


@contextlib.contextmanager
def serving(argv: Sequence[object], port: int, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Run a server on the first core until the end of the block."""
    process = subprocess.Popen(
        ["taskset", "-c", "0", *map(str, argv)],  # noqa: S607  # from PATH, like every tool of a benchmark
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def load(port: int, queries: Path, folder: Path, *, rate: float | None = None) -> dict[str, Any]:
    """Send the queries in turn for some seconds: as fast as they are answered, or `rate` a second."""
    log = folder / "load.log"
    log.unlink(missing_ok=True)
    argv = ["taskset", "-c", "1", "h2load", "--h1", "-D", str(_SECONDS), "-c", str(_CLIENTS), "--log-file", str(log)]
    if rate:
        argv += ["--rps", str(max(1, round(rate / _CLIENTS)))]
    subprocess.run(
        [*argv, "-B", f"http://127.0.0.1:{port}", "-i", str(queries)],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=120,
    )
    rows = [line.split() for line in log.read_text().splitlines()]
    times = sorted(int(row[2]) for row in rows if row[1] == "200")
    if not times:
        msg = "the server answered nothing"
        raise RuntimeError(msg)
    return {
        "per_second": round(len(times) / _SECONDS),
        "failed": len(rows) - len(times),
        "median_ms": round(times[len(times) // 2] / 1000, 2),
        "p99_ms": round(times[len(times) * 99 // 100] / 1000, 2),
    }


def to_markdown(tree: dict[str, Any], queries: dict[str, Any]) -> str:
    """Put the figures into a page for people."""
    rows = [f"Static tree: {tree['images']:,} manifests beside {tree['chunks']:,} chunk files", ""]
    rows += ["| run | seconds | memory | |", "|---|---:|---:|---|"]
    for name, step in tree["steps"].items():
        rows.append(f"| {name} | {step['seconds']:.1f} | {step['peak_memory'] / 1e6:.0f} MB | {step['output']} |")
    rows += ["", f"Dynamic query: {queries['queries']:,} different images asked in turn, one core for the server", ""]
    rows += ["| server | load | per second | median | 99 % |", "|---|---|---:|---:|---:|"]
    shown = [
        ("instar", "full", queries["ours"]),
        ("instar", "half", queries["ours_at_half_load"]),
        ("instar, 100 images", "full", queries["ours_hundred_images"]),
    ]
    for name, peer in queries["peers"].items():
        shown += [
            (f"Flask + gunicorn ({name})", "full", peer["full"]),
            (f"Flask + gunicorn ({name})", "half", peer["half_load"]),
        ]
    rows += [
        f"| {name} | {what} | {one['per_second']:,} | {one['median_ms']} ms | {one['p99_ms']} ms |"
        for name, what, one in shown
    ]
    ratios = [f"Ratio against the peer that {name}: {queries['ratio, peer ' + name]}" for name in queries["peers"]]
    return "\n".join([*rows, "", *ratios, f"(promised: {PROMISE:g}, against the one that decides)", ""])
