"""What commands print: reports on the standard output, complaints and progress on the standard error."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from instar.errors import InstallFailed
from instar.model.progress import OnProgress, Phase, Progress, ignore_progress

__all__ = ["bar", "complain", "human_size", "report", "say", "settings", "show_cursor", "table", "warn"]


@dataclass
class _Settings:
    debug: bool = False
    home: Path = Path()


settings = _Settings()
"""What the options in front of the command said."""


# Half characters, by which Python passes on names that are no text.
_HALVES: Final = re.compile(r"[\ud800-\udfff]")
# What a terminal may obey: notes, names of files and the last words of a program are other people's.
_COMMANDS: Final = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f]|{_HALVES.pattern}")


def _plain(text: str) -> Text:
    return Text(_COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n")))


def say(text: str = "") -> None:
    """Print a line of a report. Text from outside is printed, not obeyed: no markup in it, and no control character."""
    _stdout().print(_plain(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print a line for a person to the standard error, where it is in the way of no report."""
    Console(stderr=True, highlight=False).print(_plain(text), soft_wrap=True)


def complain(message: str, *, hint: str | None = None) -> None:
    """Say on the standard error what went wrong, and below it what to do."""
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble(("instar: ", "bold red"), _plain(message)), soft_wrap=True)
    if hint:
        console.print(_plain(f"        {hint}"), soft_wrap=True)


def report(document: Mapping[str, Any] | Sequence[Any], *, as_json: bool, human: Callable[[], None]) -> None:
    """Print a report: ``document`` as JSON where programs read it, or what ``human`` prints.

    Raises:
        InstallFailed: it could not be written to where the standard output goes.

    """
    try:
        if as_json:
            text = json.dumps(document, ensure_ascii=False, indent=2)
            # A file's name may be no text, which JSON can say but no encoding can.
            sys.stdout.write(_HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text) + "\n")
        else:
            human()
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # whoever reads has seen enough
    except OSError as error:
        msg = f"The report could not be written: {error.strerror or error}."
        raise InstallFailed(msg, hint="What the command had to do is done.") from error


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table. The columns named in ``right`` hold numbers."""
    shown = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*map(_plain, row))
    _stdout().print(shown)


def human_size(size: int) -> str:
    """Write a number of bytes as people do."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":  # noqa: PLR2004  # the step between decimal units
            return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError


@contextlib.contextmanager
def bar() -> Iterator[OnProgress]:
    """Show a progress bar for every phase of the work while the block runs, where a person watches a terminal."""
    if not sys.stderr.isatty():
        yield ignore_progress
        return
    tasks: dict[Phase, TaskID] = {}
    lock = threading.Lock()
    columns = (TextColumn("{task.description:>16}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(compact=True))
    bars = Bars(*columns, console=Console(stderr=True), transient=True)

    def show(progress: Progress) -> None:
        with lock:
            if not tasks:
                # Not before there is something to show: a bar redraws its line, and would wipe a question off it.
                bars.start()
            if progress.phase not in tasks:
                tasks[progress.phase] = bars.add_task(progress.phase.value, total=progress.total)
        bars.update(tasks[progress.phase], completed=progress.done, total=progress.total)

    try:
        yield show
    finally:
        bars.stop()


def show_cursor() -> None:
    """Bring back the cursor of a terminal that a progress bar has hidden."""
    Console(stderr=True).show_cursor()


def _stdout() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        # Into a file or a pipe nothing is folded to the width of a terminal that is not there.
        console.width = 10_000
    return console
