import hashlib

import pytest

from instar.model.digest import Digest
from instar.model.version import Version


def test_a_digest_reads_what_it_writes() -> None:
    digest = Digest.of(b"x")
    assert digest.hex == hashlib.sha256(b"x").hexdigest()
    assert Digest.parse(str(digest)) == digest
    assert digest.short == digest.hex[:12]


@pytest.mark.parametrize("text", ["", "00", "A" * 64, "g" * 64, "0" * 63, "0" * 66])
def test_a_digest_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match="not a SHA-256"):
        Digest.parse(text)


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Digest(b"short")


def test_versions_are_ordered_as_pep_440_orders_them() -> None:
    texts = ["1.0.dev1", "1.0a1", "1.0rc1", "1.0", "1.0.post1", "1.10", "2"]
    assert [str(v) for v in sorted(Version(t) for t in reversed(texts))] == texts


def test_equal_versions_have_one_spelling_and_one_hash() -> None:
    assert Version("1.0.0-RC1") == Version("1.0.0rc1")
    assert len({Version("1.0"), Version("1.0.0")}) == 1
    assert str(Version("v1.2.0-beta.3")) == "1.2.0b3"


def test_a_version_is_no_text() -> None:
    assert Version("1.0") != "1.0"
    with pytest.raises(TypeError):
        assert Version("1.0") < "2.0"


@pytest.mark.parametrize("text", ["", "one", "1.0-", "../1", "1" * 65])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="version"):
        Version(text)


def test_a_prerelease_says_so() -> None:
    assert Version("1.0b1").is_prerelease
    assert not Version("1.0").is_prerelease
