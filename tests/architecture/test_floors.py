"""The floors of docs/architecture.md, checked by the linter that knows them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_import_contract_is_kept() -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_of_the_floors_is_exhaustive() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")
    assert layers["exhaustive"] is True
    assert "exhaustive_ignores" not in layers


def test_no_module_is_named_for_what_has_no_name() -> None:
    nameless = re.compile(r"^_?(utils?|common|helpers?|misc|shared|tools?)$")
    modules = [path.relative_to(ROOT / "src").with_suffix("") for path in (ROOT / "src").rglob("*.py")]
    assert [module for module in modules if any(map(nameless.match, module.parts))] == []


def test_no_source_file_is_too_long_to_read() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "src").rglob("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > 550
    }
    assert too_long == {}


def test_nothing_is_switched_off_without_a_reason() -> None:
    # A `noqa` or `type: ignore` names its rule and says why, on its line or on the line above.
    bare = []
    for folder in ("src", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines):
                found = re.search(r"#\s*(?:noqa: [A-Z]+[0-9]+(?:, ?[A-Z]+[0-9]+)*|type: ignore\[[\w, -]+\])(.*)", line)
                switched_off = re.search(r"#\s*(?:noqa|type:\s*ignore)", line)
                above = lines[number - 1].strip() if number else ""
                if switched_off and not (found and (len(found[1].strip(" #-")) > 5 or above.startswith("#"))):
                    bare.append(f"{path.relative_to(ROOT)}:{number + 1}")
    assert bare == []
