import pytest

from instar.content.manifests import compress_manifest, expand_delta, expand_manifest, make_delta, parse_manifest
from instar.errors import Untrusted
from instar.model.digest import Digest
from instar.model.manifest import MAX_JSON
from tests.support.releases_on_disk import some_text

OLD = some_text("old", 100_000)
NEW = OLD[:30_000] + b"changed" + OLD[30_000:]


def test_a_manifest_travels_compressed() -> None:
    frame = compress_manifest(NEW)
    assert len(frame) < len(NEW)
    assert expand_manifest(frame, digest=Digest.of(NEW), size=len(NEW)) == NEW


def test_a_manifest_travels_as_the_difference_from_an_older_one() -> None:
    delta = make_delta(OLD, NEW)
    assert len(delta) < 200
    assert expand_delta(OLD, delta, digest=Digest.of(NEW), size=len(NEW)) == NEW


def test_an_older_manifest_may_be_as_good_as_empty() -> None:
    assert expand_delta(b"{}", make_delta(b"{}", NEW), digest=Digest.of(NEW), size=len(NEW)) == NEW


def test_another_manifest_than_the_signed_one_is_refused() -> None:
    with pytest.raises(Untrusted, match="not the one that was signed"):
        expand_manifest(compress_manifest(OLD), digest=Digest.of(NEW), size=len(OLD))
    with pytest.raises(Untrusted):
        expand_delta(OLD[1:] + b"x", make_delta(OLD, NEW), digest=Digest.of(NEW), size=len(NEW))


def test_a_manifest_of_another_size_than_the_signed_one_is_refused_without_decompressing_it() -> None:
    with pytest.raises(Untrusted):
        expand_manifest(compress_manifest(bytes(1 << 20)), digest=Digest.of(bytes(1 << 20)), size=1 << 19)


@pytest.mark.parametrize("size", [0, -1, MAX_JSON + 1])
def test_a_size_that_no_manifest_has_is_refused(size: int) -> None:
    with pytest.raises(Untrusted, match="larger than any"):
        expand_manifest(b"", digest=Digest.of(b""), size=size)
    with pytest.raises(Untrusted, match="larger than any"):
        expand_delta(OLD, b"", digest=Digest.of(b""), size=size)


def test_signed_nonsense_is_untrusted() -> None:
    with pytest.raises(Untrusted, match="cannot be used"):
        parse_manifest(b"{}")
