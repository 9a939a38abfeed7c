import hdiffpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.content._zstd import zstd
from instar.content.codecs import (
    apply_patch,
    available_codecs,
    diff_bound,
    expand_frame,
    expand_with_prefix,
)
from instar.content.packs import compress_frame, skippable
from instar.content.patches import Effort, encode_patch
from instar.errors import Untrusted
from instar.model.manifest import Codec
from tests.support.releases_on_disk import some_bytes, some_text

OLD = some_text("old", 50_000)
NEW = OLD[:20_000] + b"something else" + OLD[20_000:45_000]


def test_a_frame_gives_what_was_put_in() -> None:
    assert expand_frame(compress_frame(NEW, 3), len(NEW)) == NEW
    assert expand_frame(compress_frame(b"", 3), 0) == b""


def test_both_codecs_are_here_in_the_development_environment() -> None:
    assert available_codecs() == frozenset(Codec)


@pytest.mark.parametrize("effort", Effort)
@given(st.binary(max_size=300), st.binary(min_size=1, max_size=300))
def test_a_patch_makes_the_new_from_the_old_whatever_they_are(effort: Effort, old: bytes, new: bytes) -> None:
    patch = encode_patch(old, new, effort)
    assert patch is not None
    assert apply_patch(patch.codec, old, patch.data, len(new)) == new


def test_fast_patches_need_no_codec_that_a_device_could_lack() -> None:
    patch = encode_patch(OLD, NEW, Effort.FAST)
    assert patch is not None
    assert patch.codec is Codec.ZSTD_PREFIX
    assert len(patch.data) < 200


def test_a_frame_that_holds_more_than_was_signed_is_refused() -> None:
    with pytest.raises(Untrusted, match="51 bytes where 50"):
        expand_frame(compress_frame(bytes(51), 3), 50)


def test_a_frame_that_holds_less_than_was_signed_is_refused() -> None:
    with pytest.raises(Untrusted):
        expand_frame(compress_frame(bytes(49), 3), 50)


def test_a_frame_with_another_behind_it_is_refused() -> None:
    with pytest.raises(Untrusted, match="something behind it"):
        expand_frame(compress_frame(bytes(50), 3) * 2, 50)


def test_a_frame_that_does_not_say_its_size_is_refused() -> None:
    compressor = zstd.ZstdCompressor()
    frame = compressor.compress(bytes(50)) + compressor.flush()
    with pytest.raises(Untrusted, match="how large"):
        expand_frame(frame, 50)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"no frame at all",
        compress_frame(OLD, 3)[:-5],
        compress_frame(OLD, 3)[:6],
        skippable(OLD),
    ],
    ids=["empty", "text", "cut at its end", "cut in its header", "skippable"],
)
def test_what_is_no_whole_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(Untrusted):
        expand_frame(frame, len(OLD))


def test_a_frame_whose_header_lies_about_its_size_is_refused() -> None:
    frame = bytearray(compress_frame(OLD, 3))
    # The four bytes behind magic and descriptor are the content's size, less 256 (RFC 8878, 3.1.1.1.4).
    at = frame.index((len(OLD) - 256).to_bytes(2, "little"))
    frame[at : at + 2] = (40_000 - 256).to_bytes(2, "little")
    with pytest.raises(Untrusted):
        expand_frame(bytes(frame), 40_000)


def test_a_flipped_bit_never_gives_other_content_unnoticed_by_size() -> None:
    frame = bytearray(compress_frame(some_bytes("x", 1000), 3))
    frame[-1] ^= 1
    assert len(expand_frame(bytes(frame), 1000)) == 1000  # content is judged by digests, elsewhere


def test_a_prefix_too_short_for_a_dictionary_is_left_out() -> None:
    assert expand_with_prefix(compress_frame(NEW, 3), b"short", len(NEW)) == NEW


def test_a_prefix_patch_applied_to_something_else_makes_no_other_size() -> None:
    patch = encode_patch(OLD, NEW, Effort.FAST)
    assert patch is not None
    with pytest.raises(Untrusted):
        apply_patch(patch.codec, OLD[:1000], patch.data, len(NEW))


def hdiff(old: bytes, new: bytes) -> bytes:
    return compress_frame(hdiffpatch.diff(old, new, validate=False), 3)


def test_a_difference_is_applied() -> None:
    assert apply_patch(Codec.HDIFF, OLD, hdiff(OLD, NEW), len(NEW)) == NEW


def test_a_difference_that_makes_more_than_was_signed_is_refused_before_it_is_applied() -> None:
    with pytest.raises(Untrusted, match="does not fit"):
        apply_patch(Codec.HDIFF, OLD, hdiff(OLD, NEW), len(NEW) - 1)


def test_a_difference_for_a_longer_base_is_refused_before_it_is_applied() -> None:
    with pytest.raises(Untrusted, match="does not fit"):
        apply_patch(Codec.HDIFF, OLD[:-1], hdiff(OLD, NEW), len(NEW))


def test_a_difference_that_decompresses_to_a_bomb_is_refused_by_its_header() -> None:
    bomb = compress_frame(bytes(diff_bound(1000) + 1), 3)
    with pytest.raises(Untrusted, match="larger than what it makes"):
        apply_patch(Codec.HDIFF, OLD, bomb, 1000)


@pytest.mark.parametrize("diff", [b"", b"HDIFF13&\x00", b"HDIFF13&\x00" + b"\xff" * 40, b"HDIFF13&zstd\x00ab"])
def test_what_is_no_difference_is_refused(diff: bytes) -> None:
    with pytest.raises(Untrusted):
        apply_patch(Codec.HDIFF, OLD, compress_frame(diff, 3), len(NEW))


def test_a_difference_cut_short_is_refused() -> None:
    diff = hdiffpatch.diff(OLD, NEW, validate=False)
    with pytest.raises(Untrusted):
        apply_patch(Codec.HDIFF, OLD, compress_frame(diff[:-10], 3), len(NEW))
