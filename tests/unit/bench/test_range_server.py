import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.serving import serving


def test_ranges_are_served_and_every_byte_is_counted_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "a.pack").write_bytes(b"0123456789")
    with serving(tmp_path) as server:
        request = urllib.request.Request(f"{server.url}/packs/a.pack", headers={"Range": "bytes=2-4"})
        with urllib.request.urlopen(request) as answer:
            assert (answer.status, answer.read()) == (206, b"234")
        with urllib.request.urlopen(f"{server.url}/packs/a.pack") as answer:
            assert (answer.status, answer.read()) == (200, b"0123456789")
        assert server.take_traffic() == {"requests": 2, "bytes": 13, "folders": {"packs": 13}}
        assert server.take_traffic() == {"requests": 0, "bytes": 0, "folders": {}}


def test_what_is_missing_or_outside_is_a_request_without_bytes(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as server:
        for path in ("nothing", "%2e%2e/secret"):
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                urllib.request.urlopen(f"{server.url}/{path}")
            refused.value.close()
        assert server.take_traffic() == {"requests": 2, "bytes": 0, "folders": {}}
