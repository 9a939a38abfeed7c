"""The publisher's half of trust: the roles of one repository, verified when read, edited in memory, signed again.

Two authorities: the *owner* (``root``, ``targets`` and each product's own role: what may ever run) and *online*
(``timestamp``, ``snapshot`` and each ``<product>-channels``: which of that is offered). What needs only the online key
never asks for the owner's.

Nothing is written here: :meth:`RoleSet.changes` gives the files to upload, in order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
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
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from instar.errors import Misconfigured
from instar.model.digest import Digest
from instar.model.names import ProductName
from instar.trust.layout import (
    MANIFEST_SUFFIX,
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
    target_key,
)
from instar.trust.signing import sign_role
from instar.trust.tree import RoleTree

__all__ = ["MAX_DIRECT_MANIFESTS", "NO_FLOOR", "Authority", "Lifetimes", "Renewal", "RoleSet"]

MAX_DIRECT_MANIFESTS: Final = 256
"""Manifests that a product's role lists itself, at up to 1 kB each. Beyond, they go into hash bins, so that what a
client fetches stops growing with the product's history."""

_BIN_BITS: Final = 8
"""256 bins: 10 kB more in the snapshot, and 100,000 manifests come in files of some 300 kB."""


_RENEW_FRACTION: Final = 3
"""What has less than a third of its lifetime left is renewed: a missed run or two of the publisher do no harm."""

NO_FLOOR: Final = "0.dev0"
"""A floor below every version (PEP 440 has none lower). A product with hash bins says it aloud: a search for a floor
that is not there would end in a bin, and every client would fetch that bin for nothing."""

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

    def __init__(self, tree: RoleTree, lifetimes: Lifetimes) -> None:
        self._tree = tree
        self._lifetimes = lifetimes
        self._published_root = copy.deepcopy(tree.root) if tree.published else None
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
        roles = cls(RoleTree.empty(), lifetimes or Lifetimes())
        roles.set_keys(Authority.OWNER, owner, threshold=owner_threshold)
        roles.set_keys(Authority.ONLINE, online, threshold=online_threshold)
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
        return cls(RoleTree.read(fetch, trusted=root), lifetimes or Lifetimes())

    # What it says now

    @property
    def products(self) -> tuple[str, ...]:
        """The products' names, sorted."""
        return self._tree.products

    @property
    def published(self) -> dict[str, int]:
        """The version of each role that clients see now, as loaded."""
        return dict(self._tree.published)

    def keys(self, authority: Authority) -> tuple[Key, ...]:
        """Give the public keys that sign for an authority."""
        role = self._tree.root.roles[_TOP_ROLES[authority][0]]
        return tuple(self._tree.root.keys[keyid] for keyid in role.keyids)

    def target(self, path: str) -> Target | None:
        """Find a target by its path, or None. See :meth:`set_target` for the paths that there are.

        Raises:
            Misconfigured: there can be no such path, or no such product.
            Untrusted, Unavailable: its role could not be read.

        """
        found = self._tree.role(self._tree.role_for(path)).targets.get(path)
        return None if found is None else _as_target(found)

    def targets(self, product: str) -> dict[str, Target]:
        """Give all that the owner vouches for in a product, by target path: manifests, and the security floor.

        Raises:
            Misconfigured: there is no such product.
            Untrusted, Unavailable: a role could not be read.

        """
        found = dict(self._tree.role(self._tree.product(product)).targets)
        for name in self._tree.bins(product):
            found.update(self._tree.role(name).targets)
        return {path: _as_target(found[path]) for path in sorted(found)}

    def floor(self, product: str) -> str | None:
        """Give the lowest version that may run, as the owner signed it, or None where any may."""
        target = self.target(floor_path(product))
        floor = NO_FLOOR if target is None else str(target.custom["floor"])
        return None if floor == NO_FLOOR else floor

    def expiries(self) -> dict[str, datetime]:
        """Give when each role's signature ends. Reads every role.

        Raises:
            Untrusted, Unavailable: a role could not be read.

        """
        return {name: self._tree.signed(name).expires for name in self._tree.names()}

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
        if name in self._tree.delegated:
            msg = f"The repository has a product {name} already."
            raise Misconfigured(msg, hint="Give the new one another name.")
        owner, online = self._tree.root.roles[Targets.type], self._tree.root.roles[Timestamp.type]
        if keys is None:
            keys, threshold = self.keys(Authority.OWNER), owner.threshold
        _check_keys(keys, threshold, taken={key.keyid for key in self.keys(Authority.ONLINE)})
        owned = [f"{name}/*{MANIFEST_SUFFIX}", floor_path(name)]
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
        name = self._tree.role_for(path)
        extra = {"custom": dict(custom)} if custom else {}
        self._tree.role(name).targets[path] = TargetFile(size, {"sha256": digest.hex}, path, extra)
        self._changed.add(name)
        direct = sum(1 for other in self._tree.role(name).targets if other.endswith(MANIFEST_SUFFIX))
        if name in self._tree.products and direct > MAX_DIRECT_MANIFESTS:
            self._move_into_bins(name)

    def remove_target(self, path: str) -> None:
        """Stop vouching for a target. That nobody did is no error.

        Raises:
            Misconfigured, Untrusted, Unavailable: as for :meth:`set_target`.

        """
        name = self._tree.role_for(path)
        if self._tree.role(name).targets.pop(path, None) is not None:
            self._changed.add(name)

    def set_floor(self, product: str, version: str | None) -> None:
        """Say which version is the lowest that may run, whatever a channel offers; None says nothing.

        Raises:
            Misconfigured, Untrusted, Unavailable: as for :meth:`set_target`.

        """
        if version is None and not self._tree.bins(self._tree.product(product)):
            self.remove_target(floor_path(product))
        else:
            custom = {"floor": version or NO_FLOOR}
            self.set_target(floor_path(product), size=0, digest=Digest.of(b""), custom=custom)

    def set_keys(
        self, authority: Authority, keys: Sequence[Key], *, threshold: int = 1, replacing: Sequence[Key] = ()
    ) -> None:
        """Say who signs for an authority from now on; every role of theirs will be signed again.

        A client that fetches between two uploads must not meet a timestamp that the root before it does not know. So
        replace a key in two publications: first old and new together, then the new one alone. That also holds for a
        stolen key; its owner is shut out by the second, which also ends what it did to version numbers.

        Products that have keys of their own keep them: see :meth:`set_product_keys`.

        Args:
            authority: whose keys.
            keys: who signs from now on.
            threshold: how many of them must.
            replacing: former keys of the authority. A root counts as soon as it is uploaded, so a publication that died
                after it has left products behind with the keys before; these tell them from products with their own.

        Raises:
            Misconfigured: no keys, a key twice or in both authorities, or a threshold that cannot be met.
            Untrusted, Unavailable: a role could not be read.

        """
        other = Authority.ONLINE if authority is Authority.OWNER else Authority.OWNER
        _check_keys(keys, threshold, taken={key.keyid for key in self.keys(other)})
        ours = set(self._tree.root.roles[_TOP_ROLES[authority][0]].keyids)
        ours.update(key.keyid for key in (*keys, *replacing))
        self._tree.root.keys.update({key.keyid: key for key in keys})
        for name in _TOP_ROLES[authority]:
            self._tree.root.roles[name] = Role([key.keyid for key in keys], threshold)
        used = {keyid for role in self._tree.root.roles.values() for keyid in role.keyids}
        self._tree.root.keys = {keyid: key for keyid, key in self._tree.root.keys.items() if keyid in used}
        self._changed.update({Root.type, *_TOP_ROLES[authority]})
        for product in self._tree.products:
            name = product if authority is Authority.OWNER else channels_role(product)
            if set(self._tree.delegated[name].keyids) <= ours:
                self._set_delegated_keys(name, keys, threshold)

    def set_product_keys(self, product: str, keys: Sequence[Key], *, threshold: int = 1) -> None:
        """Say who signs a product's manifests from now on. The owner signs for that.

        Raises:
            Misconfigured: no such product, no keys, a key twice or an online one, or an impossible threshold.
            Untrusted, Unavailable: a role could not be read.

        """
        _check_keys(keys, threshold, taken={key.keyid for key in self.keys(Authority.ONLINE)})
        self._set_delegated_keys(self._tree.product(product), keys, threshold)

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
        moment = self._moment(now)
        signers, taken, files = list(signers), taken or {}, []
        snapshot = copy.deepcopy(self._tree.snapshot)
        for name in sorted(self._changed - {Root.type, Snapshot.type, Timestamp.type}):
            signed = self._next(self._tree.role(name), name, moment, taken)
            snapshot.meta[f"{name}.json"] = MetaFile(signed.version)
            files.append(self._sign(signed, name, signers))
        timestamp = copy.deepcopy(self._tree.timestamp)
        if self._changed - {Root.type, Timestamp.type}:
            snapshot = self._next(snapshot, Snapshot.type, moment, taken)
            timestamp.snapshot_meta = MetaFile(snapshot.version)
            files.append(self._sign(snapshot, Snapshot.type, signers))
        if Root.type in self._changed:
            # TUF, 5.3.5: the next root has the next number. One that was left over was loaded, and counts.
            files.append(self._sign(self._next(self._tree.root, Root.type, moment, {}), Root.type, signers))
        timestamp = self._next(timestamp, Timestamp.type, moment, taken)
        timestamp.unrecognized_fields[SIGNED_AT] = moment.astimezone(UTC).strftime(TIME_FORMAT)
        files.append(self._sign(timestamp, Timestamp.type, signers))
        return files

    def _moment(self, now: datetime) -> datetime:
        """Give the time to sign with: never before the one that devices may have learnt from the last timestamp.

        If an earlier publisher's clock ran ahead, signatures by a right clock would look expired to them.
        """
        last = parse_time(self._tree.timestamp.unrecognized_fields.get(SIGNED_AT))
        before = self._published_root
        if last is None or before is None or last <= now:
            return now
        # With other online keys devices forget it, and so must we: a thief may have signed it.
        replaced = before.roles[Timestamp.type].keyids != self._tree.root.roles[Timestamp.type].keyids
        # No device kept a time at which the owner's roles had ended.
        beyond = last >= min(before.expires, self._tree.role(Targets.type).expires)
        return now if replaced or beyond else last

    def _next(self, signed: S, name: str, moment: datetime, taken: Mapping[str, int]) -> S:
        signed = copy.deepcopy(signed)
        signed.version = max(self._tree.published.get(name, 0), taken.get(name, 0)) + 1
        signed.expires = moment.astimezone(UTC) + self._lifetime(name)
        return signed

    def _sign(self, signed: S, name: str, signers: Iterable[Signer]) -> tuple[str, bytes]:
        key = metadata_key(name, None if name == Timestamp.type else signed.version)
        return key, sign_role(Metadata(signed), key, self._wanted(name), signers)

    def _wanted(self, name: str) -> list[Role]:
        """Give who must sign a role: for a root, the keys of the one before it as well (TUF, 5.3.4)."""
        if name in TOP_LEVEL_ROLE_NAMES:
            before = [self._published_root.roles[name]] if name == Root.type and self._published_root else []
            return [self._tree.root.roles[name], *before]
        return [self._tree.delegator(name).get_delegated_role(name)]

    # Editing the tree of roles

    def _delegate(self, name: str, paths: list[str], keys: Sequence[Key], threshold: int) -> None:
        self._tree.delegated[name] = DelegatedRole(name, [], 1, terminating=True, paths=paths)
        self._tree.add(name, Targets())
        self._set_delegated_keys(name, keys, threshold)

    def _set_delegated_keys(self, name: str, keys: Sequence[Key], threshold: int) -> None:
        # Read first, while the keys that signed it are still the ones it is judged by.
        bins = self._tree.bins(name)
        for each in (name, *bins):
            self._tree.role(each)
        keyids = [key.keyid for key in keys]
        delegations = self._tree.delegations
        self._tree.delegated[name].keyids, self._tree.delegated[name].threshold = keyids, threshold
        used = {keyid for role in self._tree.delegated.values() for keyid in role.keyids}
        known = {**delegations.keys, **{key.keyid: key for key in keys}}
        delegations.keys = {keyid: key for keyid, key in known.items() if keyid in used}
        if bins:
            self._tree.role(name).delegations = _bin_delegations(name, {key.keyid: key for key in keys}, threshold)
        self._changed.update({Targets.type, name, *bins})

    def _move_into_bins(self, product: str) -> None:
        """Let a product's role point to hash bins (TAP 15), each signed by the same keys.

        Clients need not know: a search that does not end in the product's role goes on to the bin. All bins are made
        at once, because a search that leads to a bin that is not there fails.
        """
        role, delegation = self._tree.role(product), self._tree.delegated[product]
        known = {keyid: self._tree.delegations.keys[keyid] for keyid in delegation.keyids}
        role.delegations = _bin_delegations(product, known, delegation.threshold)
        for name in self._tree.bins(product):
            self._tree.add(name, Targets())
            self._changed.add(name)
        for path in [path for path in role.targets if path.endswith(MANIFEST_SUFFIX)]:
            self._tree.role(self._tree.role_for(path)).targets[path] = role.targets.pop(path)
        if floor_path(product) not in role.targets:
            self.set_floor(product, None)

    def _lifetime(self, name: str) -> timedelta:
        lifetimes = {
            Root.type: self._lifetimes.root,
            Snapshot.type: self._lifetimes.snapshot,
            Timestamp.type: self._lifetimes.timestamp,
            **{channels_role(product): self._lifetimes.channels for product in self._tree.products},
        }
        return lifetimes.get(name, self._lifetimes.targets)


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
