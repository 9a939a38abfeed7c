from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from instar.client.config import Config, Connection
from instar.errors import Misconfigured
from instar.system.platform import detect_platform, platform_name

ROOT = b'{"signed": {}}'


def config(**changes: Any) -> Config:
    values: dict[str, Any] = {"product": "myapp", "url": "https://x.example/", "root": ROOT, "location": Path("/app")}
    return Config(**{**values, **changes})


def test_the_defaults_are_a_whole_configuration() -> None:
    made = config()
    assert made.platform == detect_platform()
    assert made.channel is None
    assert made.max_starts == 3
    assert made.connection == Connection()
    assert made.urls == ("https://x.example/",)


def test_mirrors_come_behind_the_url() -> None:
    made = config(mirrors=("https://y.example/", "/mnt/usb"))
    assert made.urls == ("https://x.example/", "https://y.example/", "/mnt/usb")


def test_a_relative_location_is_made_absolute_so_that_a_later_change_of_folder_does_no_harm() -> None:
    assert config(location=Path("app")).location == Path.cwd() / "app"


@pytest.mark.parametrize(
    "wrong",
    [
        {"product": "My App"},
        {"product": "timestamp"},
        {"platform": ""},
        {"channel": "Stable!"},
        {"url": ""},
        {"url": "ftp://x.example/"},
        {"url": "https:///path"},
        {"mirrors": ("gopher://x/",)},
        {"mirrors": "https://x.example/"},
        {"keep": "data/*"},
        {"health": "myapp --version"},
        {"root": b""},
        {"root": b"x" * 600_000},
        {"max_starts": 0},
        {"device_id": ""},
        {"device_id": "x" * 201},
        {"build_time": datetime(2026, 1, 1)},  # noqa: DTZ001  # what is refused
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_a_reason(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        config(**wrong)


def test_a_configuration_shows_no_key_material_and_cannot_be_changed() -> None:
    made = config(root=b"SECRETLOOKING")
    assert "SECRETLOOKING" not in repr(made)
    with pytest.raises(AttributeError):
        made.product = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("linux", "x86_64", "linux-x86_64"),
        ("linux", "aarch64", "linux-aarch64"),
        ("linux", "arm64", "linux-aarch64"),
        ("darwin", "arm64", "macos-arm64"),
        ("darwin", "x86_64", "macos-x86_64"),
        ("win32", "AMD64", "windows-amd64"),
        ("win32", "ARM64", "windows-arm64"),
        ("freebsd14", "riscv64", "freebsd14-riscv64"),
        ("linux", "", "linux-unknown"),
    ],
)
def test_a_platform_has_the_name_that_publishers_write(system: str, machine: str, name: str) -> None:
    assert platform_name(system, machine) == name
