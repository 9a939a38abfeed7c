"""The publisher's half of trust: the roles of one repository, verified when read, edited in memory, signed again.

Two authorities: the *owner* (``root``, ``targets`` and each product's own role: what may ever run) and *online*
(``timestamp``, ``snapshot`` and each ``<product>-channels``: which of that is offered). What needs only the online key
never asks for the owner's.

Nothing is written here: :meth:`RoleSet.changes` gives the files to upload, in order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Self, TypeVar

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Signed,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from instar.errors import Misconfigured, NotFound, Untrusted
from instar.model.digest import Digest
from instar.model.names import ProductName
from instar.trust.layout import (
    SIGNED_AT,
    TIME_FORMAT,
    Fetch,
    Target,
    bins_prefix,
    channels_path,
    channels_role,
    floor_path,
    metadata_key,
    parse_time,
    role_bound,
    target_key,
)
from instar.trust.signing import check_role, follow_roots, sign_role

__all__ = ["MAX_DIRECT_MANIFESTS", "Authority", "Lifetimes", "Renewal", "RoleSet"]

MAX_DIRECT_MANIFESTS: Final = 256
"""Manifests that a product's role lists itself, at up to 1 kB each. Beyond, they go into hash bins, so that what a
client fetches stops growing with the product's history."""

_BIN_BITS: Final = 8
"""256 bins: 10 kB more in the snapshot, and 100,000 manifests come in files of some 300 kB."""

_MANIFEST_SUFFIX: Final = ".manifest"

_RENEW_FRACTION: Final = 3
"""What has less than a third of its lifetime left is renewed: a missed run or two of the publisher do no harm."""

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


class Authority(Enum):
    """Who signs a role."""

    OWNER = "owner"
    ONLINE = "online"


_TOP_ROLES: Final = {
    Authority.OWNER: (Root.type, Targets.type),
    Authority.ONLINE: (Snapshot.type, Timestamp.type),
}


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a signature of each kind of role counts. ``targets`` is also that of the products' roles."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=180)
    channels: timedelta = timedelta(days=30)
    snapshot: timedelta = timedelta(days=30)
    timestamp: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What :meth:`RoleSet.renew` found: roles that it marked, and roles that need a key that was not given."""

    renewed: tuple[str, ...]
    missing: Mapping[str, datetime]


class RoleSet:
    """All roles of one repository. Made by :meth:`create` or :meth:`load`.

    Edits stay in memory. After the files of :meth:`changes` are uploaded, load anew; a set that could not be uploaded
    is thrown away.
    """

    def __init__(
        self, fetch: Fetch, lifetimes: Lifetimes, root: Root, snapshot: Snapshot, timestamp: Timestamp
    ) -> None:
        self._fetch = fetch
        self._lifetimes = lifetimes
        self._published_root: Root | None = None
        self._published: dict[str, int] = {}
        self._root = root
        self._snapshot = snapshot
        self._timestamp = timestamp
        self._targets: dict[str, Targets] = {}
        self._changed: set[str] = set()

    @classmethod
    def create(
        cls,
        owner: Sequence[Key],
        online: Sequence[Key],
        *,
        lifetimes: Lifetimes | None = None,
        owner_threshold: int = 1,
        online_threshold: int = 1,
    ) -> Self:
        """Begin a repository without products.

        Args:
            owner: public keys that may sign for the owner.
            online: public keys that may sign for what is online.
            lifetimes: how long signatures will count.
            owner_threshold: how many of ``owner`` must sign.
            online_threshold: how many of ``online`` must sign.

        Raises:
            Misconfigured: no keys, the same key twice or in both authorities, or a threshold that cannot be met.

        """
        roles = cls(_nothing_stored, lifetimes or Lifetimes(), Root(consistent_snapshot=True), Snapshot(), Timestamp())
        roles._targets[Targets.type] = Targets(delegations=Delegations({}, roles={}))
        roles.set_keys(Authority.OWNER, owner, threshold=owner_threshold)
        roles.set_keys(Authority.ONLINE, online, threshold=online_threshold)
        roles._snapshot.meta = {}
        roles._changed = {Root.type, Targets.type, Snapshot.type, Timestamp.type}
        return roles

    @classmethod
    def load(cls, fetch: Fetch, *, root: bytes, lifetimes: Lifetimes | None = None) -> Self:
        """Read the repository that ``fetch`` reaches, and believe of it only what ``root`` vouches for.

        The publisher's storage is a stranger too: whoever could slip a role past this would have it signed by the
        owner at the next release. Expiry is not judged, for what expired is to be renewed here.

        Args:
            fetch: reads the storage's objects.
            root: root metadata that the publisher keeps; newer ones are followed from there.
            lifetimes: how long signatures will count.

        Raises:
            NotFound: a role's file is missing; for ``timestamp.json``, there is no repository yet.
            Untrusted: signatures or versions are wrong.
            Misconfigured: ``root`` is not root metadata.
            Unavailable: the storage did not answer.

        """
        trusted = follow_roots(fetch, root)
        data = fetch(metadata_key(Timestamp.type, None), role_bound(Timestamp.type))
        timestamp = check_role(Timestamp, data, Timestamp.type, trusted, None)
        version = timestamp.snapshot_meta.version
        data = fetch(metadata_key(Snapshot.type, version), role_bound(Snapshot.type))
        snapshot = check_role(Snapshot, data, Snapshot.type, trusted, version)
        roles = cls(fetch, lifetimes or Lifetimes(), trusted, snapshot, timestamp)
        roles._published_root = copy.deepcopy(trusted)
        roles._published = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
        roles._published |= {
            Root.type: trusted.version,
            Snapshot.type: snapshot.version,
            Timestamp.type: timestamp.version,
        }
        roles._role(Targets.type)
        return roles

    # What it says now

    @property
    def products(self) -> tuple[str, ...]:
        """The products' names, sorted."""
        names = self._delegated().keys()
        return tuple(sorted(name for name in names if channels_role(name) in names))

    def keys(self, authority: Authority) -> tuple[Key, ...]:
        """Give the public keys that sign for an authority."""
        role = self._root.roles[_TOP_ROLES[authority][0]]
        return tuple(self._root.keys[keyid] for keyid in role.keyids)

    def target(self, path: str) -> Target | None:
        """Find a target by its path, or None. See :meth:`set_target` for the paths that there are.

        Raises:
            Misconfigured: there can be no such path, or no such product.
            Untrusted, Unavailable: its role could not be read.

        """
        found = self._role(self._role_for(path)).targets.get(path)
        return None if found is None else _as_target(found)

    def targets(self, product: str) -> dict[str, Target]:
        """Give all that the owner vouches for in a product, by target path: manifests, and the security floor.

        Raises:
            Misconfigured: there is no such product.
            Untrusted, Unavailable: a role could not be read.

        """
        found = dict(self._role(self._product(product)).targets)
        for name in self._bins(product):
            found.update(self._role(name).targets)
        return {path: _as_target(found[path]) for path in sorted(found)}

    def floor(self, product: str) -> str | None:
        """Give the lowest version that may run, as the owner signed it, or None."""
        target = self.target(floor_path(product))
        return None if target is None else str(target.custom["floor"])

    def expiries(self) -> dict[str, datetime]:
        """Give when each role's signature ends. Reads every role.

        Raises:
            Untrusted, Unavailable: a role could not be read.

        """
        return {name: self._signed(name).expires for name in self._names()}

    # Edits

    def add_product(self, name: str, *, keys: Sequence[Key] | None = None, threshold: int = 1) -> None:
        """Add a product without releases.

        Args:
            name: the product, a :class:`~instar.model.names.ProductName`.
            keys: who signs its manifests: a team of its own, or by default the owner, with the owner's threshold.
            threshold: how many of ``keys`` must sign.

        Raises:
            Misconfigured: it is there already, or the keys cannot be used.

        """
        name = _product_name(name)
        if name in self._delegated():
            msg = f"The repository has a product {name} already."
            raise Misconfigured(msg, hint="Give the new one another name.")
        owner, online = self._root.roles[Targets.type], self._root.roles[Timestamp.type]
        if keys is None:
            keys, threshold = self.keys(Authority.OWNER), owner.threshold
        owned = [f"{name}/*{_MANIFEST_SUFFIX}", floor_path(name)]
        # The channels first: the search ends at the first role whose paths match.
        self._delegate(channels_role(name), [channels_path(name)], self.keys(Authority.ONLINE), online.threshold)
        self._delegate(name, owned, keys, threshold)

    def set_target(self, path: str, *, size: int, digest: Digest, custom: Mapping[str, Any] | None = None) -> None:
        """Vouch for a target, in place of what its role said about that path.

        Args:
            path: ``<product>/<platform>-<version>.manifest``, ``<product>/channels.json`` or
                ``<product>/security-floor``; the path decides which role signs it.
            size: bytes of its content.
            digest: of its content.
            custom: JSON values; no fractions, which canonical JSON does not have.

        Raises:
            Misconfigured: there can be no such path, or no such product.
            Untrusted, Unavailable: its role could not be read.

        """
        name = self._role_for(path)
        extra = {"custom": dict(custom)} if custom else {}
        self._role(name).targets[path] = TargetFile(size, {"sha256": digest.hex}, path, extra)
        self._changed.add(name)
        direct = sum(1 for other in self._role(name).targets if other.endswith(_MANIFEST_SUFFIX))
        if name in self.products and direct > MAX_DIRECT_MANIFESTS:
            self._move_into_bins(name)

    def remove_target(self, path: str) -> None:
        """Stop vouching for a target. That nobody did is no error.

        Raises:
            Misconfigured, Untrusted, Unavailable: as for :meth:`set_target`.

        """
        name = self._role_for(path)
        if self._role(name).targets.pop(path, None) is not None:
            self._changed.add(name)

    def set_floor(self, product: str, version: str | None) -> None:
        """Say which version is the lowest that may run, whatever a channel offers; None says nothing.

        Raises:
            Misconfigured, Untrusted, Unavailable: as for :meth:`set_target`.

        """
        if version is None:
            self.remove_target(floor_path(product))
        else:
            self.set_target(floor_path(product), size=0, digest=Digest.of(b""), custom={"floor": version})

    def set_keys(self, authority: Authority, keys: Sequence[Key], *, threshold: int = 1) -> None:
        """Say who signs for an authority from now on; every role of theirs will be signed again.

        A client that fetches between two uploads must not meet a timestamp that the root before it does not know. So
        replace a key in two publications: first old and new together, then the new one alone. That also holds for a
        stolen key; its owner is shut out by the second, which also ends what it did to version numbers.

        Products that have keys of their own keep them: see :meth:`set_product_keys`.

        Raises:
            Misconfigured: no keys, a key twice or in both authorities, or a threshold that cannot be met.
            Untrusted, Unavailable: a role could not be read.

        """
        other = Authority.ONLINE if authority is Authority.OWNER else Authority.OWNER
        _check_keys(keys, threshold, taken={key.keyid for key in self.keys(other)})
        before = set(self._root.roles[_TOP_ROLES[authority][0]].keyids)
        self._root.keys.update({key.keyid: key for key in keys})
        for name in _TOP_ROLES[authority]:
            self._root.roles[name] = Role([key.keyid for key in keys], threshold)
        used = {keyid for role in self._root.roles.values() for keyid in role.keyids}
        self._root.keys = {keyid: key for keyid, key in self._root.keys.items() if keyid in used}
        self._changed.update({Root.type, *_TOP_ROLES[authority]})
        for product in self.products:
            name = product if authority is Authority.OWNER else channels_role(product)
            if set(self._delegated()[name].keyids) == before:
                self._set_delegated_keys(name, keys, threshold)

    def set_product_keys(self, product: str, keys: Sequence[Key], *, threshold: int = 1) -> None:
        """Say who signs a product's manifests from now on. The owner signs for that.

        Raises:
            Misconfigured: no such product, no keys, a key twice or an online one, or an impossible threshold.
            Untrusted, Unavailable: a role could not be read.

        """
        _check_keys(keys, threshold, taken={key.keyid for key in self.keys(Authority.ONLINE)})
        self._set_delegated_keys(self._product(product), keys, threshold)

    def renew(self, now: datetime, signers: Iterable[Signer]) -> Renewal:
        """Mark for signing what has less than a third of its lifetime left, as far as ``signers`` can sign it.

        Raises:
            Untrusted, Unavailable: a role could not be read.

        """
        held = {signer.public_key.keyid for signer in signers}
        due = {
            name: expires
            for name, expires in self.expiries().items()
            if expires - now <= self._lifetime(name) / _RENEW_FRACTION and name not in self._changed
        }
        can = {name for name in due if all(len(held & set(r.keyids)) >= r.threshold for r in self._wanted(name))}
        self._changed.update(can)
        return Renewal(tuple(sorted(can)), {name: due[name] for name in sorted(due.keys() - can)})

    # Signing

    def changes(
        self, now: datetime, signers: Iterable[Signer], *, taken: Mapping[str, int] | None = None
    ) -> list[tuple[str, bytes]]:
        """Sign what was edited, and what must follow from that.

        Args:
            now: the publisher's time.
            signers: the private keys at hand; those that a role does not name are not used for it.
            taken: the highest version of each role that the storage already holds, used or left over
                (:func:`~instar.trust.layout.taken_versions`); new files get higher ones and overwrite none.

        Returns:
            Keys and contents in the order of uploading, ``metadata/timestamp.json`` last; empty when nothing changed.
            The files before a new root change nothing for clients; the root counts as soon as it is there.

        Raises:
            Misconfigured: a role that changed needs a key that is not at hand, or becomes too long.
            Unavailable: a key service did not sign.

        """
        if not self._changed:
            return []
        # Devices remember when the newest timestamp was signed. If an earlier publisher's clock ran ahead, signatures
        # by a right clock would look expired to them.
        last = parse_time(self._timestamp.unrecognized_fields.get(SIGNED_AT))
        moment = max(now, last) if last else now
        signers, taken, files = list(signers), taken or {}, []
        snapshot = copy.deepcopy(self._snapshot)
        for name in sorted(self._changed - {Root.type, Snapshot.type, Timestamp.type}):
            signed = self._next(self._role(name), name, moment, taken)
            snapshot.meta[f"{name}.json"] = MetaFile(signed.version)
            files.append(self._sign(signed, name, signers))
        timestamp = copy.deepcopy(self._timestamp)
        if self._changed - {Root.type, Timestamp.type}:
            snapshot = self._next(snapshot, Snapshot.type, moment, taken)
            timestamp.snapshot_meta = MetaFile(snapshot.version)
            files.append(self._sign(snapshot, Snapshot.type, signers))
        if Root.type in self._changed:
            # TUF, 5.3.5: the next root has the next number. One that was left over was loaded, and counts.
            files.append(self._sign(self._next(self._root, Root.type, moment, {}), Root.type, signers))
        timestamp = self._next(timestamp, Timestamp.type, moment, taken)
        timestamp.unrecognized_fields[SIGNED_AT] = moment.astimezone(UTC).strftime(TIME_FORMAT)
        files.append(self._sign(timestamp, Timestamp.type, signers))
        return files

    def _next(self, signed: S, name: str, moment: datetime, taken: Mapping[str, int]) -> S:
        signed = copy.deepcopy(signed)
        signed.version = max(self._published.get(name, 0), taken.get(name, 0)) + 1
        signed.expires = moment.astimezone(UTC) + self._lifetime(name)
        return signed

    def _sign(self, signed: S, name: str, signers: Iterable[Signer]) -> tuple[str, bytes]:
        key = metadata_key(name, None if name == Timestamp.type else signed.version)
        return key, sign_role(Metadata(signed), key, self._wanted(name), signers)

    def _wanted(self, name: str) -> list[Role]:
        """Give who must sign a role: for a root, the keys of the one before it as well (TUF, 5.3.4)."""
        if name in TOP_LEVEL_ROLE_NAMES:
            before = [self._published_root.roles[name]] if name == Root.type and self._published_root else []
            return [self._root.roles[name], *before]
        return [self._delegator(name).get_delegated_role(name)]

    # Reading, one role at a time and only what is asked for

    def _role(self, name: str) -> Targets:
        """Give a targets role, read and verified when it is first asked for."""
        if name not in self._targets:
            version = self._published.get(name)
            if version is None:
                msg = f"The snapshot does not name the role {name}."
                raise Untrusted(msg, hint="Somebody or something changed the storage: find out before you publish.")
            data = self._fetch(metadata_key(name, version), role_bound(name))
            self._targets[name] = check_role(Targets, data, name, self._delegator(name), version)
        return self._targets[name]

    def _signed(self, name: str) -> Signed:
        top: dict[str, Signed] = {
            Root.type: self._root,
            Snapshot.type: self._snapshot,
            Timestamp.type: self._timestamp,
        }
        return top.get(name) or self._role(name)

    def _delegator(self, name: str) -> Root | Targets:
        if name == Targets.type:
            return self._root
        for product in self.products:
            if name.startswith(bins_prefix(product)) and name in self._bins(product):
                return self._role(product)
        return self._role(Targets.type)

    def _delegations(self) -> Delegations:
        delegations = self._role(Targets.type).delegations
        if delegations is None:
            raise _foreign()
        return delegations

    def _delegated(self) -> dict[str, DelegatedRole]:
        roles = self._delegations().roles
        if roles is None:
            raise _foreign()
        return roles

    def _bins(self, product: str) -> tuple[str, ...]:
        delegations = self._role(product).delegations
        if delegations is None or delegations.succinct_roles is None:
            return ()
        return tuple(delegations.succinct_roles.get_roles())

    def _names(self) -> Iterator[str]:
        yield from (Root.type, Timestamp.type, Snapshot.type, Targets.type)
        yield from self._delegated()
        for product in self.products:
            yield from self._bins(product)

    def _product(self, name: str) -> str:
        if name not in self.products:
            msg = f"The repository has no product {name!r}."
            raise Misconfigured(msg, hint=f"It has {', '.join(self.products) or 'none yet'}.")
        return name

    def _role_for(self, path: str) -> str:
        """Name the role that signs a target path."""
        product, _, name = path.partition("/")
        self._product(product)
        if path == channels_path(product):
            return channels_role(product)
        if path == floor_path(product):
            return product
        if not name.endswith(_MANIFEST_SUFFIX) or "/" in name:
            msg = f"{path!r} is no path that a product's roles may sign."
            raise Misconfigured(msg)
        delegations = self._role(product).delegations
        bins = delegations.succinct_roles if delegations else None
        return bins.get_role_for_target(path) if bins else product

    # Editing the tree of roles

    def _delegate(self, name: str, paths: list[str], keys: Sequence[Key], threshold: int) -> None:
        self._delegated()[name] = DelegatedRole(name, [], 1, terminating=True, paths=paths)
        self._targets[name] = Targets()
        self._set_delegated_keys(name, keys, threshold)

    def _set_delegated_keys(self, name: str, keys: Sequence[Key], threshold: int) -> None:
        # Read first, while the keys that signed it are still the ones it is judged by.
        bins = self._bins(name)
        for each in (name, *bins):
            self._role(each)
        keyids = [key.keyid for key in keys]
        delegations = self._delegations()
        self._delegated()[name].keyids, self._delegated()[name].threshold = keyids, threshold
        used = {keyid for role in self._delegated().values() for keyid in role.keyids}
        known = {**delegations.keys, **{key.keyid: key for key in keys}}
        delegations.keys = {keyid: key for keyid, key in known.items() if keyid in used}
        if bins:
            self._role(name).delegations = _bin_delegations(name, {key.keyid: key for key in keys}, threshold)
        self._changed.update({Targets.type, name, *bins})

    def _move_into_bins(self, product: str) -> None:
        """Let a product's role point to hash bins (TAP 15), each signed by the same keys.

        Clients need not know: a search that does not end in the product's role goes on to the bin. All bins are made
        at once, because a search that leads to a bin that is not there fails.
        """
        role, delegation = self._role(product), self._delegated()[product]
        known = {keyid: self._delegations().keys[keyid] for keyid in delegation.keyids}
        role.delegations = _bin_delegations(product, known, delegation.threshold)
        for name in self._bins(product):
            self._targets[name] = Targets()
            self._changed.add(name)
        for path in [path for path in role.targets if path.endswith(_MANIFEST_SUFFIX)]:
            self._targets[self._role_for(path)].targets[path] = role.targets.pop(path)

    def _lifetime(self, name: str) -> timedelta:
        lifetimes = {
            Root.type: self._lifetimes.root,
            Snapshot.type: self._lifetimes.snapshot,
            Timestamp.type: self._lifetimes.timestamp,
            **{channels_role(product): self._lifetimes.channels for product in self.products},
        }
        return lifetimes.get(name, self._lifetimes.targets)


def _foreign() -> Misconfigured:
    msg = "The targets role does not delegate to products."
    return Misconfigured(msg, hint="Another tool made this repository; instar cannot publish to it.")


def _bin_delegations(product: str, keys: dict[str, Key], threshold: int) -> Delegations:
    return Delegations(keys, succinct_roles=SuccinctRoles(list(keys), threshold, _BIN_BITS, bins_prefix(product)))


def _as_target(found: TargetFile) -> Target:
    digest = Digest.parse(found.hashes["sha256"])
    return Target(found.path, target_key(found.path, digest), found.length, digest, found.custom or {})


def _check_keys(keys: Sequence[Key], threshold: int, *, taken: set[str]) -> None:
    keyids = {key.keyid for key in keys}
    if len(keyids) != len(keys) or not 1 <= threshold <= len(keys):
        msg = f"{threshold} signature(s) of {len(keyids)} different key(s) cannot be asked for."
        raise Misconfigured(msg, hint="Name at least one key, each once, and a threshold no higher than their number.")
    if keyids & taken:
        # Two authorities with one key are one authority: a stolen server could then sign releases.
        msg = "The same key cannot be both the owner's and online."
        raise Misconfigured(msg, hint="Make a key for each.")


def _product_name(name: str) -> ProductName:
    try:
        return ProductName(name)
    except ValueError as error:
        msg = f"{error}."
        raise Misconfigured(msg) from error


def _nothing_stored(key: str, limit: int) -> bytes:  # noqa: ARG001  # the shape of Fetch
    msg = f"There is no {key}."
    raise NotFound(msg)
