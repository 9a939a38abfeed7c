"""The image that runs, as the system itself describes it: its manifest, or ``os-release`` where it has none."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from instar.compat.atomupd.image import Image
from instar.errors import Misconfigured
from instar.system.files import read_bounded

__all__ = ["OS_RELEASE", "describe_system", "make_manifest", "parse_os_release"]

OS_RELEASE: Final = Path("/etc/os-release")
_MAX_FILE: Final = 1 << 16  # bytes: a page of settings
_KEYS: Final = {
    "product": "ID",
    "release": "VERSION_CODENAME",
    "variant": "VARIANT_ID",
    "version": "VERSION_ID",
    "buildid": "BUILD_ID",
}


def parse_os_release(text: str) -> dict[str, str]:
    """Read the assignments of an ``os-release`` file; lines that are none are passed over."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            try:
                found[name.strip()] = "".join(shlex.split(value, comments=False))
            except ValueError:
                continue
    return found


def describe_system(
    os_release: Path, machine: str, chosen: Mapping[str, object] | None = None
) -> tuple[dict[str, Any], Image]:
    """Say what image a system is, from its ``os-release`` and what was chosen instead of what stands there.

    Args:
        os_release: the file.
        machine: the machine's architecture.
        chosen: fields of a manifest that are known better.

    Returns:
        The fields of its manifest, and the image.

    Raises:
        Misconfigured: something is missing, or cannot be understood.

    """
    try:
        known = parse_os_release(read_bounded(os_release, _MAX_FILE).decode(errors="replace"))
    except (OSError, ValueError) as error:
        msg = f"{os_release} cannot be read: {error}."
        raise Misconfigured(msg, hint="Name the file that describes this system.") from error
    wanted = {key: value for key, value in (chosen or {}).items() if value not in {None, ""}}
    fields: dict[str, Any] = {key: known[name] for key, name in _KEYS.items() if name in known}
    fields |= {"arch": machine} | wanted
    default = known.get(f"{str(fields.get('product', '')).upper()}_DEFAULT_UPDATE_BRANCH")
    if default and "default_update_branch" not in fields:
        fields["default_update_branch"] = default
    for key, name in _KEYS.items():
        if key not in fields:
            msg = f"{os_release} does not say {name}."
            raise Misconfigured(msg, hint=f"Say it there, or give --{key}.")
    try:
        image, _ = Image.parse(fields)
    except ValueError as error:
        msg = f"What {os_release} and the options say is no image: {error}."
        raise Misconfigured(msg, hint="Correct it.") from error
    return fields, image


def make_manifest(fields: Mapping[str, Any], image: Image) -> str:
    """Write the manifest of an image, to lie beside its bundle or inside it."""
    document = dict(fields) | {"arch": image.arch, "version": image.version_text, "buildid": str(image.buildid)}
    for key in ("introduces_checkpoint", "requires_checkpoint", "shadow_checkpoint", "skip"):
        if not document.get(key):
            document.pop(key, None)
    return json.dumps(document, sort_keys=True, indent=4) + "\n"
