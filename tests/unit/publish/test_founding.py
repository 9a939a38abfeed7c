import stat
from pathlib import Path

import pytest

from instar.errors import Misconfigured
from instar.model.names import ProductName
from instar.publish import Settings, found_project, open_project, verify_repository
from tests.support.projects import new_project, publish, snapshot_of

SETTINGS = Settings(ProductName("app"), urls=("https://updates.example/",))


def secret() -> str:
    return "correct horse"


def test_a_project_has_keys_settings_a_root_and_a_sound_empty_repository(tmp_path: Path) -> None:
    project = found_project(tmp_path / "p", SETTINGS, secret=secret)
    for name in ("owner", "online"):
        key = tmp_path / "p" / "keys" / f"{name}.pem"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert b"ENCRYPTED" in key.read_bytes()
    assert (tmp_path / "p" / "root.json").read_bytes() == project.fetch("metadata/1.root.json", 1 << 20)
    assert (tmp_path / "p" / ".gitignore").read_text().split() == [
        "/.instar-work/",
        "/keys/",
        "/repository/",
        "/.instar-seen.json",
    ]
    assert open_project(tmp_path / "p").settings.urls == SETTINGS.urls
    assert verify_repository(project).problems == []


def test_a_second_init_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    new_project(tmp_path / "p")
    before = snapshot_of(tmp_path / "p")
    with pytest.raises(Misconfigured, match="holds a project already"):
        found_project(tmp_path / "p", SETTINGS, secret=secret)
    assert snapshot_of(tmp_path / "p") == before


def test_keys_elsewhere_are_used_and_not_overwritten(tmp_path: Path) -> None:
    found_project(tmp_path / "a", SETTINGS, secret=secret, keys=tmp_path / "safe")
    before = snapshot_of(tmp_path / "safe")
    project = found_project(tmp_path / "b", SETTINGS, secret=secret, keys=tmp_path / "safe")
    assert snapshot_of(tmp_path / "safe") == before
    assert project.settings.keys.owner == f"file:{tmp_path / 'safe' / 'owner.pem'}"
    with pytest.raises(Misconfigured, match="does not open"):
        found_project(tmp_path / "c", SETTINGS, secret=lambda: "wrong", keys=tmp_path / "safe")


def test_lines_of_an_existing_gitignore_stay(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\n/keys/")
    new_project(tmp_path)
    assert (tmp_path / ".gitignore").read_text().split() == [
        "*.pyc",
        "/keys/",
        "/.instar-work/",
        "/repository/",
        "/.instar-seen.json",
    ]


def test_a_storage_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "index.html").write_text("hello")
    with pytest.raises(Misconfigured, match="not empty"):
        found_project(tmp_path / "p", Settings(ProductName("app"), str(tmp_path / "www")), secret=None)
    assert list(snapshot_of(tmp_path / "www")) == ["index.html"]


def test_somebody_elses_repository_is_refused(tmp_path: Path) -> None:
    publish(new_project(tmp_path / "a"), "1.0")
    before = snapshot_of(tmp_path / "a" / "repository")
    theirs = Settings(ProductName("app"), str(tmp_path / "a" / "repository"))
    with pytest.raises(Misconfigured, match="made with other keys"):
        found_project(tmp_path / "b", theirs, secret=None)
    assert snapshot_of(tmp_path / "a" / "repository") == before


def test_keys_never_lie_in_the_storage(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="for everybody to read"):
        found_project(tmp_path / "p", Settings(ProductName("app"), "."), secret=None)
    assert not list((tmp_path / "p").rglob("*.pem"))


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    def nobody() -> str:
        msg = "there is nobody to ask"
        raise Misconfigured(msg)

    with pytest.raises(Misconfigured, match="nobody to ask"):
        found_project(tmp_path / "p", SETTINGS, secret=nobody)
    with pytest.raises(Misconfigured, match="not a storage"):
        found_project(tmp_path / "p", Settings(ProductName("app"), "s3://bucket/updates"), secret=None)
    with pytest.raises(Misconfigured, match="for everybody to read"):
        found_project(tmp_path / "p", Settings(ProductName("app"), "."), secret=None)
    assert not (tmp_path / "p").exists()


def test_a_gitignore_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match="no text"):
        new_project(tmp_path)
    assert (tmp_path / ".gitignore").read_bytes() == b"\xff\xfe"


def test_a_project_without_its_root_says_what_to_do(tmp_path: Path) -> None:
    new_project(tmp_path / "p")
    (tmp_path / "p" / "root.json").unlink()
    with pytest.raises(Misconfigured, match=r"trusted root .* version control"):
        open_project(tmp_path / "p")


def test_an_encrypted_key_is_asked_for_only_by_what_needs_it(tmp_path: Path) -> None:
    found_project(tmp_path / "p", SETTINGS, secret=secret)
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return secret()

    publish(open_project(tmp_path / "p", passphrase=ask), "1.0")
    assert [name.rpartition("/")[2] for name in asked] == ["owner.pem", "online.pem"]
    with pytest.raises(Misconfigured, match="nobody to ask"):
        publish(open_project(tmp_path / "p"), "1.1")
