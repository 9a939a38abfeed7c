"""Two clients of AWS IoT Jobs that know nothing of us, unmodified: the library of AWS, and an agent of the field."""

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from instar.compat.awsiot.runner import Broker
from instar.model.device import ThingName
from instar.model.job import JobDocument, JobId, JobSettings
from instar.server.store.database import open_store
from tests.support.brokers import as_service, open_broker, private_broker, service_on
from tests.support.fleets import Played
from tests.support.peers import peer_python

WAIT = 30.0
D0 = ThingName("d0")


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    store = open_store(f"sqlite:///{tmp_path}/fleet.db")
    yield Played(store, 1)
    store.close()


class Sdk:
    """The SDK in a process of its own environment."""

    def __init__(self, port: int, thing: str, secret: str) -> None:
        script = Path(__file__).parents[1] / "support" / "awsiot_judge.py"
        self.process = subprocess.Popen(
            [peer_python("awsiot"), "-P", script, str(port), thing, secret],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answers: queue.Queue[list[Any]] = queue.Queue()
        self.changed: queue.Queue[dict[str, Any]] = queue.Queue()
        self.next: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.answers.get(timeout=WAIT)[0] == "ready"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            what, said = json.loads(line)
            {"changed": self.changed, "next": self.next}.get(what, self.answers).put(
                said if what in {"changed", "next"} else [what, said]
            )

    def ask(self, what: str, **fields: Any) -> tuple[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, fields]) + "\n")
        self.process.stdin.flush()
        how, said = self.answers.get(timeout=WAIT)
        return how, said

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def sdk(played: Played, tmp_path: Path) -> Iterator[Sdk]:
    with private_broker(tmp_path) as broker:
        broker.set_users({"d0": "secret"})
        with service_on(played.fleet, as_service(broker), played.clock):
            client = Sdk(broker.port, "d0", "secret")
            yield client
            client.close()


def create(played: Played, job: str, settings: JobSettings | None = None) -> None:
    played.fleet.create_job(JobId(job), JobDocument('{"a": {"b": [1]}}'), settings, things=[D0], actor="operator")


def test_the_device_library_of_aws_understands_every_answer(played: Played, sdk: Sdk) -> None:
    how, empty = sdk.ask("pending")
    assert (how, empty["in_progress_jobs"], empty["queued_jobs"]) == ("accepted", [], [])
    assert "execution" not in sdk.ask("start")[1]
    create(played, "job1", JobSettings(in_progress_minutes=10))
    assert [each["job_id"] for each in sdk.changed.get(timeout=WAIT)["jobs"]["QUEUED"]] == ["job1"]
    head = sdk.next.get(timeout=WAIT)["execution"]
    assert (head["job_id"], head["status"], head["job_document"]) == ("job1", "QUEUED", {"a": {"b": [1]}})
    assert [each["version_number"] for each in sdk.ask("pending")[1]["queued_jobs"]] == [1]
    how, described = sdk.ask("describe", job_id="job1", include_job_document=False)
    assert (how, described["execution"]["status"]) == ("accepted", "QUEUED")
    assert "job_document" not in described["execution"]
    _, started = sdk.ask("start", status_details={"step": "1"}, step_timeout_in_minutes=5)
    assert started["execution"]["status"] == "IN_PROGRESS"
    assert started["execution"]["status_details"] == {"step": "1"}
    assert [each["job_id"] for each in sdk.ask("pending")[1]["in_progress_jobs"]] == ["job1"]
    _, following = sdk.ask("describe", job_id="$next")
    assert following["execution"] == started["execution"]
    _, updated = sdk.ask(
        "update",
        job_id="job1",
        status="IN_PROGRESS",
        status_details={"step": "2"},
        expected_version=2,
        include_job_execution_state=True,
        include_job_document=True,
    )
    assert updated["execution_state"] == {
        "status": "IN_PROGRESS",
        "status_details": {"step": "2"},
        "version_number": 3,
    }
    assert updated["job_document"] == {"a": {"b": [1]}}
    assert sdk.ask("update", job_id="job1", status="SUCCEEDED", expected_version=3)[0] == "accepted"
    assert sdk.changed.get(timeout=WAIT)["jobs"] == {}
    assert "execution" not in sdk.next.get(timeout=WAIT)


def test_the_device_library_of_aws_is_told_every_error(played: Played, sdk: Sdk) -> None:
    create(played, "job1")
    sdk.next.get(timeout=WAIT)

    def refused(what: str, **fields: Any) -> tuple[str, str | None]:
        how, said = sdk.ask(what, **fields)
        assert (how, bool(said["message"])) == ("rejected", True), said
        return said["code"], said.get("execution_state", {}).get("status")

    assert refused("describe", job_id="other") == ("ResourceNotFound", None)
    assert refused("update", job_id="other", status="FAILED") == ("ResourceNotFound", None)
    assert refused("update", job_id="job1", status="DONE") == ("InvalidRequest", None)
    assert refused("update", job_id="job1", status="FAILED", status_details={"a b": "c"}) == ("InvalidRequest", None)
    assert refused("describe", job_id="not an id") == ("InvalidTopic", None)
    wrong = refused("update", job_id="job1", status="FAILED", expected_version=9)
    assert wrong == ("VersionMismatch", "QUEUED")
    assert sdk.ask("update", job_id="job1", status="REJECTED")[0] == "accepted"
    again = refused("update", job_id="job1", status="SUCCEEDED")
    assert again == ("InvalidStateTransition", "REJECTED")
    assert refused("describe", job_id="job1") == ("TerminalStateReached", None)


def hook(folder: Path, name: str, body: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def _listens(log: str, times: int) -> bool:
    """Whether the agent, which came to rest so many times, hears what is said now."""
    parts = log.split("to monitor.")
    return len(parts) > times and "mqtt-subscribed" in parts[-1]


def until(happened: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_an_agent_of_the_field_goes_through_a_whole_update(played: Played, tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "bundle").write_bytes(b"new" * 100_000)
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    web = ThreadingHTTPServer(
        ("127.0.0.1", 0),
        lambda *args: handler(*args, directory=str(tmp_path / "www")),  # type: ignore[arg-type]
    )
    threading.Thread(target=web.serve_forever).start()
    state = tmp_path / "version"
    state.write_text("1.0")
    hooks = {
        "version": hook(tmp_path, "version.sh", f"cat {state}"),
        "install": hook(tmp_path, "install.sh", f'cmp "$4" {tmp_path}/www/bundle && echo half && echo 2.0 > {state}'),
        "restart": hook(tmp_path, "restart.sh", "exit 0"),
        "ready": hook(tmp_path, "ready.sh", "exit 0"),
    }
    lines = "\n".join(f"{name} = {file}" for name, file in hooks.items())
    with open_broker(tmp_path) as port, service_on(played.fleet, Broker("127.0.0.1", port), played.clock):
        settings = tmp_path / "upparat.ini"
        settings.write_text(
            f"[service]\nlog_level = DEBUG\ndownload_location = {tmp_path}\n"
            f"[broker]\nhost = 127.0.0.1\nport = {port}\nthing_name = d0\nclient_id = d0\n"
            f"[hooks]\n{lines}\nretry_interval = 1\nmax_retries = 3\n"
        )
        program = peer_python("upparat").parent / "upparat"
        with (tmp_path / "agent.log").open("wb") as log:
            agent = subprocess.Popen(
                [program, "-c", settings], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
            )
        try:
            # Between its question and its listening it hears of nothing: that is one of its own weaknesses.
            until(lambda: _listens((tmp_path / "agent.log").read_text(), 1), "the agent does not listen")
            address = f"http://127.0.0.1:{web.server_address[1]}/bundle"
            document = JobDocument.of({"file": address, "version": "2.0", "meta": "m", "force": False})
            played.fleet.create_job(JobId("upparat_1"), document, things=[D0], actor="operator")
            until(
                lambda: played.fleet.job(JobId("upparat_1")).campaign.counters.succeeded == 1,
                "the agent did not succeed",
            )
            (done,) = played.fleet.history(D0)
            assert done.execution.details.pairs["state"].startswith("complete_")
            assert done.execution.version > 3
            assert state.read_text() == "2.0\n"
            until(lambda: _listens((tmp_path / "agent.log").read_text(), 2), "the agent does not listen")
            # The same version again: it is installed already, and that is said.
            played.fleet.create_job(JobId("upparat_2"), document, things=[D0], actor="operator")
            until(lambda: played.fleet.job(JobId("upparat_2")).campaign.status == "COMPLETED", "the second did not end")
            newest = max(played.fleet.history(D0), key=lambda each: each.job)
            assert newest.execution.details.pairs["state"] == "version_already_installed"
        finally:
            agent.terminate()
            agent.wait()
            web.shutdown()
            web.server_close()
