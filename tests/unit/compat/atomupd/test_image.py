"""Reading manifests: as lenient as the protocol asks for, and not more."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.compat.atomupd.image import Image
from instar.compat.atomupd.paths import exact_path, fallback_path, penultimate_path, remote_info_path
from instar.compat.atomupd.version import BuildId, ImageVersion

FIELDS: dict[str, Any] = {
    "product": "steamos",
    "release": "holo",
    "variant": "steamdeck",
    "branch": "stable",
    "arch": "amd64",
    "version": "3.7.1",
    "buildid": "20240115.100",
}


def image(**changed: Any) -> Image:
    fields = {key: value for key, value in (FIELDS | changed).items() if value is not None}
    return Image.parse(fields)[0]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("3", "3.0.0"),
        ("3.1", "3.1.0"),
        ("3.1.2", "3.1.2"),
        ("03.01", "3.1.0"),
        ("3.6-rc1", "3.6.0-rc1"),
        ("3.6.0rc1", "3.6.0-rc1"),
        ("3.6.6_1", "3.6.6-1"),
        ("3.6.6+git.5", "3.6.6+git.5"),
        ("3.6.6+git+5", "3.6.6+git.5"),
        ("3.6.6.1", "3.6.6.1"),
        ("3.6.a", "3.6.0+a"),
    ],
)
def test_versions_are_filled_in(written: str, read: str) -> None:
    assert str(ImageVersion.coerce(written)) == read


@pytest.mark.parametrize("written", ["", "valentine", "v3", ".1", "3" * 65, "٣.1"])
def test_what_does_not_begin_with_a_number_is_no_version(written: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        ImageVersion.coerce(written)


def test_versions_are_in_the_order_of_semantic_versions() -> None:
    # The example of semver.org, 11, between two neighbours.
    order = (
        "0.9 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.0.1"
    )
    keys = [ImageVersion.coerce(text).key for text in [*order.split(), "1.0.1"]]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert ImageVersion.coerce("1.0+a").key == ImageVersion.coerce("1.0+b").key


@pytest.mark.parametrize("written", ["", "2018", "20189999", "20180214.-6", "20180214.12.34", "20180214.", "x0180214"])
def test_a_build_id_is_a_day_and_a_number(written: str) -> None:
    with pytest.raises(ValueError, match="not a build id"):
        BuildId.parse(written)


def test_a_build_without_number_is_the_first_of_its_day() -> None:
    assert str(BuildId.parse("20190214")) == "20190214.0"
    assert BuildId.parse("20190214") < BuildId.parse("20190214.1") < BuildId.parse("20190215")


ORDER = [
    # older                                          newer
    ({"version": "3"}, {"version": "3.1", "buildid": "20200101"}),
    ({"version": "4.2-rc1"}, {"version": "4.2"}),
    ({"release": "clockwerk"}, {"release": "holo", "buildid": "20200101"}),
    ({"buildid": "20240115.99"}, {}),
    # Without a version on one side, release and build decide.
    ({"version": "snapshot"}, {"version": "1.0", "buildid": "20240116"}),
    ({"version": "9.0"}, {"version": "snapshot", "buildid": "20240116"}),
]


@pytest.mark.parametrize(("older", "newer"), ORDER)
def test_images_are_in_order(older: dict[str, str], newer: dict[str, str]) -> None:
    one, other = image(**older).order, image(**newer).order
    assert one < other
    assert not other < one


def test_values_may_be_strings_as_in_a_query() -> None:
    found = image(
        checkpoint="False",
        introduces_checkpoint="3",
        requires_checkpoint="1",
        shadow_checkpoint="TRUE",
        skip="false",
        estimated_size="12312345",
    )
    assert (found.introduces_checkpoint, found.requires_checkpoint) == (3, 1)
    assert (found.shadow_checkpoint, found.skip, found.estimated_size) == (True, False, 12312345)


@pytest.mark.parametrize(
    ("branch", "default", "read"),
    [("beta", "stable", ("beta", "stable")), ("beta", None, ("beta", "beta")), (None, "beta", ("beta", "beta"))],
)
def test_branch_and_default_stand_for_each_other(
    branch: str | None, default: str | None, read: tuple[str, str]
) -> None:
    found = image(branch=branch, default_update_branch=default)
    assert (found.branch, found.default_update_branch) == read


@pytest.mark.parametrize(
    ("variant", "branch"), [("steamdeck", "stable"), ("steamdeck-beta", "beta"), ("steamdeck-a-b", "a-b")]
)
def test_an_image_without_a_branch_carries_it_in_its_variant(variant: str, branch: str) -> None:
    found = image(branch=None, variant=variant)
    assert (found.variant, found.branch) == ("steamdeck", branch)
    exported = found.export()
    assert exported["variant"] == variant
    assert not {"branch", "default_update_branch"} & exported.keys()


@pytest.mark.parametrize("variant", ["vanilla", "steamdeck-", "vanilla-beta"])
def test_no_other_variant_is_one_from_before_there_were_branches(variant: str) -> None:
    with pytest.raises(ValueError, match="names no 'branch'"):
        image(branch=None, variant=variant)


def test_unknown_keys_are_remarked_and_x86_64_is_amd64() -> None:
    found, warnings = Image.parse(FIELDS | {"colour": "red", "arch": "x86_64"})
    assert found.arch == "amd64"
    assert len(warnings) == 1
    assert "'colour'" in warnings[0]


@pytest.mark.parametrize("key", ["product", "release", "variant", "arch", "version", "buildid"])
def test_what_is_mandatory_must_be_there(key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' is missing"):
        image(**{key: None})


@pytest.mark.parametrize(
    "changed",
    [
        {"checkpoint": True},
        {"checkpoint": "true"},
        {"requires_checkpoint": -1},
        {"requires_checkpoint": "one"},
        {"requires_checkpoint": True},
        {"requires_checkpoint": 1.0},
        {"skip": 1},
        {"product": 5},
        {"product": ""},
        {"product": "a\nb"},
        {"conditions": ["gpu"]},
        {"conditions": {"gpu": "x"}},
    ],
)
def test_what_cannot_be_understood_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        image(**changed)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"1", b"[" * 100_000])
def test_what_is_no_json_object_is_no_manifest(data: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Image.parse_json(data)


@given(
    st.dictionaries(st.sampled_from([*FIELDS, "skip", "requires_checkpoint"]), st.text() | st.integers() | st.none())
)
def test_any_document_is_an_image_or_refused(changed: dict[str, Any]) -> None:
    try:
        found, _ = Image.parse_json(json.dumps(FIELDS | changed).encode())
    except ValueError:
        return
    assert ".." not in exact_path(found, "stable").split("/")


CHECKPOINTS = [
    ({}, {}),
    ({"requires_checkpoint": 1}, {"requires_checkpoint": 1}),
    ({"introduces_checkpoint": 1}, {"introduces_checkpoint": 1, "requires_checkpoint": 0}),
    ({"introduces_checkpoint": 2, "requires_checkpoint": 1}, {"introduces_checkpoint": 2, "requires_checkpoint": 1}),
]


@pytest.mark.parametrize(("given_fields", "said"), CHECKPOINTS)
def test_checkpoints_are_only_said_where_there_are_any(given_fields: dict[str, int], said: dict[str, int]) -> None:
    exported = image(**given_fields).export()
    assert {key: value for key, value in exported.items() if key.endswith("_checkpoint")} == said


PATHS = [
    # image                                   branch    exact, then fallback, second last, what may be chosen
    (
        {},
        "beta",
        "holo/steamos/amd64/steamdeck/beta/3.7.1/20240115.100.json",
        "holo/steamos/amd64/steamdeck/beta.json",
        "holo/steamos/amd64/steamdeck/beta.second_last.json",
        "holo/steamos/amd64/steamdeck/remote-info.conf",
    ),
    (
        {"requires_checkpoint": 1, "introduces_checkpoint": 2},
        "stable",
        "holo/steamos/amd64/steamdeck/stable/3.7.1/20240115.100.json",
        "holo/steamos/amd64/steamdeck/stable.cp2.json",
        "holo/steamos/amd64/steamdeck/stable.cp2.second_last.json",
        "holo/steamos/amd64/steamdeck/remote-info.conf",
    ),
    (
        {"branch": None, "version": "snapshot", "requires_checkpoint": 1},
        "beta",
        "steamos/amd64/snapshot/steamdeck-beta/20240115.100.json",
        "steamos/amd64/snapshot/steamdeck-beta.cp1.json",
        "steamos/amd64/snapshot/steamdeck-beta.cp1.second_last.json",
        "steamos/amd64/snapshot/remote-info.conf",
    ),
    (
        {"release": "..", "product": ".a/b", "variant": "ü x", "version": "3.7+1"},
        "stable",
        "_./_a_b/amd64/%C3%BC%20x/stable/3.7.0%2B1/20240115.100.json",
        "_./_a_b/amd64/%C3%BC%20x/stable.json",
        "_./_a_b/amd64/%C3%BC%20x/stable.second_last.json",
        "_./_a_b/amd64/%C3%BC%20x/remote-info.conf",
    ),
]


@pytest.mark.parametrize(("changed", "branch", "exact", "fallback", "second_last", "info"), PATHS)
def test_where_answers_lie(
    changed: dict[str, Any], branch: str, exact: str, fallback: str, second_last: str, info: str
) -> None:
    found = image(**changed)
    assert exact_path(found, branch) == exact
    assert fallback_path(found, branch) == fallback
    assert penultimate_path(found, branch) == second_last
    assert remote_info_path(found) == info
