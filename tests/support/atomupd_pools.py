"""Pools of images for tests, written in one line an image.

"3.7.1 20240115.100 beta r0 i1 skip shadow deleted vanilla aarch64 legacy": version, build and branch, then what differs
from an ordinary image. ``legacy`` images carry their branch in their variant, as they did before there were branches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BRANCHES = "stable rc beta bc main staging"
_FLAGS = {"skip", "shadow", "deleted", "legacy"}
_ARCHS = {"aarch64"}


def fields_of(line: str) -> tuple[dict[str, Any], set[str]]:
    version, buildid, branch, *words = line.split()
    flags = _FLAGS & set(words)
    variants = [w for w in words if w not in _FLAGS | _ARCHS and not w[1:].isdigit()]
    fields: dict[str, Any] = {
        "product": "steamos",
        "release": "holo",
        "variant": variants[0] if variants else "steamdeck",
        "arch": next((w for w in words if w in _ARCHS), "amd64"),
        "version": version,
        "buildid": buildid,
    }
    if "legacy" in flags:
        fields["variant"] = "steamdeck" if branch == "stable" else f"steamdeck-{branch}"
    else:
        fields["branch"] = branch
    for word in words:
        if word[0] in "ri" and word[1:].isdigit():
            fields["requires_checkpoint" if word[0] == "r" else "introduces_checkpoint"] = int(word[1:])
    fields |= {key: True for flag, key in (("skip", "skip"), ("shadow", "shadow_checkpoint")) if flag in flags}
    return fields, flags


def add_image(pool: Path, line: str, folder: str | None = None) -> Path:
    """Add an image with empty files in place of its bundle and chunks; give its manifest."""
    fields, flags = fields_of(line)
    place = pool / (folder or f"steamos/holo/{fields['version']}/{fields['arch']}")
    name = f"steamos-holo-{fields['buildid']}-{fields['version']}-{fields['arch']}-{fields['variant']}"
    place.mkdir(parents=True, exist_ok=True)
    manifest = place / f"{name}.manifest.json"
    manifest.write_text(json.dumps(fields))
    if not flags & {"deleted", "shadow"}:
        (place / f"{name}.raucb").touch()
        (place / f"{name}.castr").mkdir()
    return manifest


def make_pool(pool: Path, lines: Iterable[str]) -> Path:
    pool.mkdir(parents=True, exist_ok=True)
    for line in lines:
        add_image(pool, line)
    return pool


def write_settings(
    path: Path,
    pool: Path,
    *,
    branches: str,
    consider: Mapping[str, str] | None = None,
    more: str = "",
    sections: str = "",
    **words: str,
) -> Path:
    """Write a server's configuration: ``more`` are lines of [Images], ``sections`` what follows."""
    images = {
        "PoolDir": str(pool),
        "Unstable": "True",
        "Products": "steamos",
        "Releases": "holo",
        "Variants": "steamdeck",
        "Branches": branches,
        "Archs": "amd64",
    } | words
    text = "[Images]\n" + "".join(f"{key} = {value}\n" for key, value in images.items() if value) + more + "\n"
    if consider:
        text += "[Images.BranchesToConsider]\n" + "".join(f"{key} = {value}\n" for key, value in consider.items())
    path.write_text(text + sections)
    return path


def offers_in(tree: Path) -> dict[str, str]:
    """Say for every answer of a tree which builds it offers, in order; "-" for none."""
    found = {}
    for path in sorted(tree.rglob("*.json")):
        document = json.loads(path.read_text())
        candidates = document.get("minor", {}).get("candidates", [])
        found[str(path.relative_to(tree))] = " ".join(one["image"]["buildid"] for one in candidates) or "-"
    return found
