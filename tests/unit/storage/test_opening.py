"""From what a person writes to a storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar.errors import Misconfigured
from instar.storage import HttpOptions, HttpReader, LocalStorage, MirrorReader, open_reader, open_storage


def test_a_folder_is_a_storage(tmp_path: Path) -> None:
    for location in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri(), f"file://localhost{tmp_path}/a%20b"):
        storage = open_storage(location)
        assert isinstance(storage, LocalStorage)
        assert storage.root == tmp_path / "a b"


def test_a_relative_folder_starts_where_it_is_told(tmp_path: Path) -> None:
    storage = open_storage("storage", base=tmp_path)
    assert isinstance(storage, LocalStorage)
    assert storage.root == tmp_path / "storage"
    absolute = open_storage("/srv/updates", base=tmp_path)
    assert isinstance(absolute, LocalStorage)
    assert absolute.root == Path("/srv/updates")


@pytest.mark.parametrize("location", ["https://example.com/x", "s3://bucket/x", "http://127.0.0.1/"])
def test_a_web_address_cannot_be_published_to(location: str) -> None:
    with pytest.raises(Misconfigured, match="published to"):
        open_storage(location)


@pytest.mark.parametrize("location", ["", "file://", "file://other.host/x", "https://[::1"])
def test_what_names_nothing_is_refused(location: str) -> None:
    with pytest.raises(Misconfigured):
        open_storage(location)
    with pytest.raises(Misconfigured):
        open_reader(location)


def test_one_address_is_one_reader(tmp_path: Path) -> None:
    assert isinstance(open_reader(str(tmp_path)), LocalStorage)
    with open_reader("https://example.com/app/") as reader:
        assert isinstance(reader, HttpReader)
        assert reader.base_url == "https://example.com/app/"
    with open_reader(["https://example.com/app"]) as reader:
        assert isinstance(reader, HttpReader)


def test_several_addresses_are_mirrors_in_their_order(tmp_path: Path) -> None:
    with open_reader(["https://example.com", tmp_path.as_uri()]) as reader:
        assert isinstance(reader, MirrorReader)
        first, second = reader.alternatives()
    assert isinstance(first, HttpReader)
    assert isinstance(second, LocalStorage)


def test_options_reach_the_reader() -> None:
    with pytest.raises(Misconfigured):
        open_reader("http://example.com")
    open_reader("http://example.com", HttpOptions(insecure_http=True)).close()


@pytest.mark.parametrize("location", ["s3://bucket", "ftp://host/x"])
def test_an_unknown_kind_of_address_is_refused(location: str) -> None:
    with pytest.raises(Misconfigured):
        open_reader(location)


def test_no_address_is_refused() -> None:
    with pytest.raises(Misconfigured):
        open_reader([])
