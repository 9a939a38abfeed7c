"""An image as its manifest describes it. Parsed here, valid ever after; where it lies is the pool's business."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from instar.compat.atomupd.version import SNAPSHOT, BuildId, ImageVersion
from instar.system.files import read_bounded

__all__ = ["MAX_MANIFEST", "Image", "ImageOrder", "legacy_variant_of", "read_manifest"]

MAX_MANIFEST: Final = 1 << 20
"""Bytes of one manifest. A real one has some three hundred; more is no manifest."""

_MANDATORY: Final = ("product", "release", "variant", "arch", "version", "buildid")
_KNOWN: Final = {
    *_MANDATORY,
    "branch",
    "default_update_branch",
    "introduces_checkpoint",
    "requires_checkpoint",
    "shadow_checkpoint",
    "estimated_size",
    "skip",
    "checkpoint",
    "conditions",
}
_LEGACY_VARIANT: Final = "steamdeck"
_STABLE: Final = "stable"


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """What images are put in order by: version, release and build; without the version where one of two has none.

    That makes the order of a pool with and without versions a matter of which are compared, so a sort of it depends on
    where it begins: sort what was walked in order of its paths.
    """

    version: tuple[object, ...] | None
    release: str
    buildid: BuildId

    def __lt__(self, other: ImageOrder) -> bool:
        if self.version is not None and other.version is not None and self.version != other.version:
            # Their elements are alike, position by position: the key of ImageVersion.
            return self.version < other.version
        return (self.release, self.buildid) < (other.release, other.buildid)


@dataclass(frozen=True, slots=True)
class Image:
    """An operating system's image.

    ``variant`` and ``branch`` are what the rules ask for; an image of the time before branches carries both in its
    ``legacy_variant``. ``conditions`` are ours: facts about a device, and the values of them that are let in.
    """

    product: str
    release: str
    variant: str
    branch: str
    default_update_branch: str
    arch: str
    version: ImageVersion | None
    buildid: BuildId
    introduces_checkpoint: int = 0
    requires_checkpoint: int = 0
    shadow_checkpoint: bool = False
    estimated_size: int = 0
    skip: bool = False
    legacy_variant: str = ""
    conditions: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    order: ImageOrder = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        order = ImageOrder(self.version.key if self.version else None, self.release, self.buildid)
        object.__setattr__(self, "order", order)

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> tuple[Image, list[str]]:
        """Read the fields of a manifest, or of a query, where all values are strings.

        Returns:
            The image, and warnings for a person.

        Raises:
            ValueError: a field is missing or cannot be understood.

        """
        text = {key: _text(fields, key) for key in _MANDATORY}
        warnings = [f"the manifest has an unknown key {key!r}" for key in fields if key not in _KNOWN]
        if _flag(fields, "checkpoint"):
            msg = "'checkpoint: true' is not understood any more: write 'introduces_checkpoint', 'requires_checkpoint'"
            raise ValueError(msg)
        branch, default = (_text(fields, key, optional=True) for key in ("branch", "default_update_branch"))
        branch, default = branch or default, default or branch
        variant, legacy_variant = text["variant"], ""
        if not branch:
            legacy_variant = variant
            variant, branch = _from_legacy(variant)
            default = branch
        image = cls(
            product=text["product"],
            release=text["release"],
            variant=variant,
            branch=branch,
            default_update_branch=default,
            arch="amd64" if text["arch"] == "x86_64" else text["arch"],
            version=None if text["version"] == SNAPSHOT else ImageVersion.coerce(text["version"]),
            buildid=BuildId.parse(text["buildid"]),
            introduces_checkpoint=_number(fields, "introduces_checkpoint"),
            requires_checkpoint=_number(fields, "requires_checkpoint"),
            shadow_checkpoint=_flag(fields, "shadow_checkpoint"),
            estimated_size=_number(fields, "estimated_size"),
            skip=_flag(fields, "skip"),
            legacy_variant=legacy_variant,
            conditions=_conditions(fields.get("conditions", {})),
        )
        return image, warnings

    @classmethod
    def parse_json(cls, data: bytes) -> tuple[Image, list[str]]:
        """Read a manifest.

        Raises:
            ValueError: it is not JSON, or :meth:`parse` refuses it.

        """
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError) as error:
            msg = f"it is not JSON ({error})"
            raise ValueError(msg) from error
        if not isinstance(fields, dict):
            msg = "it is not a JSON object"
            raise ValueError(msg)  # noqa: TRY004  # a document's fault, not a caller's
        return cls.parse(fields)

    @property
    def checkpoint(self) -> int:
        """The checkpoint that a device has passed when it runs this image."""
        return max(self.requires_checkpoint, self.introduces_checkpoint)

    @property
    def is_unstable(self) -> bool:
        """Whether it has no version, or a pre-release's."""
        return self.version is None or self.version.is_prerelease

    @property
    def version_text(self) -> str:
        """Its version, or the word that stands for none."""
        return str(self.version) if self.version else SNAPSHOT

    def of_variant(self, variant: str) -> Image:
        """Give the same image under another variant."""
        return replace(self, variant=variant)

    def export(self) -> dict[str, Any]:
        """Give what an update's file says of it. What is skipped or a shadow is never offered, so that is not said."""
        document: dict[str, Any] = {
            "product": self.product,
            "release": self.release,
            "variant": self.legacy_variant or self.variant,
            "arch": self.arch,
            "version": self.version_text,
            "buildid": str(self.buildid),
            "estimated_size": self.estimated_size,
        }
        if not self.legacy_variant:
            document |= {"branch": self.branch, "default_update_branch": self.default_update_branch}
        if self.introduces_checkpoint:
            document["introduces_checkpoint"] = self.introduces_checkpoint
        if self.introduces_checkpoint or self.requires_checkpoint:
            document["requires_checkpoint"] = self.requires_checkpoint
        if self.conditions:
            document["conditions"] = {fact: sorted(values) for fact, values in self.conditions.items()}
        return document


def legacy_variant_of(branch: str) -> str:
    """Give the variant by which images of the time before branches ask for a branch."""
    return _LEGACY_VARIANT if branch == _STABLE else f"{_LEGACY_VARIANT}-{branch}"


def _from_legacy(legacy: str) -> tuple[str, str]:
    variant, dash, branch = legacy.partition("-")
    if variant != _LEGACY_VARIANT or (dash and not branch):
        msg = (
            f"it names no 'branch', and its variant {legacy!r} is none of those from before there were branches "
            f"({_LEGACY_VARIANT!r}, '{_LEGACY_VARIANT}-…')"
        )
        raise ValueError(msg)
    return variant, branch or _STABLE


def _text(fields: Mapping[str, object], key: str, *, optional: bool = False) -> str:
    value = fields.get(key, "" if optional else None)
    if value is None:
        msg = f"{key!r} is missing"
        raise ValueError(msg)
    # A slash or a dot at the beginning is made harmless where a path is built; a line break never was a name.
    if not isinstance(value, str) or not (value or optional) or not value.isprintable():
        msg = f"{key!r} is not a text: {str(value)[:80]!r}"
        raise ValueError(msg)
    return value


def _number(fields: Mapping[str, object], key: str) -> int:
    value = fields.get(key, 0)
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value[:20])
    if type(value) is not int or value < 0:
        msg = f"{key!r} is not a number from 0 on: {str(value)[:80]!r}"
        raise ValueError(msg)
    return value


def _flag(fields: Mapping[str, object], key: str) -> bool:
    value = fields.get(key, False)
    if isinstance(value, str):
        return value.lower() == "true"
    if type(value) is not bool:
        msg = f"{key!r} is true or false, not {str(value)[:80]!r}"
        raise ValueError(msg)
    return value


def _conditions(value: object) -> dict[str, frozenset[str]]:
    if not isinstance(value, dict) or not all(
        isinstance(fact, str) and isinstance(values, list) and all(isinstance(item, str) for item in values)
        for fact, values in value.items()
    ):
        msg = "'conditions' names facts, and for each a list of the values that are let in"
        raise ValueError(msg)
    return {fact: frozenset(values) for fact, values in value.items()}


def read_manifest(path: Path) -> tuple[Image, list[str]]:
    """Read a manifest's file.

    Raises:
        ValueError: it is too long, or :meth:`Image.parse_json` refuses it.
        OSError: it cannot be read.

    """
    return Image.parse_json(read_bounded(path, MAX_MANIFEST))
