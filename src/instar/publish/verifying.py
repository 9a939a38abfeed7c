"""``instar verify``: the whole repository, read as a stranger reads it, with nothing believed but the first root.

1. As a device: metadata from root to timestamp, with expiry.
2. Every role that there is, with its signatures.
3. The channels: they can be read, and name only releases that the owner signed.
4. Every manifest, and every difference between manifests.
5. Every pack, frame, chunk and file.
6. Every patch, applied and compared.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from instar.content.codecs import apply_patch
from instar.content.manifests import expand_delta
from instar.errors import InstarError, Untrusted
from instar.model.digest import Digest
from instar.model.manifest import File, Frame, Manifest, Pack, Patch, piece_key
from instar.model.names import Name
from instar.model.progress import OnProgress, Phase, Progress, ignore_progress
from instar.model.version import Version
from instar.publish.contents import PackContents
from instar.publish.history import OldRelease, json_of, read_release, split_path
from instar.publish.project import Project
from instar.publish.session import read_channels
from instar.trust.layout import MANIFEST_SUFFIX, MAX_ROOT, Target, floor_path, metadata_key
from instar.trust.roles import RoleSet
from instar.trust.verify import TrustedMetadata

__all__ = ["Problem", "Report", "verify_repository"]

# Manifests that are remembered. The patches of one release start from some three others, file by file in turn, and
# what has not changed for long is found in releases before those.
_MANIFESTS: Final = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a device would refuse, or should."""

    where: str
    what: str


@dataclass
class Report:
    """What was checked, and what is wrong.

    Numbers of things; ``unchecked`` are patches whose base is no longer in the repository, ``size`` bytes of packs.
    """

    releases: int = 0
    packs: int = 0
    frames: int = 0
    files: int = 0
    patches: int = 0
    deltas: int = 0
    unchecked: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)


def verify_repository(project: Project, *, progress: OnProgress = ignore_progress) -> Report:
    """Check everything in the repository. What is wrong is reported, not raised.

    Raises:
        InstarError: only what has nothing to do with the repository, such as a progress callback's own.

    """
    report = Report()
    _Verification(project, report, progress).run()
    return report


class _Verification:
    def __init__(self, project: Project, report: Report, progress: OnProgress) -> None:
        self._project = project
        self._report = report
        self._progress = progress
        self._contents = PackContents(project.storage)
        self._total = 0
        self._counted: set[Pack] = set()
        # What was checked once need not be again, for another release that shares it.
        self._packs: dict[Digest, bool] = {}
        self._frames: set[tuple[Digest, Frame]] = set()
        self._files: set[tuple[Digest, object]] = set()
        # Where the content of every file can be read from: a release that has it.
        self._homes: dict[Digest, Target] = {}
        self._documents: dict[Digest, Target] = {}
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()

    def run(self) -> None:
        with self._noting("metadata"):
            self._as_device()
        with self._noting("metadata"):
            self._check_first_root()
        try:
            roles = self._project.roles()
        except InstarError as error:
            self._note("metadata", error.message)
            return
        now = self._project.clock.now()
        targets: dict[str, Target] = {}
        with self._noting("metadata"):
            for name, expires in roles.expiries().items():
                if expires <= now:
                    self._note(f"role {name}", f"Its signature ended on {expires:%Y-%m-%d}.")
            targets = roles.targets(self._project.settings.product)
        self._check_floor(roles)
        self._check_channels(roles)
        manifests = {path: target for path, target in targets.items() if path.endswith(MANIFEST_SUFFIX)}
        readable = [target for target in manifests.values() if self._survey(target)]
        for target in readable:
            self._check_release(target)

    def _as_device(self) -> None:
        # The device's own code, in a folder of its own: what it refuses, devices refuse.
        with tempfile.TemporaryDirectory(prefix="instar-verify-") as folder:
            metadata = TrustedMetadata(
                Path(folder), root=self._project.root, fetch=self._project.fetch, clock=self._project.clock
            )
            metadata.refresh()

    def _check_first_root(self) -> None:
        # Whoever has the root does not read it, so this is for people who fetch it to begin with.
        version = json.loads(self._project.root)["signed"]["version"]
        key = metadata_key("root", version)
        if self._project.fetch(key, MAX_ROOT) != self._project.root:
            self._note(key, "It is not the trusted root of this project.")

    def _check_floor(self, roles: RoleSet) -> None:
        product = self._project.settings.product
        try:
            floor = roles.floor(product)
            if floor is not None:
                Version(floor)
        except (ValueError, KeyError, InstarError) as error:
            self._note(floor_path(product), f"The security floor cannot be read: {error}.")

    def _check_channels(self, roles: RoleSet) -> None:
        with self._noting("channels"):
            channels = read_channels(self._project, roles)
            for channel, platforms in channels.entries.items():
                for platform, entries in platforms.items():
                    for entry in entries:
                        if not entry.yanked and not self._is_signed(roles, platform, entry.version):
                            what = f"{entry.version} for {platform!s} is offered, but the owner signed no such release."
                            self._note(f"channel {channel!s}", what)

    def _is_signed(self, roles: RoleSet, platform: Name, version: Version) -> bool:
        return roles.target(f"{self._project.settings.product}/{platform}-{version}{MANIFEST_SUFFIX}") is not None

    def _survey(self, target: Target) -> bool:
        """Read a manifest and note where content can be found; tells whether it can be read."""
        try:
            split_path(target.path)
            manifest = self._read(target).manifest
            self._documents[json_of(target)[0]] = target
        except (InstarError, ValueError) as error:
            self._note(target.path, str(error))
            return False
        self._report.releases += 1
        for file in manifest.files:
            self._homes.setdefault(file.digest, target)
        self._total += sum(pack.size for pack in set(manifest.packs) - self._counted)
        self._counted.update(manifest.packs)
        return True

    def _read(self, target: Target) -> OldRelease:
        return read_release(self._project, target)

    def _manifest(self, target: Target) -> Manifest:
        if target.path not in self._manifests:
            self._manifests[target.path] = self._read(target).manifest
            if len(self._manifests) > _MANIFESTS:
                self._manifests.popitem(last=False)
        self._manifests.move_to_end(target.path)
        return self._manifests[target.path]

    def _check_release(self, target: Target) -> None:
        with self._noting(target.path):
            for row in target.custom.get("deltas", ()):
                self._check_delta(target, row)
        with self._noting(target.path):
            manifest = self._manifest(target)
            sound = [self._check_pack(pack) for pack in manifest.packs]
            for file in manifest.files:
                if all(sound[manifest.frames[manifest.chunks[n].frame].pack] for n in file.chunks):
                    self._check_file(target, manifest, file)
                    for patch in file.patches:
                        if sound[patch.pack]:
                            self._check_patch(target, manifest, file, patch)
            for number, frame in enumerate(manifest.frames):
                if sound[frame.pack]:
                    self._check_frame(target, manifest, number)

    def _check_delta(self, target: Target, row: Any) -> None:  # noqa: ANN401  # JSON that is checked here
        try:
            base, name, size = Digest.parse(row["from"]), Digest.parse(row["sha256"]), int(row["size"])
        except (TypeError, KeyError, ValueError) as error:
            self._note(target.path, f"A difference is badly described: {error}.")
            return
        home = self._documents.get(base)
        key = piece_key(name, "delta")
        with self._noting(key):
            delta = self._project.fetch(key, size)
            if len(delta) != size or Digest.of(delta) != name:
                self._note(key, "It is not what its name says.")
                return
            if home is None:
                self._report.unchecked += 1
                return
            digest, length = json_of(target)
            expand_delta(self._read(home).document, delta, digest=digest, size=length)
            self._report.deltas += 1

    def _check_pack(self, pack: Pack) -> bool:
        """Check a pack, once; gives whether it can be read from."""
        if pack.digest not in self._packs:
            self._packs[pack.digest] = False
            self._report.packs += 1
            with self._noting(pack.key):
                self._contents.check_pack(pack)
                self._packs[pack.digest] = True
            self._report.size += pack.size
            self._progress(Progress(Phase.VERIFY, self._report.size, self._total))
        return self._packs[pack.digest]

    def _check_frame(self, target: Target, manifest: Manifest, number: int) -> None:
        name = (manifest.packs[manifest.frames[number].pack].digest, manifest.frames[number])
        if name not in self._frames:
            self._frames.add(name)
            self._report.frames += 1
            with self._noting(f"{target.path}: frame {number}"):
                self._contents.frame(manifest, number)

    def _check_file(self, target: Target, manifest: Manifest, file: File) -> None:
        # The same content may be put together from other chunks in another release, so those belong to the name.
        chunks = [manifest.chunks[number] for number in file.chunks]
        frames = [manifest.frames[chunk.frame] for chunk in chunks]
        packs = [manifest.packs[frame.pack].digest for frame in frames]
        places = tuple((*pair, chunk.offset, chunk.size) for *pair, chunk in zip(packs, frames, chunks, strict=True))
        if (name := (file.digest, places)) not in self._files:
            self._files.add(name)
            self._report.files += 1
            with self._noting(f"{target.path}: {file.path}"):
                self._contents.check_file(manifest, file)
                used = set(zip(packs, frames, strict=True))
                self._report.frames += len(used - self._frames)
                self._frames |= used

    def _check_patch(self, target: Target, manifest: Manifest, file: File, patch: Patch) -> None:
        parts = []
        with self._noting(f"{target.path}: a patch of {file.path}"):
            for part in patch.base:
                home = self._homes.get(part.file)
                if home is None:
                    self._report.unchecked += 1
                    return
                old = self._manifest(home)
                source = next(other for other in old.files if other.digest == part.file)
                parts.append(self._contents.read(old, source, part.offset, part.length))
            payload = self._contents.piece(manifest.packs[patch.pack], patch.at, patch.size, patch.digest)
            made = apply_patch(patch.codec, b"".join(parts), payload, patch.length)
            if made != self._contents.read(manifest, file, patch.offset, patch.length):
                what = "It does not make what was signed."
                raise Untrusted(what)
            self._report.patches += 1

    def _note(self, where: str, what: str) -> None:
        self._report.problems.append(Problem(where, what))

    @contextlib.contextmanager
    def _noting(self, where: str) -> Iterator[None]:
        """Turn what is wrong into a line of the report, and go on with what comes after the block."""
        try:
            yield
        except InstarError as error:
            self._note(where, error.message)
        except ValueError as error:
            self._note(where, f"{error}.")
