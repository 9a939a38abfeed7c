"""``record.json``: what an installation is and how it wants to be treated. Changes only when a person changes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from instar.install.formats import check_format, check_keys
from instar.model._json import text, texts
from instar.model.keep import Keep
from instar.model.names import Name, ProductName, TreePath

__all__ = ["FORMAT", "MAX_JSON", "Confirmation", "Layout", "Record"]

FORMAT: Final = "instar-record-1"
# Bytes. A few addresses, patterns and names; anything longer is not one of ours.
MAX_JSON: Final = 1 << 20
_DAY: Final = 86_400.0


class Layout(StrEnum):
    """Where the app's tree is. The values are written to the disk."""

    VERSIONED = "versioned"
    """``DIR/current`` leads to ``DIR/versions/<version>-<digest>``."""
    IN_PLACE = "in-place"
    """``DIR`` itself is the tree; what else is needed is beside it in ``.<name>.instar``."""


class Confirmation(StrEnum):
    """Who says that a new release works. The values are written to the disk."""

    BY_APP = "app"
    """The app calls ``confirm``; until then the release is pending and rolled back after too many starts."""
    BY_HEALTH = "health"
    """The health command, before the switch; nothing is waited for after it."""


@dataclass(frozen=True, slots=True)
class Record:
    """What an installation is.

    ``keep`` are the patterns of files that are the user's; ``health`` is the command, its first word a path in the
    tree, that must end with code 0 within ``health_timeout`` seconds before a release is selected. A pending release
    is rolled back when it was started ``max_starts`` times without being confirmed, or is started again later than
    ``deadline`` seconds after its first start. ``device_id`` is what rollouts draw by. ``facts`` are this device's own.

    Raises:
        ValueError: something in it cannot be.

    """

    product: ProductName
    platform: Name
    urls: tuple[str, ...]
    channel: Name
    layout: Layout = Layout.VERSIONED
    keep: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    health_timeout: float = 60.0
    max_starts: int = 3
    deadline: float | None = None
    confirmation: Confirmation = Confirmation.BY_APP
    device_id: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.urls:
            msg = "an installation has at least one address to ask"
            raise ValueError(msg)
        Keep(self.keep)
        if self.health:
            TreePath(self.health[0])
        if any("\0" in word for word in self.health):
            msg = "a command cannot hold a NUL character"
            raise ValueError(msg)
        if not (math.isfinite(self.health_timeout) and 0 < self.health_timeout <= _DAY):
            msg = f"the health command's time is more than 0 and at most {_DAY:.0f} seconds, not {self.health_timeout}"
            raise ValueError(msg)
        if self.max_starts < 1:
            msg = f"a new release needs at least one start to prove itself, not {self.max_starts}"
            raise ValueError(msg)
        if self.deadline is not None and not (math.isfinite(self.deadline) and self.deadline > 0):
            msg = f"the deadline to confirm is a number of seconds above 0, not {self.deadline}"
            raise ValueError(msg)
        if self.confirmation is Confirmation.BY_HEALTH and not self.health:
            msg = "confirming by health command needs a health command"
            raise ValueError(msg)

    @property
    def kept(self) -> Keep:
        """The patterns of ``keep`` as one value that matches paths."""
        return Keep(self.keep)

    def to_json(self) -> bytes:
        """Write it, indented for people."""
        document = {
            "format": FORMAT,
            "product": self.product,
            "platform": self.platform,
            "urls": list(self.urls),
            "channel": self.channel,
            "layout": str(self.layout),
            "keep": list(self.keep),
            "health": list(self.health),
            "health_timeout": self.health_timeout,
            "max_starts": self.max_starts,
            "deadline": self.deadline,
            "confirmation": str(self.confirmation),
            "device_id": self.device_id,
            "facts": dict(self.facts),
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """Read and check it.

        Raises:
            ValueError: it is no record, or contradicts itself.
            Misconfigured: a newer instar wrote it.

        """
        keys = ("product", "platform", "urls", "channel", "layout")
        try:
            row: Mapping[str, Any] = check_keys(check_format(json.loads(data), FORMAT), keys)
            deadline = row.get("deadline")
            return cls(
                product=ProductName(row["product"]),
                platform=Name(row["platform"]),
                urls=texts(row["urls"]),
                channel=Name(row["channel"]),
                layout=Layout(row["layout"]),
                keep=texts(row.get("keep", [])),
                health=texts(row.get("health", [])),
                health_timeout=float(row.get("health_timeout", 60.0)),
                max_starts=int(row.get("max_starts", 3)),
                deadline=None if deadline is None else float(deadline),
                confirmation=Confirmation(row.get("confirmation", Confirmation.BY_APP)),
                device_id=text(row.get("device_id", "")),
                facts={text(k): text(v) for k, v in row.get("facts", {}).items()},
            )
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            msg = f"the installation's record is malformed: {error}"
            raise ValueError(msg) from error
