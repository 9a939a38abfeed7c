"""Windows: a junction instead of a link, and a helper instead of an exchange. Not yet run on Windows itself.

The rules it is written for: a folder in which a file is open (a running program's above all) cannot be renamed; a
junction can be removed and made again at any time, but not replaced in one step; no call exchanges two folders. They
are modelled in ``instar.testing.windows``, on which this very code runs in the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from instar.install.appdir.port import HandOver, Platform
from instar.system import files

__all__ = ["NativeApi", "Windows", "WindowsApi", "helper_script"]

# Seconds that the helper waits for the app to exit before it gives up and leaves everything as it is.
_WAIT_FOR_APP: Final = 3600
# Times that the helper tries a rename, a second apart: virus scanners hold new files open for some seconds.
_RENAME_TRIES: Final = 30


class WindowsApi(ABC):
    """The calls of Windows that are needed. Methods raise ``OSError`` as Python's own do there."""

    @abstractmethod
    def create_junction(self, target: Path, link: Path) -> None:
        """Make a junction; ``link`` must not exist."""

    @abstractmethod
    def read_junction(self, link: Path) -> Path | None:
        """Give where a junction leads, None where there is none."""

    @abstractmethod
    def remove_junction(self, link: Path) -> None:
        """Remove a junction."""

    @abstractmethod
    def rename(self, source: Path, target: Path) -> None:
        """Rename; a file at ``target`` is replaced unless it is open, a folder never."""

    @abstractmethod
    def remove_tree(self, path: Path) -> None:
        """Remove whatever is at ``path``; refuses open files."""

    @abstractmethod
    def start_detached(self, argv: Sequence[str], folder: Path) -> None:
        """Start a program that outlives this one and shares nothing with it."""

    @abstractmethod
    def is_running(self, process: int) -> bool:
        """Say whether the process with this id lives."""


class NativeApi(WindowsApi):
    """The real calls."""

    def create_junction(self, target: Path, link: Path) -> None:
        """Make a junction."""
        if sys.platform == "win32":
            import _winapi  # noqa: PLC0415  # exists on Windows only

            _winapi.CreateJunction(str(target), str(link))
        else:
            raise NotImplementedError

    def read_junction(self, link: Path) -> Path | None:
        """Read a junction; Windows gives its target with the prefix that switches name translation off."""
        try:
            target = os.readlink(link)  # noqa: PTH115  # Path.readlink would parse the prefix away differently by version
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if getattr(error, "winerror", None) == 4390:  # noqa: PLR2004  # ERROR_NOT_A_REPARSE_POINT
                return None
            raise
        return Path(target.removeprefix("\\\\?\\"))

    def remove_junction(self, link: Path) -> None:
        """Remove a junction: for Windows it is an empty folder."""
        link.rmdir()

    def rename(self, source: Path, target: Path) -> None:
        """Rename."""
        source.replace(target)

    def remove_tree(self, path: Path) -> None:
        """Remove a tree. A junction is removed as such, never what it leads to."""
        if self.read_junction(path) is not None:
            self.remove_junction(path)
        else:
            files.remove_tree(path)

    def start_detached(self, argv: Sequence[str], folder: Path) -> None:
        """Start a program in a group of its own, without a console."""
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
            try:
                escaping = flags | subprocess.CREATE_BREAKAWAY_FROM_JOB
                subprocess.Popen(list(argv), cwd=folder, creationflags=escaping, close_fds=True)  # noqa: S603  # no shell
            except PermissionError:
                # A job that does not let its processes go: stay in it and hope that it does not end with the app.
                subprocess.Popen(list(argv), cwd=folder, creationflags=flags, close_fds=True)  # noqa: S603  # no shell
        else:
            raise NotImplementedError

    def is_running(self, process: int) -> bool:
        """Ask for the process' handle: ``os.kill`` with 0 would end it here."""
        if sys.platform == "win32":
            import _winapi  # noqa: PLC0415  # exists on Windows only

            try:
                handle = _winapi.OpenProcess(0x0010_0000, False, process)  # noqa: FBT003  # SYNCHRONIZE, not inherited
            except PermissionError:
                return True
            except OSError:
                return False
            try:
                return _winapi.WaitForSingleObject(handle, 0) == _winapi.WAIT_TIMEOUT
            finally:
                _winapi.CloseHandle(handle)
        else:
            raise NotImplementedError


class Windows(Platform):
    """The platform, above the calls of ``api``."""

    has_helper: ClassVar[bool] = True

    def __init__(self, api: WindowsApi | None = None) -> None:
        self._api = api or NativeApi()

    def point(self, link: Path, target: Path) -> None:
        """Make ``link`` a junction to ``target``.

        Between removing the old and naming the new one nothing stands at ``link``: the journal of the caller says what
        has to be there.
        """
        fresh = link.with_name(f".{link.name}.new")
        if self._api.read_junction(fresh) is not None:
            self._api.remove_junction(fresh)
        # Made under another name first, so that a disk that refuses a junction does so before the old one is gone.
        self._api.create_junction(target.absolute(), fresh)
        old = self._api.read_junction(link)
        if old is not None:
            self._api.remove_junction(link)
        try:
            self._api.rename(fresh, link)
        except OSError:
            if old is not None:
                self._api.create_junction(old, link)
            raise

    def pointed(self, link: Path) -> Path | None:
        """Give the folder that the junction leads to."""
        return self._api.read_junction(link)

    def unpoint(self, link: Path) -> None:
        """Remove the junction."""
        for each in (link.with_name(f".{link.name}.new"), link):
            if self._api.read_junction(each) is not None:
                self._api.remove_junction(each)

    def exchange(self, first: Path, second: Path) -> bool:
        """Give False: Windows has no such call."""
        del first, second
        return False

    def move(self, source: Path, target: Path) -> None:
        """Rename. NTFS journals it; there is no call that makes a folder durable."""
        self._api.rename(source, target)

    def remove_tree(self, path: Path) -> None:
        """Remove whatever is at ``path``."""
        self._api.remove_tree(path)

    def hand_over(self, task: HandOver) -> None:
        """Write the helper's script and start it."""
        script = task.state_folder / "helper.ps1"
        # PowerShell 5 takes a script for the old code page's unless it begins with a byte order mark.
        files.write_atomic(script, b"\xef\xbb\xbf" + helper_script(task).encode())
        powershell = "powershell.exe"
        arguments = ("-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-WindowStyle", "Hidden", "-File")
        # Not in the app's folder: the helper's own working folder would keep it from being renamed.
        self._api.start_detached([powershell, *arguments, str(script)], task.state_folder)

    def is_running(self, process: int) -> bool:
        """Say whether the process with this id lives."""
        return self._api.is_running(process)

    def command(self, argv: Sequence[str], tree: Path) -> list[str]:
        """Give ``argv`` as Windows can start it: ``.exe`` may be left out."""
        program = tree.joinpath(*argv[0].split("/"))
        if not program.exists() and program.with_name(f"{program.name}.exe").exists():
            program = program.with_name(f"{program.name}.exe")
        return [str(program), *argv[1:]]


def helper_script(task: HandOver) -> str:
    """Give the PowerShell script that does ``task``."""
    # The comma in front keeps a pair together: PowerShell would unroll a single one into its two words.
    moves = "\n".join(f"    ,@({_quoted(str(old))}, {_quoted(str(new))})" for old, new in task.renames)
    program, *arguments = task.restart or ("",)
    restart = ""
    if program:
        given = ", ".join(_quoted(_argument(word)) for word in arguments)
        restart = f"Start-Process -FilePath {_quoted(program)}" + (f" -ArgumentList {given}" if given else "")
    return _SCRIPT.format(
        process=task.process,
        wait=_WAIT_FOR_APP,
        tries=_RENAME_TRIES,
        journal=_quoted(str(task.journal)),
        lock=_quoted(str(task.lock)),
        moves=moves,
        restart=restart,
    )


def _quoted(text: str) -> str:
    """Quote for PowerShell: in single quotes nothing is special but every kind of single quote itself."""
    for quote in "'\u2018\u2019\u201a\u201b":
        text = text.replace(quote, quote * 2)
    return f"'{text}'"


def _argument(word: str) -> str:
    """Quote one argument of a command line as the C runtime reads it: Start-Process joins them as they are."""
    return subprocess.list2cmdline([word])


_SCRIPT: Final = """\
# Made by instar. Waits for the app to exit, puts the new release in its place, starts it again.
$ErrorActionPreference = 'Stop'
$journal = {journal}
$moves = @(
{moves}
)
try {{ Wait-Process -Id {process} -Timeout {wait} -ErrorAction Stop }} catch {{
    if (Get-Process -Id {process} -ErrorAction SilentlyContinue) {{ exit 1 }}
}}
$lock = [IO.File]::Open({lock}, 'OpenOrCreate', 'ReadWrite', 'ReadWrite, Delete')
try {{
    # The same first byte that instar locks: nobody else works here meanwhile.
    for ($try = 0; ; $try++) {{
        try {{ $lock.Lock(0, 1); break }} catch {{ if ($try -ge {tries}) {{ throw }}; Start-Sleep -Seconds 1 }}
    }}
    # No journal: somebody decided otherwise while the app was running.
    if (Test-Path -LiteralPath $journal) {{
        $done = New-Object System.Collections.ArrayList
        try {{
            foreach ($move in $moves) {{
                # Done already, before an interruption.
                if (-not (Test-Path -LiteralPath $move[0])) {{ continue }}
                for ($try = 0; ; $try++) {{
                    try {{ [IO.Directory]::Move($move[0], $move[1]); break }}
                    catch {{ if ($try -ge {tries}) {{ throw }}; Start-Sleep -Seconds 1 }}
                }}
                [void]$done.Insert(0, $move)
            }}
        }} catch {{
            foreach ($move in $done) {{ [IO.Directory]::Move($move[1], $move[0]) }}
        }}
    }}
}} finally {{
    $lock.Close()
}}
{restart}
"""
