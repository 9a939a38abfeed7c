import stat
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from instar.errors import Misconfigured
from instar.trust.keys import create_key, create_unencrypted_key, open_signer

PASSPHRASE = "correct horse"


def never(what: str) -> str:
    pytest.fail(f"asked for {what}")


def test_a_key_is_encrypted_and_private_and_opens_again(tmp_path: Path) -> None:
    made = create_key(tmp_path / "owner.pem", passphrase=PASSPHRASE)
    assert b"ENCRYPTED" in (tmp_path / "owner.pem").read_bytes()
    assert stat.S_IMODE((tmp_path / "owner.pem").stat().st_mode) == 0o600
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return PASSPHRASE

    opened = open_signer("file:owner.pem", folder=tmp_path, passphrase=ask)
    assert opened.public_key.keyid == made.public_key.keyid
    assert len(asked) == 1
    assert "owner.pem" in asked[0]
    opened.public_key.verify_signature(made.sign(b"x"), b"x")


def test_an_unencrypted_key_is_private_and_asks_for_nothing(tmp_path: Path) -> None:
    made = create_unencrypted_key(tmp_path / "online.pem")
    assert stat.S_IMODE((tmp_path / "online.pem").stat().st_mode) == 0o600
    opened = open_signer(f"file:{tmp_path / 'online.pem'}", folder=Path("/nowhere"), passphrase=never)
    assert opened.public_key == made.public_key


def test_no_key_is_ever_overwritten(tmp_path: Path) -> None:
    create_unencrypted_key(tmp_path / "key.pem")
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(Misconfigured, match="already"):
        create_key(tmp_path / "key.pem", passphrase=PASSPHRASE)
    assert (tmp_path / "key.pem").read_bytes() == before


def test_a_link_in_the_place_of_a_key_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured):
        create_unencrypted_key(tmp_path / "key.pem")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="could not be written"):
        create_unencrypted_key(tmp_path / "nowhere" / "key.pem")


def test_an_empty_passphrase_protects_nothing_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="not empty"):
        create_key(tmp_path / "key.pem", passphrase="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["wrong", ""])
def test_a_wrong_passphrase_says_so(tmp_path: Path, given: str) -> None:
    create_key(tmp_path / "key.pem", passphrase=PASSPHRASE)
    with pytest.raises(Misconfigured, match="passphrase") as caught:
        open_signer("file:key.pem", folder=tmp_path, passphrase=lambda _: given)
    assert caught.value.hint
    assert PASSPHRASE not in str(caught.value)


def test_an_encrypted_key_with_nobody_to_ask_says_so(tmp_path: Path) -> None:
    create_key(tmp_path / "key.pem", passphrase=PASSPHRASE)
    with pytest.raises(Misconfigured, match="nobody to ask"):
        open_signer("file:key.pem", folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"no key", b"\xff" * 100, b"x" * 100_000])
def test_a_file_that_is_no_key_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.pem").write_bytes(content)
    with pytest.raises(Misconfigured):
        open_signer("file:key.pem", folder=tmp_path, passphrase=never)


def test_a_damaged_key_says_so(tmp_path: Path) -> None:
    create_unencrypted_key(tmp_path / "key.pem")
    content = (tmp_path / "key.pem").read_bytes()
    (tmp_path / "key.pem").write_bytes(content[:60] + content[70:])
    with pytest.raises(Misconfigured, match="no private key"):
        open_signer("file:key.pem", folder=tmp_path, passphrase=never)


def test_a_missing_key_says_so(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no key file"):
        open_signer("file:key.pem", folder=tmp_path)


@pytest.mark.parametrize("uri", ["", "key.pem", "file:", ":x"])
def test_what_is_no_uri_says_so(tmp_path: Path, uri: str) -> None:
    with pytest.raises(Misconfigured):
        open_signer(uri, folder=tmp_path)


def test_another_key_than_the_repository_knows_is_refused(tmp_path: Path) -> None:
    create_unencrypted_key(tmp_path / "key.pem")
    for other in (CryptoSigner.generate_ed25519(), CryptoSigner.generate_ecdsa()):
        with pytest.raises(Misconfigured, match="not the one"):
            open_signer("file:key.pem", folder=tmp_path, public=other.public_key)


def test_a_key_answers_to_the_id_that_the_repository_uses(tmp_path: Path) -> None:
    made = CryptoSigner.generate_ed25519(keyid="from-another-tool")
    (tmp_path / "key.pem").write_bytes(made.private_bytes)
    opened = open_signer("file:key.pem", folder=tmp_path, public=made.public_key)
    assert opened.public_key.keyid == "from-another-tool"
    assert opened.sign(b"x").keyid == "from-another-tool"


def test_other_schemes_go_to_securesystemslib(tmp_path: Path) -> None:
    made = CryptoSigner.generate_ecdsa()
    (tmp_path / "key.pem").write_bytes(made.private_bytes)
    opened = open_signer(f"file2:{tmp_path / 'key.pem'}", folder=tmp_path, public=made.public_key)
    assert opened.public_key == made.public_key
    with pytest.raises(Misconfigured, match="public key"):
        open_signer("awskms:alias/key", folder=tmp_path)
    with pytest.raises(Misconfigured, match="could not be opened"):
        open_signer("unheard-of:key", folder=tmp_path, public=made.public_key)
