"""What one publication does with the disk that it works on."""

import errno
from pathlib import Path

import pytest

from instar.errors import InstarError, Misconfigured, Unavailable
from instar.publish.session import local_disk


@pytest.mark.parametrize(
    ("number", "family"),
    [
        (errno.EACCES, Misconfigured),
        (errno.EPERM, Misconfigured),
        (errno.EROFS, Misconfigured),
        (errno.ENOSPC, Unavailable),
        (errno.EIO, Unavailable),
    ],
)
def test_what_a_person_must_change_is_told_from_what_passes(number: int, family: type[InstarError]) -> None:
    with pytest.raises(family, match="work cannot be worked in"), local_disk(Path("work")):
        raise OSError(number, "why")
