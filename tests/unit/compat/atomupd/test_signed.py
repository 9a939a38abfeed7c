"""Signed answers: a device believes what its root of trust vouches for, and nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from instar.compat.atomupd.device import query_update
from instar.compat.atomupd.image import Image
from instar.compat.atomupd.settings import ServerSettings
from instar.compat.atomupd.signed import SignedServer
from instar.compat.atomupd.signing import ROOT, sign_tree
from instar.compat.atomupd.tree import generate
from instar.errors import Expired, Misconfigured, NotFound, Unavailable, Untrusted
from instar.storage import LocalStorage
from instar.testing.clock import FakeClock
from instar.trust import TrustedMetadata
from instar.trust.keys import Signer, create_unencrypted_key
from tests.support.atomupd_pools import add_image, fields_of, make_pool, write_settings

# The library underneath judges by the machine's own clock where that is later.
NOW = datetime.now(UTC).replace(microsecond=0)
OWN = "3.6 20240104.1 stable"
FOLDER = "holo/steamos/amd64/steamdeck"


class Publisher:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.keys: list[Signer] = [create_unencrypted_key(folder / f"{name}.pem") for name in ("owner", "online")]
        make_pool(folder / "pool", [OWN, "3.7 20240115.1 stable"])

    def publish(self, now: datetime = NOW) -> int:
        settings = ServerSettings.read(write_settings(self.folder / "s.conf", self.folder / "pool", branches="stable"))
        done = generate(settings, self.tree, size_of=lambda _old, _new: 0)
        return sign_tree(self.tree, done.paths, owner=self.keys[:1], online=self.keys[1:], now=now)


class FromTree:
    def __init__(self, tree: Path) -> None:
        self.storage = LocalStorage(tree)

    def read(self, path: str) -> bytes:
        return self.storage.read(path, limit=1 << 20)

    ask = read


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path)
    made.publish()
    return made


def device(publisher: Publisher, now: datetime = NOW, root: bytes | None = None) -> SignedServer:
    storage = LocalStorage(publisher.tree)
    metadata = TrustedMetadata(
        publisher.folder / "trust",
        root=root or (publisher.tree / ROOT).read_bytes(),
        fetch=lambda key, limit: storage.read(key, limit=limit),
        clock=FakeClock(now),
    )
    return SignedServer(FromTree(publisher.tree), metadata)


def builds(server: SignedServer) -> list[str]:
    return [str(step.image.buildid) for step in query_update(server, Image.parse(fields_of(OWN)[0])[0]).steps]


def test_a_signed_answer_is_believed_and_a_new_one_too(publisher: Publisher) -> None:
    assert builds(device(publisher)) == ["20240115.1"]
    assert publisher.publish() == 0
    add_image(publisher.folder / "pool", "3.8 20240116.1 stable")
    assert publisher.publish(NOW + timedelta(hours=1)) == 5
    assert builds(device(publisher, NOW + timedelta(hours=1))) == ["20240116.1"]


def test_an_unknown_build_gets_the_signed_fallback(publisher: Publisher) -> None:
    found = query_update(device(publisher), Image.parse(fields_of("3.5 20230101.1 stable")[0])[0])
    assert len(found.steps) == 1


def test_what_was_changed_after_it_was_signed_is_not_believed(publisher: Publisher) -> None:
    answer = publisher.tree / f"{FOLDER}/stable/3.6.0/20240104.1.json"
    answer.write_bytes(answer.read_bytes().replace(b"20240115.1", b"20240115.9"))
    with pytest.raises(Unavailable, match="not what was signed"):
        builds(device(publisher))


def test_a_server_cannot_hide_a_signed_answer_and_have_the_fallback_believed(publisher: Publisher) -> None:
    (publisher.tree / f"{FOLDER}/stable/3.6.0/20240104.1.json").unlink()
    with pytest.raises(Unavailable, match="was signed, but") as caught:
        builds(device(publisher))
    assert not isinstance(caught.value, NotFound)


def test_what_was_never_signed_is_not_there(publisher: Publisher) -> None:
    added = publisher.tree / f"{FOLDER}/stable/3.5.0/20230101.1.json"
    added.parent.mkdir()
    added.write_text("{}")
    with pytest.raises(NotFound, match="knows no"):
        device(publisher).read(f"{FOLDER}/stable/3.5.0/20230101.1.json")


def test_other_keys_and_old_metadata_are_not_believed(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Publisher(tmp_path / "other")
    other.publish()
    with pytest.raises(Untrusted):
        device(publisher, root=(other.tree / ROOT).read_bytes())
    with pytest.raises(Expired):
        device(publisher, NOW + timedelta(days=400))


def test_a_later_run_signs_again_what_expires(publisher: Publisher) -> None:
    later = NOW + timedelta(days=6)
    assert publisher.publish(later) == 0
    assert builds(device(publisher, later + timedelta(days=5))) == ["20240115.1"]


def test_queries_are_not_signed(publisher: Publisher) -> None:
    with pytest.raises(Misconfigured, match="not signed"):
        device(publisher).ask("product=x")
