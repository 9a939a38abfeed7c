"""Strict readers for values that came out of ``json.loads``: JSON has fewer types than we have promises."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["numbers", "text", "texts"]


def text(value: object) -> str:
    """Give ``value`` if it is text.

    Raises:
        TypeError: it is not.

    """
    if not isinstance(value, str):
        msg = f"expected text, not {type(value).__name__}"
        raise TypeError(msg)
    return value


def texts(value: object) -> tuple[str, ...]:
    """Give the items of a list of texts.

    Raises:
        TypeError: it is no list, or one of them no text.

    """
    if not isinstance(value, list):
        msg = f"expected a list, not {type(value).__name__}"
        raise TypeError(msg)
    return tuple(text(item) for item in value)


def numbers(values: Sequence[object], count: int) -> list[int]:
    """Give ``values`` if they are ``count`` whole numbers (true and false are none).

    Raises:
        TypeError: they are not.

    """
    found = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if len(values) != count or len(found) != count:
        msg = f"expected {count} whole numbers"
        raise TypeError(msg)
    return found
