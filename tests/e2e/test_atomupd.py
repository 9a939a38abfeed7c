"""A pool of real bundles, a tree, a server and a device: real ``instar``, ``rauc``, ``casync`` and ``unsquashfs``."""

from __future__ import annotations

import functools
import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.compat.atomupd.caibx import read_index
from instar.compat.atomupd.pool import read_pool
from instar.compat.atomupd.settings import ServerSettings
from instar.compat.atomupd.sizes import BundleSizes
from instar.storage import LocalStorage
from instar.system.files import remove_tree
from instar.testing.http import FaultyServer, Status
from instar.trust.keys import create_unencrypted_key
from tests.support.atomupd_pools import add_image, make_pool, write_settings

needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("rauc", "casync", "unsquashfs", "mksquashfs", "openssl")),
    reason="needs rauc, casync, squashfs-tools and openssl",
)
needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("dbus-run-session") is None,
    reason="RAUC mounts bundles: needs root, loop devices and a session bus",
)
PATIENCE = 60
STABLE = "holo/steamos/amd64/steamdeck/stable"


def run(*arguments: object, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "instar", "atomupd", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env=os.environ | environment,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def tool(*argv: object, folder: Path) -> None:
    subprocess.run([*map(str, argv)], cwd=folder, check=True, capture_output=True, timeout=PATIENCE)


def make_keys(folder: Path) -> None:
    subject = ["-subj", "/CN=test", "-keyout", "key.pem", "-out", "cert.pem"]
    tool("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", *subject, folder=folder)


def make_bundle(folder: Path, manifest: Path, content: bytes) -> None:
    """Put a real bundle and a real chunk store in the place of the empty ones beside a manifest."""
    stem = str(manifest).removesuffix(".manifest.json")
    inside = folder / "inside"
    remove_tree(inside)
    inside.mkdir()
    (folder / "image").write_bytes(content)
    tool("casync", "make", f"--store={stem}.castr", inside / "rootfs.img.caibx", "image", folder=folder)
    (inside / "manifest.raucm").write_text(
        "[update]\ncompatible=test\nversion=1\n\n[image.rootfs]\nfilename=rootfs.img.caibx\n"
    )
    Path(stem + ".raucb").unlink()
    tool("rauc", "--cert", "cert.pem", "--key", "key.pem", "bundle", inside, stem + ".raucb", folder=folder)


@pytest.fixture
def contents() -> dict[str, bytes]:
    rng = random.Random(5)
    old = rng.randbytes(3_000_000)
    return {"old": old, "new": old[:2_000_000] + rng.randbytes(1_000_000)}


@pytest.fixture
def world(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    """Two images with real bundles, and a configuration."""
    make_keys(tmp_path)
    pool = tmp_path / "pool"
    for line, content in (("3.6 20240104.1 stable", "old"), ("3.7 20240115.1 stable", "new")):
        make_bundle(tmp_path, add_image(pool, line), contents[content])
    write_settings(tmp_path / "server.conf", pool, branches="stable")
    return tmp_path


def missing_chunks(world: Path) -> tuple[dict[bytes, int], dict[bytes, Path]]:
    """Say, by the files of the chunk stores, which chunks the new image has and the old one does not."""
    stores = sorted(world.glob("pool/**/*.castr"))
    old, new = ({path.stem: path for path in store.rglob("*.cacnk")} for store in stores)
    tool("unsquashfs", "-d", "got", next(world.glob("pool/**/*20240115*.raucb")), "rootfs.img.caibx", folder=world)
    sizes = read_index((world / "got/rootfs.img.caibx").read_bytes())
    assert {chunk.hex() for chunk in sizes} == new.keys()
    wanted = {bytes.fromhex(name): path for name, path in new.items() if name not in old}
    return {chunk: sizes[chunk] for chunk in wanted}, wanted


def estimated(world: Path, tree: str) -> int:
    answer = json.loads((world / tree / STABLE / "3.6.0/20240104.1.json").read_text())
    return int(answer["minor"]["candidates"][0]["image"]["estimated_size"])


@needs_tools
def test_sizes_are_estimated_from_real_bundles(world: Path) -> None:
    missing, files = missing_chunks(world)
    assert 900_000 < sum(missing.values()) < 1_500_000
    run("generate", "-c", world / "server.conf", "-o", world / "tree")
    assert estimated(world, "tree") == int(sum(missing.values()) / 1.33)
    # With the compressed sizes beside it they are exact; when one is missing, they are not used.
    details = [
        {"id": chunk.hex(), "uncompressed_size": missing[chunk], "compressed_size": path.stat().st_size}
        for chunk, path in files.items()
    ]
    beside = next(world.glob("pool/**/*20240115*.raucb")).with_suffix(".chunks_details.json")
    beside.write_text(json.dumps(details))
    run("generate", "-c", world / "server.conf", "-o", world / "exact")
    assert estimated(world, "exact") == sum(path.stat().st_size for path in files.values())
    beside.write_text(json.dumps(details[1:]))
    run("generate", "-c", world / "server.conf", "-o", world / "incomplete")
    assert estimated(world, "incomplete") == int(sum(missing.values()) / 1.33)


@needs_tools
def test_a_bundle_that_cannot_be_read_only_makes_the_size_unknown(world: Path) -> None:
    bundle = next(world.glob("pool/**/*20240104*.raucb"))
    bundle.write_bytes(b"hsqs" + bytes(5000))
    printed = run("generate", "-c", world / "server.conf", "-o", world / "tree")
    assert "its index cannot be read" in printed
    assert estimated(world, "tree") == 0
    pool = read_pool(ServerSettings.read(world / "server.conf"))
    sizes = BundleSizes(world / "pool", {"PATH": "/nowhere"})
    assert sizes(pool.images[1], pool.images[1]) == 0
    assert len(sizes.warnings) == 1


@needs_tools
@pytest.mark.parametrize("what", ["fifo", "link"])
def test_an_index_that_is_no_file_is_not_opened(what: str, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", ["3.6 20240104.1 stable"])
    bundle = next(pool.glob("**/*.raucb"))
    bundle.unlink()
    (tmp_path / "inside").mkdir()
    index = tmp_path / "inside/rootfs.img.caibx"
    if what == "fifo":
        os.mkfifo(index)
    else:
        index.symlink_to("/dev/zero")
    tool("mksquashfs", "inside", bundle, folder=tmp_path)
    found = read_pool(ServerSettings.read(write_settings(tmp_path / "server.conf", pool, branches="stable")))
    sizes = BundleSizes(pool, dict(os.environ))
    assert sizes(found.images[0], found.images[0]) == 0
    assert "is no file" in sizes.warnings[0]


BAD = [
    (["3.6 20231202.1 stable", "3.6 20231203.1 stable r3 i2"], {}, "requires checkpoint 3"),
    (["3.6 20231202.1 stable"], {"branches": "stable future"}, "in the branch 'future'"),
    (["3.6 20231202.1 stable"], {"Archs": ""}, "'Archs' is missing"),
]


@pytest.mark.parametrize(("lines", "words", "sentence"), BAD)
def test_bad_pools_and_configurations_end_with_exit_code_1(
    lines: list[str], words: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    pool = make_pool(tmp_path / "pool", lines)
    config = write_settings(tmp_path / "server.conf", pool, **({"branches": "stable"} | words))
    assert sentence in run("generate", "-c", config, "-o", tmp_path / "tree", code=1)
    assert not (tmp_path / "tree").exists()


@pytest.fixture
def images(world: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(world / "pool"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def write_client(world: Path, meta: str, images: str) -> Path:
    manifest = next((world / "pool").glob("**/*20240104*.manifest.json"))
    path = world / "client.conf"
    path.write_text(
        f"[Server]\nMetaUrl = {meta}\nImagesUrl = {images}\n[Host]\nRuntimeDir = {world}/run\nManifest = {manifest}\n"
    )
    return path


RAUC_CONF = """\
[system]
compatible=test
bootloader=custom
mountprefix={world}/mnt
statusfile={world}/status
[keyring]
path={world}/cert.pem
check-purpose=any
[handlers]
bootloader-custom-backend={world}/boot.sh
[slot.rootfs.0]
device={world}/slot0.img
type=raw
bootname=A
[slot.rootfs.1]
device={world}/slot1.img
type=raw
bootname=B
"""

BOOT = """\
#!/bin/sh
# A bootloader that keeps its state in files.
case "$1" in
get-primary) cat {world}/primary 2>/dev/null || echo A ;;
set-primary) echo "$2" > {world}/primary ;;
get-state) echo good ;;
get-current) echo A ;;
esac
"""

SESSION = """\
export DBUS_STARTER_BUS_TYPE=session
rauc --conf={world}/system.conf --override-boot-slot=A service > {world}/service.log 2>&1 &
service=$!
for attempt in 1 2 3 4 5 6 7 8 9 10; do rauc status > /dev/null 2>&1 && break; sleep 0.3; done
{python} -m instar atomupd update -c {world}/client.conf
code=$?
kill $service
exit $code
"""


@needs_tools
@needs_root
def test_an_update_that_the_client_found_is_installed_by_rauc(
    world: Path, images: str, contents: dict[str, bytes]
) -> None:
    run("generate", "-c", world / "server.conf", "-o", world / "tree")
    for name in ("slot0.img", "slot1.img"):
        (world / name).write_bytes(contents["old"])
    (world / "mnt").mkdir()
    (world / "system.conf").write_text(RAUC_CONF.format(world=world))
    (world / "boot.sh").write_text(BOOT.format(world=world))
    (world / "boot.sh").chmod(0o755)
    with FaultyServer(LocalStorage(world / "tree")) as meta:
        write_client(world, meta.url, images)
        done = subprocess.run(
            ["dbus-run-session", "--", "sh", "-c", SESSION.format(world=world, python=sys.executable)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    log = (world / "service.log").read_text()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    assert (world / "slot1.img").read_bytes() == contents["new"]
    assert (world / "slot0.img").read_bytes() == contents["old"]
    assert (world / "primary").read_text().strip() == "B"
    percents = [int(line[:-1]) for line in done.stdout.splitlines() if line.endswith("%")]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert json.loads((world / "run/update.json").read_text())["minor"]["release"] == "holo"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    pool = make_pool(tmp_path / "pool", ["3.6 20240104.1 stable", "3.7 20240115.1 stable"])
    run("generate", "-c", write_settings(tmp_path / "server.conf", pool, branches="stable"), "-o", tmp_path / "tree")
    return tmp_path


def test_the_clients_exit_codes_and_its_runtime_file(small: Path) -> None:
    home = {"HOME": str(small)}
    with FaultyServer(LocalStorage(small / "tree")) as meta:
        config = write_client(small, meta.url, "http://127.0.0.1:1")
        assert "20240115.1" in run("query", "-c", config, **home)
        assert (small / "run/update.json").exists()
        # The newest: nothing, and the file goes.
        newest = next((small / "pool").glob("**/*20240115*.manifest.json"))
        assert "No update" in run("query", "-c", config, "--manifest", newest, **home)
        assert not (small / "run/update.json").exists()
        # Everything refused; then an error of the server.
        run("query", "-c", config, "--branch", "none", code=2, **home)
        meta.fault(Status(500), times=None)
        run("query", "-c", config, code=1, **home)
    # Nobody there.
    run("query", "-c", config, code=1, **home)
    assert "TLS" in run("query", "-c", write_client(small, "http://meta.example", "https://x"), code=1, **home)


def test_the_client_says_who_it_is_when_netrc_knows(small: Path) -> None:
    with FaultyServer(LocalStorage(small / "tree")) as meta:
        config = write_client(small, meta.url, "http://127.0.0.1:1")
        (small / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
        (small / ".netrc").chmod(0o600)
        run("query", "-c", config, HOME=str(small))
        assert meta.received[0].headers["authorization"] == "Basic " + b64encode(b"me:secret").decode()


def test_what_netrc_has_for_a_server_comes_before_its_default(small: Path) -> None:
    with FaultyServer(LocalStorage(small / "tree")) as meta:
        config = write_client(small, meta.url, "http://127.0.0.1:1")
        (small / ".netrc").write_text("machine 127.0.0.1 login me password secret\ndefault login all password known\n")
        run("query", "-c", config, HOME=str(small))
        assert meta.received[0].headers["authorization"] == "Basic " + b64encode(b"me:secret").decode()


def test_the_client_goes_through_the_proxy_of_the_environment(small: Path) -> None:
    with FaultyServer(LocalStorage(small / "tree")) as proxy:
        config = write_client(small, "http://meta.example/repository", "http://127.0.0.1:1")
        through = {"http_proxy": proxy.url.removesuffix("/repository"), "HOME": str(small), "no_proxy": ""}
        run("query", "-c", config, "--insecure-http", code=2, **through)
        assert proxy.received[0].key.startswith("http://meta.example/repository/holo/")


def test_a_signed_tree_is_believed_and_a_changed_one_is_not(small: Path) -> None:
    for name in ("owner", "online"):
        create_unencrypted_key(small / f"{name}.pem")
    keys = ["--owner-key", f"file:{small}/owner.pem", "--online-key", f"file:{small}/online.pem"]
    assert "4 files signed" in run("generate", "-c", small / "server.conf", "-o", small / "tree", *keys)
    root = small / "root.json"
    root.write_bytes((small / "tree/metadata/1.root.json").read_bytes())
    trust = ["--root", root, "--trust", small / "trust"]
    with FaultyServer(LocalStorage(small / "tree")) as meta:
        config = write_client(small, meta.url, "http://127.0.0.1:1")
        assert "20240115.1" in run("query", "-c", config, *trust, HOME=str(small))
        answer = small / "tree" / STABLE / "3.6.0/20240104.1.json"
        answer.write_text(answer.read_text().replace("20240115.1", "20240115.2"))
        assert "not what was signed" in run("query", "-c", config, *trust, code=1, HOME=str(small))
        run("query", "-c", config, "--branch", "none", *trust, code=2, HOME=str(small))
    run("generate", "-c", small / "server.conf", "-o", small / "tree", *keys[:2], code=1)


def test_the_tree_is_written_again_when_the_pool_changes(small: Path) -> None:
    argv = [sys.executable, "-m", "instar", "atomupd", "generate", "--watch", "--interval", "0.1"]
    process = subprocess.Popen([*argv, "-c", small / "server.conf", "-o", small / "tree"], stdout=subprocess.DEVNULL)
    try:
        add_image(small / "pool", "3.8 20240116.1 stable")
        wait_for(small / "tree" / STABLE / "3.8.0/20240116.1.json")
        # Another pool, which is watched from then on.
        other = make_pool(small / "other", ["3.9 20240117.1 stable"])
        write_settings(small / "server.conf", other, branches="stable")
        wait_for(small / "tree" / STABLE / "3.9.0/20240117.1.json")
        add_image(other, "3.9 20240118.1 stable")
        wait_for(small / "tree" / STABLE / "3.9.0/20240118.1.json")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert process.returncode == 130


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
