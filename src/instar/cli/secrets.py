"""Passphrases: from the environment where a script runs, from a person where one sits. Nowhere else."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from typing import Final

from instar.errors import Misconfigured

__all__ = ["DEFAULT_VARIABLE", "Passphrases", "new_passphrase"]

DEFAULT_VARIABLE: Final = "INSTAR_PASSPHRASE"
"""Looked at when no variable is named."""

_NOBODY: Final = f"Put it into the environment variable {DEFAULT_VARIABLE}, or name another with --passphrase-env."


class Passphrases:
    """Answers what a key file asks. The same answer is offered for the next key, since most have one for both."""

    def __init__(self, variable: str | None) -> None:
        self._variable = variable
        self._last: str | None = None

    def __call__(self, what: str) -> str:
        """Give the secret that ``what`` describes.

        Raises:
            Misconfigured: the variable is not set, or there is nobody to ask.

        """
        found = _from_environment(self._variable)
        if found is not None:
            return found
        same = " (Enter: the same as before)" if self._last is not None else ""
        answer = _ask(f"{what[:1].upper()}{what[1:]}{same}: ")
        self._last = answer or self._last or ""
        return self._last


def new_passphrase(variable: str | None) -> Callable[[], str]:
    """Give a function that gets the passphrase for new keys when it is needed, and asks for it twice, once."""
    known: list[str] = []

    def get() -> str:
        if not known:
            found = _from_environment(variable)
            known.append(_ask_twice() if found is None else found)
        return known[0]

    return get


def _ask_twice() -> str:
    answer = _ask("Passphrase for the new private keys: ")
    if not answer:
        msg = "The passphrase is empty."
        raise Misconfigured(msg, hint="To leave the keys unencrypted, say --no-passphrase.")
    if _ask("The same once more: ") != answer:
        msg = "The two passphrases differ."
        raise Misconfigured(msg, hint="Nothing was made; try again.")
    return answer


def _from_environment(variable: str | None) -> str | None:
    found = os.environ.get(variable or DEFAULT_VARIABLE)
    if found is None and variable is not None:
        msg = f"The environment variable {variable} is not set."
        raise Misconfigured(msg, hint="Set it to the keys' passphrase.")
    if found == "":
        msg = f"The environment variable {variable or DEFAULT_VARIABLE} is empty."
        raise Misconfigured(msg, hint="Set it to the keys' passphrase.")
    return found


def _ask(prompt: str) -> str:
    # getpass would fall back to reading a pipe with the echo on; nobody expects a secret there.
    if not sys.stdin.isatty():
        msg = "A passphrase is needed, and there is nobody to ask."
        raise Misconfigured(msg, hint=_NOBODY)
    try:
        return getpass.getpass(prompt)
    except EOFError as error:
        msg = "No passphrase was given."
        raise Misconfigured(msg, hint=_NOBODY) from error
