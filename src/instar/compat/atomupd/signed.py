"""Signed answers, the device's half: only what its root of trust vouches for counts.

Each file of the tree is a TUF target; the tree carries its metadata in ``metadata/``. The answers themselves stay where
they are, so that devices that know nothing of signatures go on reading them.
"""

from __future__ import annotations

from typing import Final

from instar.compat.atomupd.device import Server
from instar.errors import Misconfigured, NotFound, Unavailable
from instar.model.digest import Digest
from instar.trust import TrustedMetadata

__all__ = ["PRODUCT", "SignedServer", "target_of"]

PRODUCT: Final = "answers"
"""Under which name a tree is signed."""


def target_of(path: str) -> str:
    """Give the target path of a file of the tree. A comma stands for each slash: names in the tree have none."""
    return f"{PRODUCT}/{path.replace('/', ',')}.manifest"


class SignedServer:
    """A server whose answers count only when the metadata vouches for them. It stands around another server.

    Raises:
        Expired, Untrusted, Unavailable: the metadata cannot be believed, or not be had.

    """

    def __init__(self, server: Server, metadata: TrustedMetadata) -> None:
        self._server = server
        self._metadata = metadata
        metadata.refresh()

    def read(self, path: str) -> bytes:
        """Read an answer, and check it.

        Raises:
            NotFound: the metadata does not know it.
            Unavailable: what is there is another, or nothing: it is being replaced, or was tampered with.

        """
        target = self._metadata.target(target_of(path))
        if target is None:
            msg = f"The signed metadata knows no {path}."
            raise NotFound(msg)
        try:
            data = self._server.read(path)
        except NotFound as error:
            # Not "there is none": whoever hides the exact answer would have the device follow its fallback.
            msg = f"{path} was signed, but the server does not give it: {error.message}"
            raise Unavailable(msg, hint="Try again. If that lasts, tell the publisher.") from error
        if len(data) != target.size or Digest.of(data) != target.digest:
            msg = f"{path} is not what was signed."
            raise Unavailable(msg, hint="It may just be replaced: try again. If that lasts, tell the publisher.")
        return data

    def ask(self, query: str) -> bytes:
        """Refuse: an answer that is made for each question cannot be signed with a key that is kept away.

        Raises:
            Misconfigured: always.

        """
        msg = f"Answers to queries are not signed ({query[:40]!r}…)."
        raise Misconfigured(msg, hint="Set MetaUrl in the client's configuration, in place of QueryUrl.")
