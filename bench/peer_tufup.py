"""The tufup side: what it costs to publish one release after another, and a client to take it."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

from bench.measure import TIMED_OUT, Measured, run
from bench.serving import serving

if TYPE_CHECKING:
    from pathlib import Path


class Tufup:
    """tufup in its own environment, publisher and client, in one folder."""

    def __init__(self, python: Path, driver: Path, folder: Path) -> None:
        self._python = python
        self._driver = driver
        self._home = folder / "publisher"
        self._client = folder / "client"
        self._log = folder / "tufup.log"
        shutil.rmtree(folder, ignore_errors=True)
        self._home.mkdir(parents=True)

    def pair(self, old: Path, new: Path, *, limit_seconds: float) -> dict[str, Any]:
        """Publish `old`, then `new` with its patch; install by archive; update by patch; check with nothing new.

        Returns:
            For each step its figures; `gave_up_after` instead where publishing took longer than `limit_seconds`.
        """
        self._step("init")
        result: dict[str, Any] = {}
        first, sizes = self._step("release", "--bundle", old, "--version", "1.0.0")
        result["publish_first"] = first.as_json() | {"files": sizes}
        install = self._client / "app"
        state = self._client / "state"
        with serving(self._home / "repository") as server:
            server.take_traffic()
            installed, _ = self._step(
                "update", "--version", "0.1.0", "--full", "--state", state, "--install", install, "--url", server.url
            )
            result["install"] = installed.as_json() | server.take_traffic()
        second, sizes = self._step(
            "release", "--bundle", new, "--version", "1.0.1", limit_seconds=limit_seconds, check=False
        )
        if second.exit_code == TIMED_OUT:
            result["publish"] = {"gave_up_after": limit_seconds} | second.as_json()
            return result
        if second.exit_code:
            raise SystemExit(f"tufup failed to publish; see {self._log}")
        result["publish"] = second.as_json() | {"files": sizes}
        with serving(self._home / "repository") as server:
            update, answer = self._step(
                "update", "--version", "1.0.0", "--state", state, "--install", install, "--url", server.url
            )
            result["update"] = update.as_json() | server.take_traffic() | {"targets": answer["targets"]}
            check, _ = self._step(
                "update", "--version", "1.0.1", "--state", state, "--install", install, "--url", server.url
            )
            result["check_nothing_new"] = check.as_json() | server.take_traffic()
        return result

    def across(self, trees: list[Path]) -> dict[str, Any]:
        """Publish all of them in order; a client with the first takes the newest, by all the patches in between."""
        self._step("init")
        options: list[str | Path] = ["--state", self._client / "state", "--install", self._client / "app"]
        self._step("release", "--bundle", trees[0], "--version", "1.0.0")
        with serving(self._home / "repository") as server:
            self._step("update", "--version", "0.1.0", "--full", *options, "--url", server.url)
            for number, tree in enumerate(trees[1:], 1):
                self._step("release", "--bundle", tree, "--version", f"1.0.{number}")
            server.take_traffic()
            update, answer = self._step("update", "--version", "1.0.0", *options, "--url", server.url)
            return {"update": update.as_json() | server.take_traffic() | {"targets": answer["targets"]}}

    def many_releases(self, trees: list[Path], *, releases: int) -> dict[str, Any]:
        """What a look costs when one release has come to `releases` others."""
        self._step("init")
        options: list[str | Path] = ["--state", self._client / "state", "--install", self._client / "app"]
        self._step("release", "--bundle", trees[0], "--version", "1.0.0")
        self._step("fill", "--count", str(releases))
        with serving(self._home / "repository") as server:
            self._step("update", "--version", "0.1.0", "--full", *options, "--url", server.url)
            publish, _ = self._step("release", "--bundle", trees[1], "--version", "1.0.1")
            server.take_traffic()
            check, _ = self._step("update", "--version", "1.0.0", "--check-only", *options, "--url", server.url)
            return {"publish": publish.as_json(), "check_update": check.as_json() | server.take_traffic()}

    def _step(
        self, step: str, *options: str | Path, limit_seconds: float | None = None, check: bool = True
    ) -> tuple[Measured, dict[str, Any]]:
        argv = [self._python, self._driver, step, "--home", self._home, *options]
        measured = run(argv, limit_seconds=limit_seconds, log=self._log)
        if check and measured.exit_code:
            raise SystemExit(f"tufup's {step} failed with {measured.exit_code}; see {self._log}")
        answer = json.loads(measured.output.splitlines()[-1]) if not measured.exit_code else {}
        sys.stderr.write(f"  tufup {step}: {measured.seconds:.1f} s, {measured.peak_memory / 1e6:.0f} MB\n")
        return measured, answer
