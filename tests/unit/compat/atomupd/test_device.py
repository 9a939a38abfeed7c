"""The device's side against a server that is a folder in memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from instar.compat.atomupd.device import (
    ClientSettings,
    Found,
    NothingThere,
    Step,
    WebServer,
    install_update,
    query_update,
    record_update,
    running_image,
)
from instar.compat.atomupd.image import Image
from instar.compat.atomupd.osrelease import describe_system, make_manifest, parse_os_release
from instar.errors import Misconfigured, NotFound, Unavailable, Untrusted
from instar.install.rauc import OnPercent
from instar.storage import HttpOptions, HttpReader, MemoryStorage
from instar.testing.http import FaultyServer, Status
from tests.support.atomupd_pools import fields_of

OWN = "3.6.5 20240104.1 stable"
EXACT = "holo/steamos/amd64/steamdeck/stable/3.6.5/20240104.1.json"
FALLBACK = "holo/steamos/amd64/steamdeck/stable.json"


def image(line: str = OWN, **more: Any) -> Image:
    return Image.parse(fields_of(line)[0] | more)[0]


def answer(*lines: str, **more: Any) -> bytes:
    candidates = [{"image": image(line, **more).export(), "update_path": f"{line.split()[1]}.raucb"} for line in lines]
    return json.dumps({"minor": {"release": "holo", "candidates": candidates}}).encode()


class Shelf:
    """A server with these answers; it remembers what it was asked."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = {
            EXACT if key == "exact" else FALLBACK if key == "fallback" else key: answers[key] for key in answers
        }
        self.asked: list[str] = []

    def read(self, path: str) -> bytes:
        self.asked.append(path)
        if path not in self.answers:
            msg = "no such file"
            raise NotFound(msg)
        return self.answers[path]

    ask = read


def builds(found: Found) -> list[str]:
    return [str(step.image.buildid) for step in found.steps]


def test_the_exact_answer_is_asked_for_first() -> None:
    shelf = Shelf(exact=answer("3.7 20240115.1 stable i1", "3.8 20240116.1 stable r1"), fallback=answer())
    assert builds(query_update(shelf, image())) == ["20240115.1", "20240116.1"]
    assert shelf.asked == [EXACT]


def test_an_unknown_build_gets_the_fallback() -> None:
    shelf = Shelf(fallback=answer("3.7 20240115.1 stable"))
    assert builds(query_update(shelf, image())) == ["20240115.1"]
    assert shelf.asked == [EXACT, FALLBACK]


def test_when_all_is_refused_it_is_said() -> None:
    with pytest.raises(NothingThere) as caught:
        query_update(Shelf(), image())
    assert caught.value.exit_code == 2


ADDRESSES = [
    ({"variant": "vanilla"}, "holo/steamos/amd64/vanilla/stable.json"),
    ({"variant": "steamdeck", "branch": "beta"}, "holo/steamos/amd64/steamdeck/beta/3.6.5/20240104.1.json"),
    ({"penultimate": True}, "holo/steamos/amd64/steamdeck/stable.second_last.json"),
    ({"penultimate": True, "variant": "vanilla"}, "holo/steamos/amd64/vanilla/stable.second_last.json"),
]


@pytest.mark.parametrize(("wanted", "address"), ADDRESSES)
def test_the_addresses_that_are_asked(wanted: dict[str, Any], address: str) -> None:
    shelf = Shelf(**{address: answer()})
    query_update(shelf, image(), **wanted)
    assert shelf.asked == [address]


def test_the_image_itself_decides_the_branch_unless_another_is_asked_for() -> None:
    shelf = Shelf()
    with pytest.raises(NothingThere):
        query_update(shelf, image(default_update_branch="rc"))
    assert "/rc/" in shelf.asked[0]


def test_a_dynamic_server_is_asked_with_the_fields_of_the_image() -> None:
    query = "product=steamos&release=holo&variant=steamdeck&arch=amd64&version=3.6.5&buildid=20240104.1"
    query += "&branch=stable&default_update_branch=beta&fact.gpu=x+y"
    shelf = Shelf(**{query: b""})
    assert query_update(shelf, image(), dynamic=True, branch="beta", facts={"gpu": "x y"}) == Found()


def test_a_dynamic_server_is_asked_for_another_variant_but_not_for_the_penultimate() -> None:
    shelf = Shelf()
    with pytest.raises(NothingThere):
        query_update(shelf, image(), dynamic=True, variant="vanilla")
    assert "variant=vanilla&" in shelf.asked[0]
    with pytest.raises(Misconfigured, match="--penultimate"):
        query_update(shelf, image(), dynamic=True, penultimate=True)


def test_an_image_that_runs_already_is_passed_over_but_never_led_back_to() -> None:
    shelf = Shelf(exact=answer(OWN, "3.8 20240116.1 stable r1"))
    found = query_update(shelf, image())
    assert builds(found) == ["20240116.1"]
    assert len(found.document["minor"]["candidates"]) == 1
    assert query_update(Shelf(exact=answer(OWN)), image()) == Found()
    with pytest.raises(Untrusted, match="leads back"):
        query_update(Shelf(exact=answer("3.7 20240115.1 stable", OWN)), image())


@pytest.mark.parametrize(
    ("facts", "offered"), [({}, False), ({"gpu": "old"}, False), ({"gpu": "new"}, True)], ids=["unknown", "no", "yes"]
)
def test_facts_about_the_hardware_withhold_an_update(facts: dict[str, str], offered: bool) -> None:
    shelf = Shelf(exact=answer("3.7 20240115.1 stable", conditions={"gpu": ["new", "newer"]}))
    found = query_update(shelf, image(), facts=facts)
    assert (bool(found.steps), found.withheld) == (offered, not offered)


BROKEN = [
    b"{",
    b"[]",
    b"1",
    b'{"minor": 5}',
    b'{"minor": {"candidates": [{}]}}',
    answer("3.7 20240115.1 stable").replace(b"20240115.1.raucb", b"/etc/passwd"),
    b'{"minor": {"candidates": [{"image": 5, "update_path": "a"}]}}',
    answer("3.7 20240115.1 stable").replace(b"20240115.1.raucb", rb"\ud800.raucb"),
    b'{"minor": {"candidates": [], "replacement_eol_variant": ["x"]}}',
    rb'{"minor": {"candidates": [], "replacement_eol_variant": "\u001b[2J"}}',
]


@pytest.mark.parametrize("data", BROKEN)
def test_an_answer_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(Untrusted, match="cannot be understood"):
        query_update(Shelf(exact=data), image())


@pytest.mark.parametrize("data", [b"", b"\n", b"{}", b'{"minor": null}'])
def test_nothing_is_no_update(data: bytes) -> None:
    assert query_update(Shelf(exact=data), image()) == Found()


def test_what_was_found_is_written_down_and_removed_when_there_is_nothing_more(tmp_path: Path) -> None:
    found = query_update(Shelf(exact=answer("3.7 20240115.1 stable")), image())
    path = record_update(found, tmp_path / "run")
    assert path == tmp_path / "run/update.json"
    assert json.loads(path.read_text()) == found.document
    assert record_update(Found(), tmp_path / "run") is None
    assert not path.exists()
    assert record_update(Found(), tmp_path / "none") is None


def test_a_runtime_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = query_update(Shelf(exact=answer("3.7 20240115.1 stable")), image())
    with pytest.raises(Misconfigured, match="RuntimeDir"):
        record_update(found, tmp_path / "file")


class Recorder:
    def __init__(self) -> None:
        self.installed: list[str] = []

    def install(self, bundle: str, *, on_percent: OnPercent) -> None:
        on_percent(100)
        self.installed.append(bundle)


def install(update_path: str, images_url: str = "https://images.example/all/", *, insecure: bool = False) -> list[str]:
    recorder = Recorder()
    step = Step(image(), update_path)
    install_update(step, images_url, recorder, on_percent=lambda _: None, insecure_http=insecure)
    return recorder.installed


def test_the_bundle_is_below_the_address_of_the_images() -> None:
    assert install("a b/c#d.raucb") == ["https://images.example/all/a%20b/c%23d.raucb"]
    assert install("a.raucb", "http://127.0.0.1:8000/") == ["http://127.0.0.1:8000/a.raucb"]
    assert install("a.raucb", "http://images.example/", insecure=True) == ["http://images.example/a.raucb"]


@pytest.mark.parametrize("path", ["../other.raucb", "/other.raucb", "a/../../b.raucb", "//evil.example/x.raucb"])
def test_no_answer_leads_elsewhere(path: str) -> None:
    with pytest.raises(Untrusted, match="outside of"):
        install(path)


def test_images_without_tls_need_an_option_that_says_insecure() -> None:
    with pytest.raises(Misconfigured, match="insecure"):
        install("a.raucb", "http://images.example/")


@pytest.mark.parametrize("address", ["ftp://images.example/", "images/", "nbd://images.example/", "//images.example/"])
@pytest.mark.parametrize("insecure", [False, True])
def test_images_at_what_is_no_https_address_are_refused(address: str, insecure: bool) -> None:
    with pytest.raises(Misconfigured, match="ImagesUrl"):
        install("a.raucb", address, insecure=insecure)


@pytest.mark.parametrize(("status", "refused"), [(400, True), (401, True), (403, True), (404, True), (500, False)])
def test_which_answers_are_refusals(status: int, refused: bool) -> None:
    options = HttpOptions(attempts=1)
    with FaultyServer(MemoryStorage()) as faulty:
        faulty.fault(Status(status), times=None)
        server = WebServer(HttpReader(faulty.url, options))
        for ask, what in ((server.read, EXACT), (server.ask, "product=x")):
            with pytest.raises(Unavailable) as caught:
                ask(what)
            assert isinstance(caught.value, NotFound) is refused


SETTINGS = """\
[Server]
MetaUrl = https://meta.example
ImagesUrl = https://images.example/all
Variants = steamdeck;vanilla
Branches = stable ; beta;
[Host]
RuntimeDir = /run/x
"""


def test_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "client.conf"
    path.write_text(SETTINGS)
    found = ClientSettings.read(path)
    assert (found.meta_url, found.query_url) == ("https://meta.example", None)
    assert found.images_url == "https://images.example/all/"
    assert (found.variants, found.branches) == (("steamdeck", "vanilla"), ("stable", "beta"))
    assert (found.runtime, found.manifest) == (Path("/run/x"), Path("/etc/steamos-atomupd/manifest.json"))


@pytest.mark.parametrize(
    "text", ["", "[Server]\n", "[Server]\nMetaUrl = https://a\n", "[Server]\nImagesUrl = https://a\n", "x"]
)
def test_a_configuration_that_lacks_something_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "client.conf"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=str(path)):
        ClientSettings.read(path)


OS_RELEASE = """\
# a system
ID=steamos
VERSION_CODENAME=holo
VARIANT_ID="steamdeck"
VERSION_ID='3.6'
BUILD_ID=20240104.1
STEAMOS_DEFAULT_UPDATE_BRANCH=stable
BROKEN="
no assignment
"""


def test_a_system_without_a_manifest_is_described_by_os_release(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text(OS_RELEASE)
    found = running_image(tmp_path / "none", release, "x86_64")
    assert found == image("3.6 20240104.1 stable")
    fields, described = describe_system(release, "x86_64", {"branch": "beta", "skip": False, "requires_checkpoint": 2})
    manifest = json.loads(make_manifest(fields, described))
    assert Image.parse(manifest)[0] == described
    assert (described.branch, described.default_update_branch, described.requires_checkpoint) == ("beta", "stable", 2)
    assert (manifest["version"], manifest["arch"], "skip" in manifest) == ("3.6.0", "amd64", False)
    assert "BROKEN" not in parse_os_release(OS_RELEASE)


def test_a_system_that_does_not_say_what_it_is_is_told_what_is_missing(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text(OS_RELEASE.replace("BUILD_ID", "OTHER"))
    with pytest.raises(Misconfigured, match=r"does not say BUILD_ID.*--buildid"):
        running_image(tmp_path / "none", release, "x86_64")
    release.write_text(OS_RELEASE.replace("20240104.1", "tomorrow"))
    with pytest.raises(Misconfigured, match="not a build id"):
        running_image(tmp_path / "none", release, "x86_64")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(Misconfigured, match="manifest"):
        running_image(tmp_path / "manifest.json", release, "x86_64")
    with pytest.raises(Misconfigured, match="cannot be read"):
        running_image(tmp_path / "none", tmp_path / "none", "x86_64")
