"""AWS IoT Jobs on a real broker: our service, devices of both versions of MQTT, and devices that mean harm."""

import os
import queue
import signal
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gmqtt.mqtt.handler import MQTTConnectError

from instar.compat.awsiot.mosquitto import ACCESS, Certificates, Mosquitto, configuration, find_mosquitto, password_line
from instar.errors import Misconfigured, Unavailable
from instar.model.device import ThingName
from instar.model.job import JobId
from instar.server.store.database import open_store
from instar.system.clock import SystemClock
from tests.support.brokers import DeviceOnBroker, as_service, private_broker, service_on
from tests.support.certificates import Authority
from tests.support.databases import free_port
from tests.support.fleets import DOCUMENT, Played

SECRETS = {"d0": "zero", "d1": "one"}


@dataclass
class Stage:
    played: Played
    broker: Mosquitto
    devices: list[DeviceOnBroker]

    def device(self, name: str, **more: Any) -> DeviceOnBroker:
        self.devices.append(DeviceOnBroker(self.broker.port, name, SECRETS.get(name), **more))
        return self.devices[-1]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    store = open_store(f"sqlite:///{tmp_path}/fleet.db")
    played = Played(store, 2, tell_executions=True)
    with private_broker(tmp_path) as broker:
        broker.set_users(SECRETS)
        devices: list[DeviceOnBroker] = []
        with service_on(played.fleet, as_service(broker), played.clock):
            yield Stage(played, broker, devices)
            for device in devices:
                device.close()
    store.close()


def create(stage: Stage, name: str, thing: str) -> None:
    stage.played.fleet.create_job(JobId(name), DOCUMENT, things=[ThingName(thing)], actor="operator")


@pytest.mark.parametrize("mqtt5", [False, True], ids=["3.1.1", "5"])
def test_a_job_from_its_making_to_its_end(stage: Stage, mqtt5: bool) -> None:
    device = stage.device("d0", mqtt5=mqtt5)
    create(stage, "job1", "d0")
    topic, listed = device.next(lambda topic: "notify" in topic)
    assert topic.endswith("/notify")
    assert [each["jobId"] for each in listed["jobs"]["QUEUED"]] == ["job1"]
    topic, following = device.next(lambda topic: "notify" in topic)
    assert topic.endswith("/notify-next")
    assert following["execution"]["jobDocument"] == {"do": "it"}
    how, pending = device.ask("get")
    assert (how, [each["jobId"] for each in pending["queuedJobs"]]) == ("accepted", ["job1"])
    how, started = device.ask("start-next", {"clientToken": "t1", "statusDetails": {"step": "1"}})
    assert (how, started["clientToken"], started["execution"]["status"]) == ("accepted", "t1", "IN_PROGRESS")
    how, described = device.ask("$next/get")
    assert (how, described["execution"]) == ("accepted", started["execution"])
    update = {"status": "SUCCEEDED", "expectedVersion": "2", "includeJobExecutionState": True}
    how, done = device.ask("job1/update", update)
    assert (how, done["executionState"]["versionNumber"]) == ("accepted", 3)
    assert device.next(lambda topic: topic.endswith("/notify"))[1]["jobs"] == {}
    assert "execution" not in device.next(lambda topic: topic.endswith("/notify-next"))[1]
    how, refused = device.ask("job1/update", {"status": "FAILED", "clientToken": "t2"})
    assert (how, refused["code"], refused["clientToken"]) == ("rejected", "InvalidStateTransition", "t2")
    assert refused["executionState"]["status"] == "SUCCEEDED"
    assert device.ask("job1/get")[1]["code"] == "TerminalStateReached"
    assert stage.played.counters("job1").succeeded == 1


def test_a_device_reaches_its_own_topics_and_nothing_else(stage: Stage) -> None:
    spy = stage.device("d1", listen=("$aws/things/d1/jobs/#", "$aws/#", "$aws/things/d0/jobs/#", "#", "$aws/events/#"))
    device = stage.device("d0")
    create(stage, "job1", "d0")
    device.next(lambda topic: topic.endswith("/notify-next"))
    # Neither hears nor says anything of another, nor speaks as the service.
    spy.say("$aws/things/d0/jobs/job1/update", {"status": "FAILED"})
    spy.say("$aws/things/d0/jobs/start-next")
    spy.say("$aws/things/d0/jobs/notify-next", {"execution": {}})
    spy.say("$aws/things/d1/jobs/notify", {"made": "up"})
    assert device.ask("job1/get")[1]["execution"]["status"] == "QUEUED"
    assert spy.ask("get") == ("accepted", {"inProgressJobs": [], "queuedJobs": [], "timestamp": 1767225600})
    assert spy.ask("job1/get")[1]["code"] == "ResourceNotFound"
    device.ask("job1/update", {"status": "SUCCEEDED"})
    assert spy.silent()
    for name, secret in (("d0", "one"), ("d0", ""), ("stranger", "zero"), ("d0", None)):
        with pytest.raises(MQTTConnectError):
            DeviceOnBroker(stage.broker.port, name, secret)


def test_a_device_with_a_certificate_is_who_that_says(tmp_path: Path) -> None:
    authority, other = Authority(_folder(tmp_path / "ours")), Authority(_folder(tmp_path / "other"))
    files = Certificates(authority.file, *authority.sign("server", server=True))
    store = open_store(f"sqlite:///{tmp_path}/fleet.db")
    played = Played(store, 2)
    port = free_port()
    with private_broker(tmp_path, (port, files)) as broker, service_on(played.fleet, as_service(broker), played.clock):
        # The name that it gives itself as its user name does not matter.
        topics = ("$aws/things/d0/jobs/#", "$aws/things/d1/jobs/#")
        device = DeviceOnBroker(port, "d1", "any", tls=_shown(authority, authority.sign("d0")), listen=topics)
        device.say("$aws/things/d1/jobs/get")
        device.say("$aws/things/d0/jobs/get")
        assert device.next(lambda topic: "accepted" in topic)[0] == "$aws/things/d0/jobs/get/accepted"
        assert device.silent()
        device.close()
        for tls in (_shown(authority, other.sign("d0")), _shown(authority, None)):
            with pytest.raises((OSError, TimeoutError, MQTTConnectError)):
                DeviceOnBroker(port, "d0", tls=tls, patience=3)
    store.close()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _shown(authority: Authority, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def test_what_a_hostile_device_sends_is_refused_and_others_are_served(stage: Stage) -> None:
    hostile, device = stage.device("d1"), stage.device("d0")
    create(stage, "job1", "d0")
    device.next(lambda topic: topic.endswith("/notify-next"))
    for payload, code in (
        (b"{", "InvalidJson"),
        (b"[" * 50_000, "InvalidJson"),
        (b"\xff\xfe", "InvalidJson"),
        ({"status": 5}, "InvalidRequest"),
        ({"status": "FAILED", "statusDetails": {"a": "\ud800"}}, "InvalidRequest"),
        ({"status": "FAILED", "expectedVersion": 10**400}, "ResourceNotFound"),
        ({"status": "FAILED"}, "ResourceNotFound"),
    ):
        how, said = hostile.ask("job1/update", payload)
        assert (how, said["code"]) == ("rejected", code)
    assert hostile.ask("bad id/get")[1]["code"] == "InvalidTopic"
    for _ in range(300):
        hostile.say("$aws/things/d1/jobs/get")
    assert device.ask("start-next")[1]["execution"]["status"] == "IN_PROGRESS"
    answers = [hostile.next(lambda topic: "/jobs/get/" in topic) for _ in range(300)]
    throttled = [said["code"] for topic, said in answers if topic.endswith("rejected")]
    assert set(throttled) <= {"RequestThrottled"}
    assert hostile.ask("get")[0] == "accepted"


def test_a_broker_that_dies_is_started_again_and_everything_goes_on(stage: Stage) -> None:
    device = stage.device("d0")
    assert device.ask("get")[0] == "accepted"
    process = stage.broker._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Made while nobody could be told.
    create(stage, "job1", "d0")
    for _ in range(50):
        try:
            again = stage.device("d0")
            break
        except OSError:
            SystemClock().sleep(0.2)
    else:
        pytest.fail("the broker did not come back")
    for _ in range(20):
        again.say("$aws/things/d0/jobs/get")
        try:
            _, said = again.next(lambda topic: topic.endswith("get/accepted"), timeout=1)
        except queue.Empty:
            continue
        assert [each["jobId"] for each in said["queuedJobs"]] == ["job1"]
        return
    pytest.fail("the service did not come back")


def test_a_port_that_is_taken_and_a_machine_without_mosquitto_are_said(tmp_path: Path, stage: Stage) -> None:
    program = find_mosquitto(os.environ["PATH"])
    second = Mosquitto(program, tmp_path / "second", stage.broker.port, clock=SystemClock())
    with pytest.raises(Unavailable, match="port"):
        second.start()
    third = Mosquitto(program, tmp_path / "third", free_port(), clock=SystemClock())
    with pytest.raises(Misconfigured, match="user name"):
        third.set_users({"a:b": "c"})


def test_what_is_written_for_the_broker_holds_no_secret_in_the_clear(tmp_path: Path) -> None:
    line = password_line("d0", "secret", b"0" * 12)
    assert line.startswith("d0:$7$101$")
    assert "secret" not in line
    assert "allow_anonymous false" in configuration(tmp_path, 1883)
    assert "readwrite" not in "".join(line for line in ACCESS.splitlines() if line.startswith("pattern"))
