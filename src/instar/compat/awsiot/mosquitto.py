"""A private Mosquitto: its configuration, its access rules, and the process, which is started again when it dies.

Isolation between devices comes from the broker alone: each may use the topics below its own name and nothing else. A
device's name is its user name, or the common name of its certificate; never its client id, which anybody may choose.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from instar.errors import Misconfigured, Unavailable
from instar.system.clock import Clock
from instar.system.files import write_atomic

__all__ = ["ACCESS", "SERVICE_USER", "Certificates", "Mosquitto", "configuration", "find_mosquitto", "password_line"]

SERVICE_USER: Final = "$instar"
"""The user name of our own service; no device can be called that."""

ACCESS: Final = f"""\
# Each device: its own requests, and what it is told. Mosquitto puts the user name in place of %u, and gives nothing to
# names that hold wildcards or slashes.
pattern write $aws/things/%u/jobs/get
pattern write $aws/things/%u/jobs/start-next
pattern write $aws/things/%u/jobs/+/get
pattern write $aws/things/%u/jobs/+/update
pattern read $aws/things/%u/jobs/#

user {SERVICE_USER}
topic readwrite $aws/#
"""
"""The broker's access rules."""

# What the broker takes of one message: the largest payload of the protocol, its topic, and room for the header.
_MAX_PACKET: Final = 160 * 1024
# Messages that wait for one client: those of our service in a flood. A device has a handful.
_MAX_QUEUED: Final = 100_000
# A secret is random and long; the work that makes guessing short passwords slow would only slow connecting.
_ITERATIONS: Final = 101
_SALT: Final = 12
# Seconds for it to come up, to end when asked to, and between two starts of one that dies.
_START_TIMEOUT: Final = 20.0
_STOP_TIMEOUT: Final = 5.0
_RESTART_AFTER: Final = 1.0
_POLL: Final = 0.05
# Where Debian keeps it, outside of an ordinary user's path.
_SBIN: Final = "/usr/sbin"


@dataclass(frozen=True, slots=True)
class Certificates:
    """What it needs for TLS with certificates of clients, whose common names are the devices' names."""

    authorities: Path
    certificate: Path
    key: Path


def find_mosquitto(path: str) -> str:
    """Give the program, looked for in these folders and where Debian keeps it.

    Raises:
        Misconfigured: it is not on this machine.

    """
    found = shutil.which("mosquitto", path=os.pathsep.join([path, _SBIN]))
    if found is None:
        raise Misconfigured(
            "Mosquitto is not on this machine, so devices cannot be reached over MQTT.",
            hint="Install the package mosquitto, or name a broker that runs elsewhere.",
        )
    return found


def password_line(user: str, secret: str, salt: bytes) -> str:
    """Give a line of Mosquitto's password file."""
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, _ITERATIONS)
    salted, hashed = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{user}:$7${_ITERATIONS}${salted}${hashed}\n"


def configuration(
    folder: Path, port: int, *, host: str = "127.0.0.1", tls: tuple[int, Certificates] | None = None
) -> str:
    """Give the configuration of a broker whose files are in ``folder``; ``tls`` is a second port, with certificates."""
    lines = [
        "per_listener_settings false",
        "allow_anonymous false",
        f"password_file {folder / 'passwords'}",
        f"acl_file {folder / 'access'}",
        "persistence false",
        f"max_packet_size {_MAX_PACKET}",
        f"max_queued_messages {_MAX_QUEUED}",
        "max_inflight_messages 0",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        # Started by root it would become another user, who cannot read these files.
        *(["user root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
        f"listener {port} {host}",
    ]
    if tls is not None:
        tls_port, files = tls
        lines += [
            f"listener {tls_port} {host}",
            f"cafile {files.authorities}",
            f"certfile {files.certificate}",
            f"keyfile {files.key}",
            "require_certificate true",
            "use_identity_as_username true",
            "tls_version tlsv1.2",
        ]
    return "\n".join([*lines, ""])


class Mosquitto:
    """A Mosquitto of our own, on this machine alone, until it is stopped.

    Args:
        program: the program.
        folder: where its files are made; what is in there of earlier ones is replaced.
        port: where it listens on loopback.
        clock: how to wait.
        tls: a second port and the files for it.

    """

    def __init__(
        self,
        program: str,
        folder: Path,
        port: int,
        *,
        clock: Clock,
        tls: tuple[int, Certificates] | None = None,
    ) -> None:
        self.port = port
        self.secret = secrets.token_urlsafe(32)
        self._argv = [program, "-c", str(folder / "mosquitto.conf")]
        self._folder = folder
        self._tls = tls
        self._clock = clock
        self._users: dict[str, str] = {SERVICE_USER: self.secret}
        self._process: subprocess.Popen[bytes] | None = None
        self._changing = threading.Lock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Start it, and return when it takes connections.

        Raises:
            Unavailable: it does not come up; the message says what it said.

        """
        if _answers(self.port):
            raise Unavailable(f"Something else listens on port {self.port}.", hint="Choose another port.")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._folder / "access", ACCESS.encode())
        write_atomic(self._folder / "mosquitto.conf", configuration(self._folder, self.port, tls=self._tls).encode())
        self._write_users()
        self._launch()
        waited = 0.0
        while not _answers(self.port):
            if self._process is None or self._process.poll() is not None or waited > _START_TIMEOUT:
                said = self._last_words()
                self.stop()
                raise Unavailable(f"Mosquitto did not start: {said}", hint="Is its port free?")
            self._clock.sleep(_POLL)
            waited += _POLL
        self._watcher = threading.Thread(target=self._watch, name="mosquitto", daemon=True)
        self._watcher.start()

    def set_users(self, users: Mapping[str, str]) -> None:
        """Let these users in by their secrets, and nobody else but our own service; those connected stay.

        Raises:
            Misconfigured: a name that the broker's file cannot hold.

        """
        if wrong := [user for user in users if ":" in user or user == SERVICE_USER]:
            raise Misconfigured(
                f"{wrong[0]!r} cannot be a user name of Mosquitto.", hint="Let such devices show certificates."
            )
        with self._changing:
            self._users = {**users, SERVICE_USER: self.secret}
            self._write_users()
            if self._process is not None:
                self._reload(self._process)

    @staticmethod
    def _reload(process: subprocess.Popen[bytes]) -> None:
        if sys.platform == "win32":
            process.terminate()  # it is started again at once, and reads its files then
        else:
            process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it. Safe to call more than once."""
        self._stopping.set()
        with self._changing:
            process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._watcher is not None:
            self._watcher.join()

    def _launch(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the program that was found, and a file that we wrote
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _watch(self) -> None:
        while not self._stopping.wait(_RESTART_AFTER):
            with self._changing:
                if self._process is not None and self._process.poll() is not None:
                    self._launch()

    def _write_users(self) -> None:
        lines = [
            password_line(user, secret, secrets.token_bytes(_SALT)) for user, secret in sorted(self._users.items())
        ]
        write_atomic(self._folder / "passwords", "".join(lines).encode(), mode=0o600)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return (self._folder / "log").read_bytes()[-500:].decode(errors="replace").strip()
        return "it said nothing"


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
