"""One promise: *the machine runs either the old or the new, whole, whatever dies when*.

Knows nothing of networks or signatures: it is handed a complete, verified tree.
"""

from instar.install.installation import Installation
from instar.install.outcomes import Action, Started, StartReason, Status, Switched
from instar.install.record import Confirmation, Layout, Record
from instar.install.state import Failure, Installed, Phase

__all__ = [
    "Action",
    "Confirmation",
    "Failure",
    "Installation",
    "Installed",
    "Layout",
    "Phase",
    "Record",
    "StartReason",
    "Started",
    "Status",
    "Switched",
]
