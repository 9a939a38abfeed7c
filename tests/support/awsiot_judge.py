"""Runs in the environment of the AWS SDK: asks everything that its client can ask, and prints what it understood."""

import json
import sys
import threading

from awscrt import mqtt5, mqtt_request_response
from awsiot import ServiceStreamOptions, V2ServiceException, iotjobs

PORT, THING, SECRET = int(sys.argv[1]), sys.argv[2], sys.argv[3]
WAIT = 30
saying = threading.Lock()


def value(thing):
    """A model of the SDK as plain values."""
    if isinstance(thing, list):
        return [value(each) for each in thing]
    if isinstance(thing, dict):
        return {key: value(each) for key, each in thing.items()}
    if hasattr(thing, "__slots__"):
        fields = {key: getattr(thing, key) for key in thing.__slots__}
        return {key: value(each) for key, each in fields.items() if each is not None}
    return thing.isoformat() if hasattr(thing, "isoformat") else thing


def say(what, said):
    # Streams say things from threads of the library: a line is said whole.
    with saying:
        print(json.dumps([what, said], default=str), flush=True)


connected = threading.Event()
client = mqtt5.Client(
    mqtt5.ClientOptions(
        host_name="127.0.0.1",
        port=PORT,
        # Else it writes its own version into the user name, which only AWS takes off again.
        disable_metrics=True,
        connect_options=mqtt5.ConnectPacket(client_id="sdk", username=THING, password=SECRET),
        on_lifecycle_event_connection_success_fn=lambda _: connected.set(),
        on_lifecycle_event_connection_failure_fn=lambda data: sys.stderr.write(f"{data}\n"),
    )
)
client.start()
assert connected.wait(WAIT)
jobs = iotjobs.IotJobsClientV2(client, mqtt_request_response.ClientOptions(4, 2, 20))
settled = [threading.Event(), threading.Event()]
streams = [
    jobs.create_job_executions_changed_stream(
        iotjobs.JobExecutionsChangedSubscriptionRequest(thing_name=THING),
        ServiceStreamOptions(lambda event: say("changed", value(event)), lambda _: settled[0].set()),
    ),
    jobs.create_next_job_execution_changed_stream(
        iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=THING),
        ServiceStreamOptions(lambda event: say("next", value(event)), lambda _: settled[1].set()),
    ),
]
for stream in streams:
    stream.open()
for each in settled:
    assert each.wait(WAIT)
say("ready", None)
for line in sys.stdin:
    what, fields = json.loads(line)
    method, request = {
        "pending": (jobs.get_pending_job_executions, iotjobs.GetPendingJobExecutionsRequest),
        "start": (jobs.start_next_pending_job_execution, iotjobs.StartNextPendingJobExecutionRequest),
        "describe": (jobs.describe_job_execution, iotjobs.DescribeJobExecutionRequest),
        "update": (jobs.update_job_execution, iotjobs.UpdateJobExecutionRequest),
    }[what]
    try:
        say("accepted", value(method(request(thing_name=THING, **fields)).result(WAIT)))
    except V2ServiceException as error:
        say("rejected", value(error.modeled_error) if error.modeled_error else repr(error.inner_error))
client.stop()
