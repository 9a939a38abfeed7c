from pathlib import Path

import pytest

from instar.errors import Misconfigured
from instar.publish.settings import Defaults, Effort, Keys, Lifetimes, Settings, parse_settings, read_settings

FULL = Settings(
    product=parse_settings(b'product = "app"').product,
    storage="file:///srv/repo",
    urls=("https://a.example/r", 'https://b.example/"r"'),
    keys=Keys("awskms:alias/owner", "file:other/online.pem"),
    lifetimes=Lifetimes(root=400, targets=90, channels=14, snapshot=13, timestamp=2),
    release=Defaults(
        channel=parse_settings(b'product="a"\n[release]\nchannel="beta"').release.channel, base_releases=0
    ),
)


def test_what_is_written_is_read_back() -> None:
    assert parse_settings(FULL.to_toml().encode()) == FULL


def test_only_the_product_must_be_named() -> None:
    settings = parse_settings(b'product = "app"')
    assert settings == Settings(settings.product)
    assert settings.release.effort == "best"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'product' is missing"),
        ('product = "App"', "cannot be a name"),
        ('product = "root"', "one of its own roles"),
        ("product = 7", "'product' is 7, which is no text"),
        ('product = "app"\nproduckt = "b"', "'produckt' is not known here"),
        ('product = "app"\n[keys]\nofline = "x"', "'keys.ofline' is not known here"),
        ('product = "app"\n[expiry]\nroot = true', "'expiry.root' is True, which is no whole number"),
        ('product = "app"\n[expiry]\nroot = 0', "between 1 and 3650 days"),
        ('product = "app"\n[expiry]\ntimestamp = "7"', "no whole number"),
        ('product = "app"\n[release]\neffort = "most"', "'fast' or 'best'"),
        ('product = "app"\n[release]\nbase_releases = -1', "0 to 64"),
        ('product = "app"\nurls = "https://x"', "no list"),
        ('product = "app"\nurls = [1]', "a list of texts"),
        ('product = "app"\nkeys = "x"', "no table"),
        ("product = ", "Invalid value"),
    ],
)
def test_what_is_wrong_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + said.replace("(", r"\(")):
        parse_settings(text.encode())


def test_a_folder_without_the_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"There is no instar\.toml .* `instar init`"):
        read_settings(tmp_path)


def test_a_file_that_is_wrong_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "instar.toml").write_text('product = "app"\nx = 1')
    with pytest.raises(Misconfigured, match=r"instar\.toml: 'x' is not known here"):
        read_settings(tmp_path)
    (tmp_path / "instar.toml").write_bytes(b"\xff")
    with pytest.raises(Misconfigured):
        read_settings(tmp_path)


def test_an_effort_is_one_of_two() -> None:
    assert Effort("fast") == "fast"
