from typing import Any

import pytest

from instar.errors import Untrusted
from instar.model.digest import Digest
from instar.publish.history import json_of, split_path
from instar.trust.layout import Target, manifest_path


@pytest.mark.parametrize(
    ("platform", "version"),
    [("linux-x86_64", "1.0"), ("steam-deck-oled", "2.0rc1.post3.dev4"), ("any", "1!2.0+local.7")],
)
def test_a_manifests_path_says_platform_and_version(platform: str, version: str) -> None:
    found = split_path(manifest_path("app", platform, version))
    assert (str(found[0]), str(found[1])) == (platform, version)


@pytest.mark.parametrize("path", ["app/channels.json", "app/security-floor", "app/linux.manifest", "app/-1.0.manifest"])
def test_other_paths_are_no_manifests(path: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_path(path)


@pytest.mark.parametrize(
    "custom",
    [
        {},
        {"json": None},
        {"json": {"sha256": "00", "size": 1}},
        {"json": {"sha256": "0" * 64, "size": "1"}},
        {"json": {"sha256": "0" * 64, "size": True}},
        {"json": {"sha256": 7, "size": 1}},
        {"json": {"size": 1}},
    ],
)
def test_metadata_that_does_not_say_what_a_manifest_holds_is_not_trusted(custom: dict[str, Any]) -> None:
    target = Target("app/any-1.0.manifest", "targets/app/x", 1, Digest.of(b"x"), custom)
    with pytest.raises(Untrusted, match="does not say what the manifest"):
        json_of(target)
