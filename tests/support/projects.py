"""Publishers' projects for tests: real keys, a real storage in a folder, bundles of a few hundred bytes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from instar.model.names import Name, ProductName
from instar.model.version import Version
from instar.publish import Offer, Project, Released, Settings, Wanted, found_project, release
from instar.publish.settings import Effort
from instar.storage import MemoryStorage
from instar.testing.clock import FakeClock

LINUX = Name("linux-x86_64")


def new_project(folder: Path, clock: FakeClock | None = None) -> Project:
    return found_project(folder, Settings(ProductName("app")), secret=None, clock=clock or this_moment())


def this_moment() -> FakeClock:
    """A clock that stands still now: the judge of metadata asks the machine's own clock as well."""
    return FakeClock(datetime.now(UTC))


def in_memory(project: Project) -> Project:
    """The same project with its repository in memory, where thousands of objects cost nothing."""
    memory = MemoryStorage(project.clock)
    for listed in project.storage.list(""):
        memory.write(listed.key, project.storage.read(listed.key, limit=1 << 20))
    return replace(project, storage=memory)


def bundle(folder: Path, text: str = "one", *, lines: int = 50) -> Path:
    """Make a tree: a program, some data that every version shares, and a file that says which version it is."""
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    (folder / "app").write_text(f"#!/bin/sh\necho {text}\n")
    (folder / "app").chmod(0o755)
    (folder / "lib" / "shared.txt").write_text("".join(f"{n} {n * n}\n" for n in range(lines)))
    (folder / "lib" / "changed.txt").write_text(
        "".join(f"{n} {n * 7} {text if n == 20 else ''}\n" for n in range(lines))
    )
    return folder


def publish(
    project: Project, version: str, tree: Path | None = None, *, percent: float = 100.0, **options: Any
) -> Released:
    tree = tree or bundle(project.folder.parent / f"bundle-{version}", version)
    channel = options.pop("channel", None)
    wanted = Wanted(
        Version(version),
        options.pop("platform", LINUX),
        channel=Name(channel) if channel else None,
        offer=Offer(percent, options.pop("ramp", None), options.pop("conditions", {})),
        effort=Effort("fast"),
        **options,
    )
    return release(project, tree, wanted)


def publish_many(project: Project, *versions: str) -> None:
    for version in versions:
        publish(project, version)


def snapshot_of(folder: Path) -> dict[str, bytes]:
    """Everything that readers of a storage can see, to tell whether something changed."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def days(count: float) -> timedelta:
    return timedelta(days=count)
