"""The publisher's half: projects, releases, rollouts, upkeep. Needs the ``publish`` extra; never on a device.

Every operation is a function on a :class:`Project`, prints nothing, asks nobody, and is all or nothing: killed
anywhere, clients see the old repository or the new one.
"""

from instar.publish.channels import Offer
from instar.publish.founding import found_project
from instar.publish.listing import Listing, ReleaseDetails, list_releases, show_release
from instar.publish.offering import Change, Where, halt, promote, resume, rollout, set_floor, yank
from instar.publish.project import Project, open_project
from instar.publish.pruning import Pruned, prune
from instar.publish.releasing import Released, Wanted, release
from instar.publish.settings import Effort, Settings
from instar.publish.upkeep import Refreshed, refresh, rotate
from instar.publish.verifying import Report, verify_repository

__all__ = [
    "Change",
    "Effort",
    "Listing",
    "Offer",
    "Project",
    "Pruned",
    "Refreshed",
    "ReleaseDetails",
    "Released",
    "Report",
    "Settings",
    "Wanted",
    "Where",
    "found_project",
    "halt",
    "list_releases",
    "open_project",
    "promote",
    "prune",
    "refresh",
    "release",
    "resume",
    "rollout",
    "rotate",
    "set_floor",
    "show_release",
    "verify_repository",
    "yank",
]
