"""PyInstaller hook: what static analysis does not see, and what must not come along."""

from PyInstaller.utils.hooks import can_import_module, collect_submodules

# The public names are imported lazily, and one file per platform is chosen at run time.
hiddenimports = [
    *collect_submodules("instar.client"),
    *collect_submodules("instar.install"),
    *collect_submodules("instar.storage"),
    "instar.errors",
    "instar.content.rebuild",
]
# The smallest patches, where the app's environment has the extra `hdiff`.
if can_import_module("hdiffpatch"):
    hiddenimports.append("hdiffpatch")

# The publisher's half, and what only it needs.
excludedimports = [
    "instar.publish",
    "instar.cli",
    "instar.server",
    "instar.testing",
    "numpy",
    "pyfastcdc",
    "typer",
    "rich",
]
