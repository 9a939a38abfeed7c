"""Drives tufup 0.10 through its own public interface. Runs in tufup's own environment, one measured step a process.

Writes one line of JSON to its standard output. Does nothing that a user of tufup would not do, with two exceptions that
favour tufup: the local keys are not encrypted (tufup would prompt), and, since tufup has no installer for Linux, its
installation step is the copy over the running tree that its Windows script does.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sys

APP = "app"


def init(args):
    """An empty repository with keys."""
    from tufup.repo import Repository

    os.chdir(args.home)
    repository = Repository(
        app_name=APP,
        repo_dir="repository",
        keys_dir="keys",
        expiration_days=dict.fromkeys(("root", "targets", "snapshot", "timestamp"), 365),
    )
    repository.save_config()
    repository.initialize()
    return {}


def release(args):
    """Adds one bundle; makes the patch from the newest archive when there is one."""
    from tufup.repo import Repository

    os.chdir(args.home)
    repository = Repository.from_config()
    repository.add_bundle(new_bundle_dir=args.bundle, new_version=args.version)
    repository.publish_changes(private_key_dirs=["keys"])
    targets = pathlib.Path("repository/targets")
    return {p.name: p.stat().st_size for p in sorted(targets.glob(f"{APP}-{args.version}.*"))}


def fill(args):
    """Adds the metadata of many older releases, each an archive and a patch; their files are never asked for."""
    from tuf.api.metadata import TargetFile
    from tufup.repo import Repository

    os.chdir(args.home)
    repository = Repository.from_config()
    targets = repository.roles.targets.signed.targets
    for number in range(int(args.count)):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        tar = {"tar_size": 10_000_000 + number, "tar_hash": digest, "tar_hash_algorithm": "sha256"}
        for suffix, internal in ((".tar.gz", {"required": False}), (".patch", tar)):
            path = f"{APP}-0.{number}{suffix}"
            targets[path] = TargetFile(
                1_000_000, {"sha256": digest}, path, {"custom": {"user": None, "tufup": internal}}
            )
    repository.publish_changes(private_key_dirs=["keys"])
    return {"targets": len(targets)}


def update(args):
    """Asks for an update, downloads it, applies it, installs it. `--full`: the archive, as a first install would."""
    from tufup.client import Client

    state = pathlib.Path(args.state)
    metadata, targets, extract = state / "metadata", state / "targets", state / "extract"
    for folder in (metadata, targets, extract):
        folder.mkdir(parents=True, exist_ok=True)
    if not (metadata / "root.json").exists():
        shutil.copy(pathlib.Path(args.home) / "repository/metadata/root.json", metadata / "root.json")
    client = Client(
        app_name=APP,
        app_install_dir=pathlib.Path(args.install),
        current_version=args.version,
        metadata_dir=metadata,
        metadata_base_url=f"{args.url}/metadata/",
        target_dir=targets,
        target_base_url=f"{args.url}/targets/",
        extract_dir=extract,
    )
    found = client.check_for_updates(patch=not args.full)
    if found is None or args.check_only:
        return {"update": str(found.version) if found else None}
    names = [meta.filename for meta in client.new_targets]
    client.download_and_apply_update(skip_confirmation=True, install=copy_over)
    return {"update": str(found.version), "targets": names}


def copy_over(src_dir, dst_dir, **_):
    """What tufup's Windows script does: copy each file over the running tree, remove the source."""
    shutil.copytree(src_dir, dst_dir, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(src_dir)


def main():
    """One step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["init", "release", "fill", "update"])
    parser.add_argument("--home", required=True, help="folder of the publisher")
    parser.add_argument("--bundle")
    parser.add_argument("--version")
    parser.add_argument("--state", help="folder of the client's metadata and archives")
    parser.add_argument("--install", help="folder of the installed app")
    parser.add_argument("--url")
    parser.add_argument("--count")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--check-only", action="store_true")
    args = parser.parse_args()
    # tufup talks on standard output; the figures must stand alone there.
    figures = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    result = {"init": init, "release": release, "fill": fill, "update": update}[args.step](args)
    figures.write(json.dumps(result) + "\n")
    figures.flush()


if __name__ == "__main__":
    sys.exit(main())
