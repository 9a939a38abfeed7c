"""The roles of one repository as they stand in a storage: found, read when first needed, and verified.

Neither edits nor signs; what :class:`~instar.trust.roles.RoleSet` edits are the values that this hands out. Expiry is
not judged: what expired is to be renewed by whoever reads this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)

from instar.errors import Misconfigured, NotFound, Untrusted
from instar.trust.layout import (
    MANIFEST_SUFFIX,
    Fetch,
    bins_prefix,
    channels_path,
    channels_role,
    floor_path,
    metadata_key,
    role_bound,
)
from instar.trust.signing import check_role, follow_roots

__all__ = ["RoleTree"]


class RoleTree:
    """Root, snapshot and timestamp, and below them the targets roles.

    Attributes:
        root, snapshot, timestamp: the top-level roles; each targets role is given by :meth:`role`.
        published: the version of each role that clients see now; empty for a new repository.

    """

    def __init__(self, fetch: Fetch, root: Root, snapshot: Snapshot, timestamp: Timestamp) -> None:
        self.root = root
        self.snapshot = snapshot
        self.timestamp = timestamp
        self.published: dict[str, int] = {}
        self._fetch = fetch
        self._targets: dict[str, Targets] = {}

    @classmethod
    def empty(cls) -> Self:
        """Begin a repository: no keys, no products."""
        tree = cls(_nothing_stored, Root(consistent_snapshot=True), Snapshot(), Timestamp())
        # tuf's default names a targets.json that does not exist yet.
        tree.snapshot.meta = {}
        tree.add(Targets.type, Targets(delegations=Delegations({}, roles={})))
        return tree

    @classmethod
    def read(cls, fetch: Fetch, *, trusted: bytes) -> Self:
        """Read the top-level roles that ``fetch`` reaches, from a trusted root on.

        Raises:
            NotFound: a role's file is missing; for ``timestamp.json``, there is no repository yet.
            Untrusted: signatures or versions are wrong.
            Misconfigured: ``trusted`` is not root metadata.
            Unavailable: the storage did not answer.

        """
        root = follow_roots(fetch, trusted)
        data = fetch(metadata_key(Timestamp.type, None), role_bound(Timestamp.type))
        timestamp = check_role(Timestamp, data, Timestamp.type, root, None)
        version = timestamp.snapshot_meta.version
        data = fetch(metadata_key(Snapshot.type, version), role_bound(Snapshot.type))
        snapshot = check_role(Snapshot, data, Snapshot.type, root, version)
        tree = cls(fetch, root, snapshot, timestamp)
        tree.published = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
        tree.published |= {Root.type: root.version, Snapshot.type: version, Timestamp.type: timestamp.version}
        tree.role(Targets.type)
        return tree

    def add(self, name: str, role: Targets) -> None:
        """Put a new targets role in memory; the caller delegates to it."""
        self._targets[name] = role

    @property
    def products(self) -> tuple[str, ...]:
        """The products' names, sorted."""
        names = self.delegated.keys()
        return tuple(sorted(name for name in names if channels_role(name) in names))

    @property
    def delegations(self) -> Delegations:
        """What the targets role delegates, with the keys."""
        delegations = self.role(Targets.type).delegations
        if delegations is None:
            raise _foreign()
        return delegations

    @property
    def delegated(self) -> dict[str, DelegatedRole]:
        """The roles that the targets role delegates to: two for each product."""
        roles = self.delegations.roles
        if roles is None:
            raise _foreign()
        return roles

    def role(self, name: str) -> Targets:
        """Give a targets role, read and verified when it is first asked for.

        Raises:
            Untrusted, Unavailable: it could not be read.

        """
        if name not in self._targets:
            version = self.published.get(name)
            if version is None:
                msg = f"The snapshot does not name the role {name}."
                raise Untrusted(msg, hint="Somebody or something changed the storage: find out before you publish.")
            data = self._fetch(metadata_key(name, version), role_bound(name))
            self._targets[name] = check_role(Targets, data, name, self.delegator(name), version)
        return self._targets[name]

    def signed(self, name: str) -> Signed:
        """Give any role.

        Raises:
            Untrusted, Unavailable: it could not be read.

        """
        top: dict[str, Signed] = {
            Root.type: self.root,
            Snapshot.type: self.snapshot,
            Timestamp.type: self.timestamp,
        }
        return top.get(name) or self.role(name)

    def delegator(self, name: str) -> Root | Targets:
        """Give the role that names the keys of the targets role ``name``."""
        if name == Targets.type:
            return self.root
        for product in self.products:
            if name.startswith(bins_prefix(product)) and name in self.bins(product):
                return self.role(product)
        return self.role(Targets.type)

    def bins(self, product: str) -> tuple[str, ...]:
        """Name the hash bins of a product; none while its own role lists the manifests."""
        delegations = self.role(product).delegations
        if delegations is None or delegations.succinct_roles is None:
            return ()
        return tuple(delegations.succinct_roles.get_roles())

    def names(self) -> Iterator[str]:
        """Name every role."""
        yield from (Root.type, Timestamp.type, Snapshot.type, Targets.type)
        yield from self.delegated
        for product in self.products:
            yield from self.bins(product)

    def product(self, name: str) -> str:
        """Give ``name`` back if it is a product.

        Raises:
            Misconfigured: there is none.

        """
        if name not in self.products:
            msg = f"The repository has no product {name!r}."
            raise Misconfigured(msg, hint=f"It has {', '.join(self.products) or 'none yet'}.")
        return name

    def role_for(self, path: str) -> str:
        """Name the role that signs a target path.

        Raises:
            Misconfigured: there can be no such path, or no such product.

        """
        product, _, name = path.partition("/")
        self.product(product)
        if path == channels_path(product):
            return channels_role(product)
        if path == floor_path(product):
            return product
        if not name.endswith(MANIFEST_SUFFIX) or "/" in name:
            msg = f"{path!r} is no path that a product's roles may sign."
            raise Misconfigured(msg)
        delegations = self.role(product).delegations
        bins = delegations.succinct_roles if delegations else None
        return bins.get_role_for_target(path) if bins else product


def _foreign() -> Misconfigured:
    msg = "The targets role does not delegate to products."
    return Misconfigured(msg, hint="Another tool made this repository; instar cannot publish to it.")


def _nothing_stored(key: str, limit: int) -> bytes:  # noqa: ARG001  # the shape of Fetch
    msg = f"There is no {key}."
    raise NotFound(msg)
