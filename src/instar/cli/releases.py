"""How releases are reported: in words for people, as documents for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from instar.cli import output
from instar.cli.output import human_size

if TYPE_CHECKING:
    from instar.publish import Change, ReleaseDetails, Report
    from instar.publish.channels import Offered

__all__ = ["describe_offer", "details_document", "report_changes", "say_details", "say_verification"]


def describe_offer(offered: Offered) -> str:
    """Describe in a line how a channel offers a release."""
    entry = offered.entry
    text = f"{offered.channel} {round(offered.percent, 2):g} %"
    if offered.state == "ramping":
        text += f" of {entry.percent:g} %"
    if offered.state in {"halted", "yanked"}:
        text = f"{offered.channel} {offered.state}" + (f" at {round(offered.percent, 2):g} %" if entry.halted else "")
    if entry.introduces:
        text += f", checkpoint {entry.introduces}"
    elif entry.requires:
        text += f", after checkpoint {entry.requires}"
    for fact, values in sorted(entry.conditions.items()):
        text += f", {fact}={','.join(sorted(values))}"
    return text


def report_changes(verb: str, changes: Sequence[Change], *, as_json: bool) -> None:
    """Print what became of a release's entries."""
    output.report(
        [
            {"version": str(change.offered.entry.version), "platform": change.platform, **change.offered.to_document()}
            for change in changes
        ],
        as_json=as_json,
        human=lambda: output.say(
            "\n".join(
                f"{verb} {change.offered.entry.version} for {change.platform}: {describe_offer(change.offered)}"
                for change in changes
            )
        ),
    )


def details_document(details: ReleaseDetails) -> dict[str, Any]:
    """Write a release's details for programs."""
    return {
        "platform": details.row.platform,
        "channels": [offered.to_document() for offered in details.row.offered],
        "size": details.size,
        "files": details.files,
        "tree_digest": details.tree_digest.hex,
        "first_install": details.download,
        "manifest": details.manifest,
        "patches": {codec: {"count": count, "size": size} for codec, (count, size) in sorted(details.patches.items())},
        "notes": details.notes,
        "meta": dict(details.meta),
    }


def say_details(found: Sequence[ReleaseDetails]) -> None:
    """Print a release, as it is on each platform."""
    for details in found:
        _say_details(details)


def _say_details(details: ReleaseDetails) -> None:
    row = details.row
    output.say(f"{row.version} for {row.platform}")
    rows = [
        ("offered", "\n".join(map(describe_offer, row.offered)) or "in no channel any more"),
        ("installed", f"{human_size(details.size)} in {details.files} files"),
        ("first install", human_size(details.download)),
        ("manifest", human_size(details.manifest)),
    ]
    rows += [
        (f"patches, {codec}", f"{count}, {human_size(size)}")
        for codec, (count, size) in sorted(details.patches.items())
    ]
    rows += [(f"meta {key}", value) for key, value in sorted(details.meta.items())]
    output.table(("", ""), rows)
    if details.notes:
        output.say(details.notes.rstrip())


def say_verification(report: Report) -> None:
    """Print what was checked, and everything that is wrong."""
    for problem in report.problems:
        output.say(f"WRONG {problem.where}: {problem.what}")
    output.say(
        f"Checked {report.releases} releases: {report.packs} packs of {human_size(report.size)}, "
        f"{report.frames} frames, {report.files} files, {report.patches} patches, "
        f"{report.deltas} differences between manifests."
    )
    if report.unchecked:
        output.say(f"{report.unchecked} patches or differences start from releases that are no longer here.")
    output.say(f"{len(report.problems)} problems." if report.problems else "Everything is as it was signed.")
