from datetime import UTC, datetime

import pytest

from instar.errors import Misconfigured, Unavailable
from instar.testing.repository import TwinRepository, make_key
from instar.trust.ceremony import add_signature, first_files, missing_signatures
from instar.trust.roles import Authority, RoleSet

NOW = datetime.now(UTC)


def test_the_first_files_are_a_whole_repository() -> None:
    owner, online = make_key(), make_key()
    files = dict(first_files(["one", "two"], owner=[owner], online=[online], now=NOW))
    assert list(files)[-1] == "metadata/timestamp.json"

    def fetch(key: str, limit: int) -> bytes:
        return TwinRepository().fetch("metadata/9.none.json", limit) if key not in files else files[key]

    assert RoleSet.load(fetch, root=files["metadata/1.root.json"]).products == ("one", "two")


def test_one_key_cannot_be_both_authorities() -> None:
    key = make_key()
    with pytest.raises(Misconfigured, match="both"):
        first_files([], owner=[key], online=[key], now=NOW)


def test_a_root_travels_from_owner_to_owner_until_it_is_complete() -> None:
    twin = TwinRepository()
    second = make_key()
    roles = twin.load()
    roles.set_keys(Authority.OWNER, [twin.owner.public_key, second.public_key], threshold=2)
    complete = dict(roles.changes(NOW, [twin.owner, second, twin.online]))["metadata/2.root.json"]
    assert missing_signatures(complete, previous=twin.root) == 0
    unsigned = _without_signatures(complete)
    assert missing_signatures(unsigned, previous=twin.root) == 2
    once = add_signature(unsigned, twin.owner)
    assert missing_signatures(once, previous=twin.root) == 1
    twice = add_signature(once, second)
    assert missing_signatures(twice, previous=twin.root) == 0
    assert missing_signatures(add_signature(once, make_key()), previous=twin.root) == 1
    assert missing_signatures(twin.root, previous=None) == 0


def _without_signatures(root: bytes) -> bytes:
    from tuf.api.metadata import Metadata

    metadata = Metadata.from_bytes(root)
    metadata.signatures.clear()
    return metadata.to_bytes()


def test_roots_that_do_not_follow_each_other_are_refused() -> None:
    twin = TwinRepository()
    with pytest.raises(Misconfigured, match="belong together"):
        missing_signatures(twin.root, previous=twin.root)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff"])
def test_what_is_no_root_is_not_signed(data: bytes) -> None:
    with pytest.raises(Misconfigured):
        add_signature(data, make_key())


def test_another_role_is_not_signed_as_a_root() -> None:
    twin = TwinRepository()
    with pytest.raises(Misconfigured, match="targets metadata"):
        add_signature(twin.fetch("metadata/1.targets.json", 10_000), twin.owner)


def test_a_key_that_fails_is_unavailable() -> None:
    twin = TwinRepository()

    class Broken(type(twin.online)):  # type: ignore[misc]
        def sign(self, payload: bytes) -> object:
            raise ConnectionError(str(len(payload)))

    with pytest.raises(Unavailable, match="did not sign"):
        add_signature(twin.root, Broken(twin.owner._private_key))
