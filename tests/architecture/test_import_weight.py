"""What an app pays for importing instar, in a fresh interpreter: the linter does not see what `__init__` pulls in."""

import json
import subprocess
import sys

import pytest

# Top-level packages that an app which embeds the client must never load by importing it.
HEAVY = {
    "numpy",
    "pyfastcdc",
    "hdiffpatch",  # a capability: loaded when a patch of its kind is applied
    "typer",
    "click",
    "rich",
    "starlette",
    "granian",
    "anyio",
    "tomli_w",
    "requests",
    "pytest",
    "hypothesis",
    "setuptools",
}
PUBLISHERS_HALF = (
    "instar.publish.",
    "instar.cli.",
    "instar.server.",
    "instar.testing.",
    "instar.trust.keys.",
    "instar.trust.roles.",
    "instar.trust.ceremony.",
    "instar.content.scan.",
    "instar.content.build.",
)
# What pyproject.toml names as dependencies of the base install, and what these need themselves.
BASE_INSTALL = {
    "tuf",
    "securesystemslib",
    "urllib3",
    "packaging",
    "backports",
    "cryptography",
    "cffi",
    "_cffi_backend",
    "_openssl",
}


def modules_after(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after `statement`, and had not before."""
    program = (
        f"import json, sys; before = set(sys.modules); {statement}; print(json.dumps(list(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def client() -> set[str]:
    # Every name, for the package loads each when it is first used.
    return modules_after("import instar.client as c; [getattr(c, name) for name in c.__all__]")


def test_importing_the_client_loads_no_heavy_library(client: set[str]) -> None:
    assert {name.split(".")[0] for name in client} & HEAVY == set()


def test_importing_the_client_loads_nothing_of_the_publisher(client: set[str]) -> None:
    assert [name for name in client if f"{name}.".startswith(PUBLISHERS_HALF)] == []


def test_importing_the_client_needs_only_the_base_install(client: set[str]) -> None:
    roots = {name.split(".")[0] for name in client}
    assert roots - sys.stdlib_module_names - BASE_INSTALL - {"instar", "__mp_main__"} - editable_finders(roots) == set()


def test_an_apps_start_pays_for_no_cryptography_and_no_http() -> None:
    used = "instar.Config, instar.find_installation, instar.startup, instar.restart, instar.confirm"
    roots = {name.split(".")[0] for name in modules_after(f"import instar; {used}")}
    assert roots & {"tuf", "securesystemslib", "cryptography", "urllib3", "backports", "ssl", "http"} == set()


def test_importing_the_package_itself_loads_next_to_nothing() -> None:
    assert {name for name in modules_after("import instar") if name.startswith("instar")} == {"instar"}


def test_using_a_public_name_of_the_package_loads_the_client() -> None:
    # Guards the test above: it must not pass because the names lead nowhere.
    assert {"instar.client.updater", "tuf"} <= modules_after("import instar; instar.Updater")


def editable_finders(roots: set[str]) -> set[str]:
    """Modules by which an editable install finds its source; no part of an app."""
    return {name for name in roots if name.startswith(("__editable__", "_editable_impl"))}
