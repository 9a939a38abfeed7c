"""From figures to a page: tables of both sides, their ratios, and whether each promise was kept. Pure text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Figures = dict[str, Any]

# Bytes. Where less than this is missing, an update is mostly its manifest, and says nothing about chunks.
_NOTEWORTHY = 1_000_000

# What an idle interpreter with the client's libraries takes, in bytes; the bound on applying an update comes on top.
_INTERPRETER = 80_000_000


@dataclass(frozen=True)
class Promise:
    """Something that must hold, and what was measured. `value` and `bound` are ratios or counts, as `unit` says."""

    what: str
    value: float
    bound: float
    at_least: bool = False
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Whether it holds."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def row(self) -> str:
        """A line of the table."""
        sign = "≥" if self.at_least else "≤"
        verdict = "kept" if self.kept else "**missed**"
        return f"| {self.what} | {sign} {self.bound:,g}{self.unit} | {_short(self.value)}{self.unit} | {verdict} |"


@dataclass(frozen=True)
class Pair:
    """Both sides' figures for one app. `kept_from` is the date and machine of a peer's run that was not made now."""

    key: str
    inputs: Figures
    ours: Figures
    peer: Figures
    kept_from: str | None = None

    def peer_seconds(self, step: str) -> float:
        """The peer's time for a step.

        It uses one thread, so a kept run gives its processor time: what it would have taken on a quiet machine.
        """
        return float(self.peer[step]["cpu_seconds" if self.kept_from else "seconds"])

    @property
    def gave_up(self) -> bool:
        """Whether the peer was stopped before its patch was done; its figures are then lower bounds."""
        return "gave_up_after" in self.peer["publish"]


def promises(pairs: Iterable[Pair], more: Figures) -> list[Promise]:
    """Everything that was promised about apps and could be judged from these figures."""
    found: list[Promise] = []
    for pair in pairs:
        if pair.key == "qt":
            found += _large_app_promises(pair)
        nothing = pair.ours["check_nothing_new"]
        found += [
            Promise(f"{pair.key}: check, nothing new: requests", nothing["requests"], 2),
            Promise(f"{pair.key}: check, nothing new: bytes", nothing["bytes"], 2_000, unit=" B"),
        ]
    for key, figures in more.get("without_patches", {}).items():
        if figures["yardstick"]["bytes"] < _NOTEWORTHY:
            continue
        # The yardstick is chunks alone, without an index or signatures; so only what came out of packs is compared.
        ratio = figures["update"]["folders"]["packs"] / figures["yardstick"]["bytes"]
        found.append(Promise(f"{key}: update without patches: bytes against missing 32 KiB chunks", ratio, 1.0))
    if many := more.get("many_releases"):
        check = many["ours"]["check_update"]["folders"]
        # Channel files are TUF targets and lie with the manifests; of both, only the former are metadata, but they
        # cannot be told apart by folder, so the whole check counts.
        what = f"check that finds something among {many['ours']['releases']:,} releases: bytes"
        found.append(Promise(what, sum(check.values()), 64 << 10, unit=" B"))
    return found


def _large_app_promises(pair: Pair) -> list[Promise]:
    ours, peer = pair.ours, pair.peer
    largest = max(version["largest_file"] for version in pair.inputs["versions"])
    return [
        Promise(
            "qt: publish a patch release: times faster",
            pair.peer_seconds("publish") / ours["publish"]["seconds"],
            15,
            at_least=True,
        ),
        Promise(
            "qt: publish a patch release: peak memory",
            ours["publish"]["peak_memory"] / peer["publish"]["peak_memory"],
            0.25,
        ),
        Promise("qt: bytes that the client downloads for it", ours["update"]["bytes"] / peer["update"]["bytes"], 0.80),
        Promise(
            "qt: apply it: times faster",
            pair.peer_seconds("update") / ours["update"]["seconds"],
            10,
            at_least=True,
        ),
        Promise(
            "qt: apply it: peak memory above the interpreter's, in largest files (old, new and patch of one)",
            (ours["update"]["peak_memory"] - _INTERPRETER) / largest,
            3,
        ),
        Promise("qt: first install: bytes", ours["install"]["bytes"] / peer["install"]["bytes"], 0.75),
    ]


def to_markdown(pairs: Sequence[Pair], more: Figures, *, date: str, machine: Figures) -> str:
    """The whole page."""
    judged = promises(pairs, more)
    parts = [
        "# Benchmarks",
        "",
        "Written by `scripts/bench apps`; do not edit. instar's command line against tufup 0.10.0 from the package",
        "registry, on real packages that the benchmark fetches, both through the same counting web server on loopback.",
        "",
        f"*{date}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, {machine['processor']},",
        f"{machine['system']}, Python {machine['python']}.*",
        "",
        "Times are of whole processes, the start of the interpreter included. Memory is resident memory at its peak,",
        "all processes together. Bytes are bodies of responses, metadata included; requests count those answered 404.",
        "",
        "## Promises",
        "",
        "| what | promised | measured | |",
        "|---|---|---|---|",
        *[promise.row() for promise in judged],
    ]
    for pair in pairs:
        parts += ["", *_pair_section(pair)]
    if across := more.get("across"):
        title = f"## Across {across['steps']} releases at once (small app)"
        parts += ["", title, "", *_rows(across["ours"], across["peer"], ["update"])]
    if many := more.get("many_releases"):
        title = f"## {many['ours']['releases']:,} releases in the repository (small app)"
        parts += ["", title, "", *_rows(many["ours"], many["peer"], ["publish", "check_update", "check_nothing_new"])]
    if more.get("without_patches"):
        parts += ["", *_without_patches_section(more["without_patches"])]
    return "\n".join(parts) + "\n"


def _pair_section(pair: Pair) -> list[str]:
    versions = pair.inputs["versions"]
    lines = [f"## {pair.inputs['title']}", ""]
    lines += [
        f"Version {n}: {_megabytes(v['size'])} in {v['files']:,} files, the largest {_megabytes(v['largest_file'])}."
        for n, v in ((1, versions[-2]), (2, versions[-1]))
    ]
    if pair.kept_from:
        lines += [f"tufup's figures are from a kept run ({pair.kept_from}); its times are processor time."]
    if pair.gave_up:
        limit = pair.peer["publish"]["gave_up_after"]
        lines += [f"tufup was stopped after {limit:,.0f} s without a patch: what it took until then is a lower bound."]
    steps = ["publish_first", "publish", "install", "update", "check_update", "check_nothing_new"]
    return [*lines, "", *_rows(pair.ours, pair.peer, steps, kept=bool(pair.kept_from))]


_STEPS = {
    "publish_first": "publish the first release",
    "publish": "publish the next",
    "install": "first install",
    "update": "update: look, download, apply",
    "check_update": "check that finds one",
    "check_nothing_new": "check, nothing new",
}
_KINDS = [("seconds", "time"), ("peak_memory", "memory"), ("bytes", "bytes"), ("requests", "requests")]


def _rows(ours: Figures, peer: Figures, steps: Sequence[str], *, kept: bool = False) -> list[str]:
    lines = ["| step | | instar | tufup | instar / tufup |", "|---|---|---:|---:|---:|"]
    for step in steps:
        for kind, word in _KINDS:
            if kind not in ours.get(step, {}):
                continue
            theirs = peer.get(step, {}).get("cpu_seconds" if kept and kind == "seconds" else kind)
            value = ours[step][kind]
            bound = ">" if "gave_up_after" in peer.get(step, {}) and theirs is not None else ""
            ratio = f"{'<' if bound else ''}{_short(value / theirs)}" if theirs else ""
            shown = f"{bound}{_unit(kind, theirs)}" if theirs is not None else ""
            lines.append(f"| {_STEPS[step]} | {word} | {_unit(kind, value)} | {shown} | {ratio} |")
    return lines


def _without_patches_section(figures: Figures) -> list[str]:
    lines = [
        "## From a version without patches",
        "",
        "The same update when the newer release was published with `--base-releases 0`, beside what a store of single",
        "chunks would send: the 32 KiB chunks of the new tree that the old one lacks, each compressed alone at",
        "Zstandard 19. Those come without an index or signatures, so the bytes out of packs are compared with them.",
        "",
        "| app | bytes | requests | time | memory | of it packs | missing chunks, each alone | packs / chunks |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key, one in figures.items():
        update, yardstick = one["update"], one["yardstick"]
        packs = update["folders"]["packs"]
        ratio = _short(packs / yardstick["bytes"])
        cells = [_unit(kind, update[kind]) for kind in ("bytes", "requests", "seconds", "peak_memory")]
        cells += [_unit("bytes", packs), f"{_unit('bytes', yardstick['bytes'])} in {yardstick['chunks']:,}", ratio]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return lines


def _unit(kind: str, value: float) -> str:
    if kind == "seconds":
        return f"{value:,.1f} s" if value < 100 else f"{value:,.0f} s"
    if kind == "requests":
        return f"{value:,}"
    return _megabytes(value)


def _megabytes(value: float) -> str:
    if value < 1e5:
        return f"{value / 1e3:,.1f} kB"
    return f"{value / 1e6:,.2f} MB" if value < 1e7 else f"{value / 1e6:,.0f} MB"


def _short(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"
