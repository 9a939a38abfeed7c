"""Where an image's answers lie in the static tree. Server and client ask the same functions."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from instar.compat.atomupd.image import Image, legacy_variant_of

__all__ = ["REMOTE_INFO", "exact_path", "fallback_path", "penultimate_path", "remote_info_path"]

REMOTE_INFO: Final = "remote-info.conf"


def exact_path(image: Image, branch: str) -> str:
    """Give the path of the answer for a device with exactly this image."""
    parts = [_stem(image, branch)]
    if not image.legacy_variant:
        parts.append(_part(image.version_text))
    return "/".join((*parts, _part(str(image.buildid)))) + ".json"


def fallback_path(image: Image, branch: str, *, variant: str | None = None) -> str:
    """Give the path of the answer for a device whose build is not known, or that changes to another ``variant``."""
    return f"{_stem(image, branch, variant)}{_checkpoint(image)}.json"


def penultimate_path(image: Image, branch: str, *, variant: str | None = None) -> str:
    """Give the path of the answer that leads to the image before the newest."""
    return f"{_stem(image, branch, variant)}{_checkpoint(image)}.second_last.json"


def remote_info_path(image: Image) -> str:
    """Give the path of the file that says what devices of an image's variant may choose from."""
    return f"{_stem(image, image.branch).rpartition('/')[0]}/{REMOTE_INFO}"


def _stem(image: Image, branch: str, variant: str | None = None) -> str:
    if image.legacy_variant:
        # An image from before there were branches asks for one by a variant, and cannot ask for another variant.
        parts = [image.product, image.arch, image.version_text, legacy_variant_of(branch)]
    else:
        parts = [image.release, image.product, image.arch, variant or image.variant, branch]
    return "/".join(_part(part) for part in parts)


def _checkpoint(image: Image) -> str:
    return f".cp{image.checkpoint}" if image.checkpoint else ""


def _part(text: str) -> str:
    """Make one part of a path: never hidden, never a way up, never two parts."""
    return quote(("_" + text[1:] if text.startswith(".") else text).replace("/", "_"))
