"""Tells PyInstaller how to freeze an app that embeds instar: found by itself through an entry point.

Nothing here is imported by an app.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["hook_folders"]


def hook_folders() -> list[str]:
    """Give the folders with PyInstaller hooks."""
    return [str(Path(__file__).parent)]
