import pytest

from instar.model.digest import Digest
from instar.trust.layout import (
    MAX_ROOT,
    MAX_TARGETS,
    channels_path,
    floor_path,
    manifest_path,
    metadata_key,
    parse_time,
    role_bound,
    role_of,
    taken_versions,
    target_key,
)


def test_paths_and_keys() -> None:
    digest = Digest.of(b"")
    assert manifest_path("app", "linux-x86_64", "1.0") == "app/linux-x86_64-1.0.manifest"
    assert channels_path("app") == "app/channels.json"
    assert floor_path("app") == "app/security-floor"
    assert target_key("app/channels.json", digest) == f"targets/app/{digest}.channels.json"
    assert target_key("top", digest) == f"targets/{digest}.top"
    assert target_key("a/b", digest, consistent_snapshot=False) == "targets/a/b"
    assert metadata_key("timestamp", None) == "metadata/timestamp.json"
    assert metadata_key("root", 3) == "metadata/3.root.json"


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("metadata/timestamp.json", "timestamp"),
        ("metadata/12.root.json", "root"),
        ("metadata/1.app-bins-0f.json", "app-bins-0f"),
        ("metadata/3.my.app.json", "my.app"),
        ("metadata/1.%2Fodd.json", "/odd"),
        ("root.json", "root"),
    ],
)
def test_the_role_of_a_key(key: str, role: str) -> None:
    assert role_of(key) == role


def test_taken_versions_are_the_highest_and_strangers_are_passed_over() -> None:
    keys = [
        "metadata/2.a.json",
        "metadata/10.a.json",
        "metadata/timestamp.json",
        "metadata/x",
        "metadata/0.b.json",
        "y",
    ]
    assert taken_versions(keys) == {"a": 10}


def test_every_role_has_a_bound() -> None:
    assert role_bound("root") == MAX_ROOT
    assert role_bound("anything") == MAX_TARGETS


def test_what_is_no_time_is_none() -> None:
    assert parse_time("2026-01-01T00:00:00Z") is not None
    assert all(parse_time(each) is None for each in (None, 3, "", "2026-01-01", "9999-99-99T00:00:00Z"))
