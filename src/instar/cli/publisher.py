"""The publisher's commands. Each one reads its arguments, calls one function of ``instar.publish``, and reports."""

from __future__ import annotations

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the publisher's commands to the program."""
