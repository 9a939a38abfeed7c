"""Installing a bundle with RAUC, which writes the slot that is not running and switches the bootloader.

What a bundle may contain and who may sign it is RAUC's own configuration. Which bundle to install is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from instar.errors import InstallFailed, Misconfigured
from instar.system.process import run_program

__all__ = ["BundleInstaller", "OnPercent", "Rauc"]

_TIMEOUT: Final = 4 * 3600.0  # seconds: some gigabytes through a slow line, onto a slow disk
_PERCENT: Final = re.compile(r"\s*(\d{1,3})%")
_WHOLE: Final = 100

OnPercent = Callable[[int], None]
"""Told how far an installation is, in percent. Called often: keep it short."""


class BundleInstaller(Protocol):
    """The port: something that installs a bundle, to be run after the next start."""

    def install(self, bundle: str, *, on_percent: OnPercent) -> None:
        """Install the bundle at an address or path.

        Raises:
            InstallFailed: it was not installed; what ran goes on running.
            Misconfigured: the installer is not there.

        """


@dataclass(frozen=True)
class Rauc:
    """The program ``rauc``, which asks its service.

    Args:
        environment: with which it is started.
        program: its name or path.

    """

    environment: Mapping[str, str]
    program: str = "rauc"

    def install(self, bundle: str, *, on_percent: OnPercent) -> None:
        """Install a bundle, and report RAUC's percentages.

        Raises:
            InstallFailed: RAUC refused it, failed, or took too long.
            Misconfigured: there is no RAUC.

        """

        def show(line: str) -> None:
            if found := _PERCENT.match(line):
                on_percent(min(int(found[1]), _WHOLE))

        try:
            # Behind "--", an address can be no option.
            ended = run_program(
                [self.program, "install", "--", bundle],
                folder=Path("/"),
                timeout=_TIMEOUT,
                environment=self.environment,
                on_line=show,
            )
        except OSError as error:
            msg = f"The program {self.program!r} cannot be started: {error}."
            raise Misconfigured(msg, hint="Install RAUC on this device.") from error
        if ended.code != 0:
            how = "took longer than four hours" if ended.code is None else f"ended with {ended.code}"
            msg = f"RAUC did not install {bundle}, it {how}: {ended.output[-500:]}"
            raise InstallFailed(msg, hint="The system that runs is unchanged.")
