from datetime import timedelta
from pathlib import Path

import pytest

from instar.errors import Misconfigured, Untrusted
from instar.model.names import Name
from instar.model.version import Version
from instar.publish import (
    Offer,
    Project,
    found_project,
    open_project,
    prune,
    refresh,
    rollout,
    rotate,
    verify_repository,
    yank,
)
from instar.publish.settings import Settings
from instar.storage.memory import MemoryStorage
from instar.testing.clock import FakeClock
from instar.testing.histories import fill
from instar.trust import TrustedMetadata
from instar.trust.keys import create_key
from instar.trust.roles import Authority
from tests.support.projects import bundle, days, in_memory, new_project, publish, publish_many, this_moment


@pytest.fixture
def clock() -> FakeClock:
    return this_moment()


@pytest.fixture
def project(tmp_path: Path, clock: FakeClock) -> Project:
    project = new_project(tmp_path / "project", clock)
    publish_many(project, "1.0", "1.1")
    return project


class TestRefresh:
    def test_nothing_is_signed_before_it_is_due(self, project: Project) -> None:
        before = project.storage.read("metadata/timestamp.json", limit=1 << 20)
        assert refresh(project).renewed == ()
        assert project.storage.read("metadata/timestamp.json", limit=1 << 20) == before

    def test_the_online_key_is_enough_for_months(self, project: Project, clock: FakeClock) -> None:
        (project.folder / "keys" / "owner.pem").unlink()
        clock.advance(days(6))
        assert refresh(project).renewed == ("timestamp",)
        clock.advance(days(20))
        assert refresh(project).renewed == ("app-channels", "snapshot", "timestamp")
        assert min(refresh(project).expires.values()) > clock.now() + days(2)

    def test_what_the_owner_must_sign_is_named_and_the_rest_is_renewed(
        self, project: Project, clock: FakeClock
    ) -> None:
        key = project.folder / "keys" / "owner.pem"
        kept = key.rename(project.folder / "safe.pem")
        clock.advance(days(170))
        with pytest.raises(Misconfigured, match=r"the owner must renew app \(.*\), targets \("):
            refresh(project)
        assert project.roles().expiries()["snapshot"] > clock.now() + days(20)
        kept.rename(key)
        assert refresh(project).renewed == ("app", "targets")

    def test_everything_can_be_renewed_at_once(self, project: Project, clock: FakeClock) -> None:
        clock.advance(days(1))
        assert len(refresh(project, everything=True).renewed) == 6
        assert min(project.roles().expiries().values()) == (clock.now() + days(7)).replace(microsecond=0)

    def test_an_expired_repository_comes_back_to_life(self, project: Project, clock: FakeClock) -> None:
        clock.advance(days(400))
        assert verify_repository(project).problems
        refresh(project)
        assert all(expires > clock.now() for expires in project.roles().expiries().values())


class TestRotate:
    @pytest.mark.parametrize("authority", Authority)
    def test_devices_with_the_first_root_follow(self, project: Project, tmp_path: Path, authority: Authority) -> None:
        path = project.folder / "keys" / f"{authority.value}.pem"
        old = path.read_bytes()
        keyid = rotate(project, authority, passphrase=None)
        assert path.read_bytes() != old
        assert [key.keyid for key in project.roles().keys(authority)] == [keyid]
        device = TrustedMetadata(tmp_path / "cache", root=project.root, fetch=project.fetch, clock=project.clock)
        device.refresh()
        publish(project, "1.2")
        device.refresh()
        assert verify_repository(project).problems == []

    def test_the_old_key_is_worth_nothing_afterwards(self, project: Project) -> None:
        path = project.folder / "keys" / "online.pem"
        old = path.read_bytes()
        rotate(project, Authority.ONLINE, passphrase=None)
        path.write_bytes(old)
        with pytest.raises(Misconfigured, match="not the one that the repository knows"):
            yank(project, Version("1.1"))

    def test_a_key_in_a_service_cannot_be_made_here(self, project: Project) -> None:
        settings = project.folder / "instar.toml"
        settings.write_text(settings.read_text().replace("file:keys/online.pem", "awskms:alias/online"))
        with pytest.raises(Misconfigured, match="not in a file"):
            rotate(open_project(project.folder), Authority.ONLINE, passphrase=None)

    def test_a_new_key_gets_the_passphrase_it_is_given(self, tmp_path: Path) -> None:
        found_project(tmp_path / "p", Settings(Name("app")), secret=lambda: "first")
        asked: list[str] = []

        def ask(what: str) -> str:
            asked.append(what)
            return "first"

        project = open_project(tmp_path / "p", passphrase=ask)
        rotate(project, Authority.ONLINE, passphrase="second")
        with pytest.raises(Misconfigured, match="does not open"):
            publish(project, "1.0")

    def test_a_mistyped_passphrase_leaves_nothing(self, tmp_path: Path) -> None:
        found_project(tmp_path / "p", Settings(Name("app")), secret=lambda: "first")
        for wrong in ("owner", "online"):
            project = open_project(
                tmp_path / "p", passphrase=lambda what, w=wrong: "no" if f"{w}.pem" in what else "first"
            )
            with pytest.raises(Misconfigured, match=f"does not open .*{wrong}.pem"):
                rotate(project, Authority.ONLINE, passphrase="second")
        assert sorted(path.name for path in (tmp_path / "p" / "keys").iterdir()) == ["online.pem", "owner.pem"]

    def test_each_passphrase_is_asked_for_once(self, tmp_path: Path) -> None:
        found_project(tmp_path / "p", Settings(Name("app")), secret=lambda: "first")
        asked: list[str] = []

        def ask(what: str) -> str:
            asked.append(what.rpartition("/")[2])
            return "first"

        rotate(open_project(tmp_path / "p", passphrase=ask), Authority.OWNER, passphrase="second")
        assert sorted(asked) == ["online.pem", "owner.pem"]

    def test_another_repositorys_key_is_not_rotated(self, project: Project, tmp_path: Path) -> None:
        other = new_project(tmp_path / "other")
        key = project.folder / "keys" / "online.pem"
        key.write_bytes((other.folder / "keys" / "online.pem").read_bytes())
        with pytest.raises(Misconfigured, match="not the one that the repository knows"):
            rotate(project, Authority.ONLINE, passphrase=None)
        assert sorted(path.name for path in key.parent.iterdir()) == ["online.pem", "owner.pem"]

    def test_a_rotation_that_was_stopped_goes_on_with_the_key_it_made(self, tmp_path: Path) -> None:
        found_project(tmp_path / "p", Settings(Name("app")), secret=lambda: "first")
        project = open_project(tmp_path / "p", passphrase=lambda _: "first")
        create_key(tmp_path / "p" / "keys" / "online.next.pem", passphrase="second")
        with pytest.raises(Misconfigured, match="did not come to its end") as caught:
            rotate(project, Authority.ONLINE, passphrase="third")
        assert "that you gave then" in str(caught.value)
        rotate(project, Authority.ONLINE, passphrase="second")
        assert not list((tmp_path / "p" / "keys").glob("*next*"))


class TestPrune:
    def test_what_was_in_use_within_a_day_stays(self, project: Project) -> None:
        assert prune(project).objects == ()

    def test_replaced_metadata_goes_after_a_day_and_everything_in_use_stays(
        self, project: Project, clock: FakeClock
    ) -> None:
        clock.advance(days(2))
        seen = prune(project, dry_run=True)
        assert seen.objects
        assert prune(project) == seen
        assert {key.partition("/")[0] for key in seen.objects} == {"metadata", "targets"}
        assert prune(project).objects == ()
        assert verify_repository(project).releases == 2
        assert not [p for p in verify_repository(project).problems if "ended" not in p.what and "ran out" not in p.what]

    def test_what_was_replaced_just_now_stays_however_old_it_is(self, tmp_path: Path, clock: FakeClock) -> None:
        project = in_memory(new_project(tmp_path / "project", clock))
        publish(project, "1.0")
        clock.advance(days(25))
        snapshot = f"metadata/{project.roles().published['snapshot']}.snapshot.json"
        listed = project.roles().target("app/channels.json")
        assert listed
        rollout(project, Version("1.0"), Offer(50))
        in_use = {snapshot, listed.key}
        # A device may have read the timestamp a moment ago, and comes for the rest now.
        assert not in_use & set(prune(project).objects)
        clock.advance(days(2))
        assert in_use <= set(prune(project).objects)

    def test_old_releases_outside_every_channel_are_given_up(self, tmp_path: Path, clock: FakeClock) -> None:
        project = in_memory(new_project(tmp_path / "project", clock))
        fill(project, 50)
        gone = prune(project, keep=5)
        assert len(gone.releases) == 50 - 32
        assert gone.objects == ()
        clock.advance(days(2))
        # Their manifests could still be read by those who were at it; now nobody is.
        assert len([key for key in prune(project).objects if key.endswith(".manifest")]) == 18
        assert len(project.roles().targets("app")) == 32

    def test_packs_that_later_releases_use_stay(self, tmp_path: Path, clock: FakeClock) -> None:
        project = new_project(tmp_path / "project", clock)
        tree = bundle(tmp_path / "tree", "same", lines=5000)
        publish(project, "1.0", tree)
        publish(project, "1.1", tree)
        with_old = len(list(project.storage.list("packs/")))
        clock.advance(days(3))
        prune(project, keep=1)
        clock.advance(days(3))
        prune(project, keep=1)
        assert len(list(project.storage.list("packs/"))) == with_old
        assert verify_repository(project).files == 3

    def test_what_nobody_names_goes_and_what_is_not_instars_stays(self, project: Project, clock: FakeClock) -> None:
        orphan = "packs/ab/" + "ab" * 32 + ".pack"
        project.storage.write(orphan, b"left over")
        project.storage.write("robots.txt", b"User-agent: *")
        clock.advance(days(2))
        assert orphan in prune(project).objects
        assert project.storage.read("robots.txt", limit=100) == b"User-agent: *"

    def test_metadata_left_over_with_a_higher_number_never_hides_what_is_current(
        self, project: Project, clock: FakeClock
    ) -> None:
        assert not isinstance(project.storage, MemoryStorage)
        version = project.roles().published["app"]
        current = project.storage.read(f"metadata/{version}.app.json", limit=1 << 20)
        project.storage.write(f"metadata/{version + 7}.app.json", current)
        clock.advance(days(30))
        prune(project)
        assert project.storage.read(f"metadata/{version}.app.json", limit=1 << 20) == current
        # The next publication takes a number above it.
        publish(project, "1.2")
        assert project.roles().published["app"] == version + 8

    def test_at_least_one_release_stays(self, project: Project) -> None:
        with pytest.raises(Misconfigured, match="At least one"):
            prune(project, keep=0)

    def test_a_manifest_that_was_tampered_with_stops_it(self, project: Project, clock: FakeClock) -> None:
        clock.advance(timedelta(days=2))
        path = next(project.storage.root.glob("targets/app/*.manifest"))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(Untrusted):
            prune(project)
