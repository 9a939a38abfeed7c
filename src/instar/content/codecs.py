"""Decompressing frames and applying patches, with a bound on everything before memory is asked for.

What comes in has been verified against a signed digest. It is still not believed: the owner's key may be stolen, and a
frame that decompresses to more than was signed must cost nothing.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final, cast

from instar.content._zstd import zstd
from instar.errors import Untrusted
from instar.model.manifest import Codec

if TYPE_CHECKING:
    Dictionary = zstd.ZstdDict | tuple[zstd.ZstdDict, int]

__all__ = ["SHORTEST_PREFIX", "apply_patch", "available_codecs", "diff_bound", "expand_frame", "expand_with_prefix"]

# log2 of the largest window that a frame may ask for: 256 MiB, what the largest base of a patch needs and as much
# again. The window is not allocated here (the whole output is at hand), but what claims more is broken.
_WINDOW_LOG: Final = 29

SHORTEST_PREFIX: Final = 8
"""Bytes below which Zstandard takes no dictionary: such a prefix is left out by both sides."""

# A difference in HDiffPatch's own format, not compressed by it; the sizes of new and old content follow as numbers.
_HDIFF_MAGIC: Final = b"HDIFF13&\x00"


def available_codecs() -> frozenset[Codec]:
    """Give the codecs that this machine can decode. Zstandard is always there, HDiffPatch if it is installed."""
    if importlib.util.find_spec("hdiffpatch") is None:
        return frozenset({Codec.ZSTD_PREFIX})
    return frozenset(Codec)


def expand_frame(frame: bytes, size: int) -> bytes:
    """Decompress one Zstandard frame that makes exactly ``size`` bytes, and says so in its header.

    Raises:
        Untrusted: it is anything else.

    """
    _check_frame(frame, size)
    return _decompress(frame, size, None)


def expand_with_prefix(frame: bytes, prefix: bytes, size: int) -> bytes:
    """Decompress one Zstandard frame made with ``prefix`` as raw prefix into exactly ``size`` bytes.

    Raises:
        Untrusted: it is anything else.

    """
    _check_frame(frame, size)
    dictionary = zstd.ZstdDict(prefix, is_raw=True).as_prefix if len(prefix) >= SHORTEST_PREFIX else None
    return _decompress(frame, size, dictionary)


def apply_patch(codec: Codec, base: bytes, patch: bytes, length: int) -> bytes:
    """Make ``length`` bytes from ``base``.

    Raises:
        Untrusted: the patch does not make them.

    """
    match codec:
        case Codec.ZSTD_PREFIX:
            return expand_with_prefix(patch, base, length)
        case Codec.HDIFF:
            return _apply_hdiff(base, patch, length)


def diff_bound(length: int) -> int:
    """Give the most bytes that a difference (before compression) may have which makes ``length`` bytes."""
    # All of the new content as it is, and the list of what is copied: some bytes for each match. Measured: never more
    # than the new content and 4 KiB, so twice that is out of the question.
    return 2 * length + (64 << 10)


def _apply_hdiff(base: bytes, patch: bytes, length: int) -> bytes:
    # Imported here: a device without it plans without these patches, and starts without loading it.
    import hdiffpatch  # noqa: PLC0415

    size = _declared_size(patch)
    if size > diff_bound(length):
        msg = "A patch is larger than what it makes."
        raise Untrusted(msg, hint=_HINT)
    diff = expand_frame(patch, size)
    # The output's size is read before HDiffPatch allocates it.
    if not diff.startswith(_HDIFF_MAGIC) or _hdiff_sizes(diff) != (length, len(base)):
        msg = "A patch does not fit what it is to be applied to."
        raise Untrusted(msg, hint=_HINT)
    try:
        made = hdiffpatch.apply(base, diff)
    except hdiffpatch.HDiffPatchError as error:
        msg = f"A patch cannot be applied: {error}."
        raise Untrusted(msg, hint=_HINT) from error
    return bytes(made)


def _hdiff_sizes(diff: bytes) -> tuple[int, int]:
    sizes = []
    at = len(_HDIFF_MAGIC)
    for _ in range(2):
        # Seven bits a byte, the highest first; the eighth says that more follow. 9 bytes hold any size there is.
        value = 0
        for byte in diff[at : at + 9]:
            at += 1
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        sizes.append(value)
    return sizes[0], sizes[1]


_HINT: Final = "Nothing was changed; tell the publisher."


def _declared_size(frame: bytes) -> int:
    try:
        # The stubs do not know that a frame may keep its size to itself.
        size = cast("int | None", zstd.get_frame_info(frame).decompressed_size)
    except zstd.ZstdError as error:
        msg = "What should be compressed data is not."
        raise Untrusted(msg, hint=_HINT) from error
    if size is None:
        msg = "A compressed frame does not say how large its content is."
        raise Untrusted(msg, hint=_HINT)
    return size


def _check_frame(frame: bytes, size: int) -> None:
    declared = _declared_size(frame)
    try:
        whole = zstd.get_frame_size(frame)
    except zstd.ZstdError as error:
        msg = "A compressed frame ends too early."
        raise Untrusted(msg, hint=_HINT) from error
    # A second frame would be decompressed, too.
    if whole != len(frame):
        msg = "A compressed frame has something behind it."
        raise Untrusted(msg, hint=_HINT)
    if declared != size:
        msg = f"A compressed frame holds {declared} bytes where {size} were promised."
        raise Untrusted(msg, hint=_HINT)


def _decompress(frame: bytes, size: int, dictionary: Dictionary | None) -> bytes:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    try:
        # The frame's header promises `size`; Zstandard itself stops at what a header promises.
        content = zstd.decompress(frame, zstd_dict=dictionary, options=options)
    except zstd.ZstdError as error:
        msg = f"A compressed frame is damaged: {error}."
        raise Untrusted(msg, hint=_HINT) from error
    if len(content) != size:
        msg = f"A compressed frame holds {len(content)} bytes where {size} were promised."
        raise Untrusted(msg, hint=_HINT)
    return content
