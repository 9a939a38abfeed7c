"""The formats of the files in an installation's state folder: ``instar-<what>-<number>``.

A higher number was written by a newer instar. It is refused rather than guessed at, for writing back what was half
understood would lose what the newer one needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instar.errors import Misconfigured

__all__ = ["check_format", "check_keys"]


def check_format(document: object, expected: str) -> Mapping[str, Any]:
    """Give ``document`` if it says that it has the format ``expected``.

    Raises:
        ValueError: it is no JSON object, or something else altogether.
        Misconfigured: it is the same format with a higher number.

    """
    if not isinstance(document, dict):
        msg = "expected a JSON object"
        raise ValueError(msg)  # noqa: TRY004  # the caller treats all that cannot be read alike
    found = document.get("format")
    if found == expected:
        return document
    stem, _, number = expected.rpartition("-")
    if isinstance(found, str) and found.startswith(f"{stem}-"):
        suffix = found[len(stem) + 1 :]
        if suffix.isdecimal() and int(suffix[:9]) > int(number):
            msg = (
                f"This installation was made or changed by a newer instar (its format is {found[:40]}, not {expected})."
            )
            raise Misconfigured(msg, hint="Update instar, or the app that contains it, and try again.")
    msg = f"the format is {str(found)[:40]!r}, not {expected!r}"
    raise ValueError(msg)


def check_keys(document: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    """Give ``document`` if it has all of ``keys``. Others are ignored: a later version may add some.

    Raises:
        ValueError: one is missing.

    """
    missing = [key for key in keys if key not in document]
    if missing:
        msg = f"{', '.join(missing)} missing"
        raise ValueError(msg)
    return document
