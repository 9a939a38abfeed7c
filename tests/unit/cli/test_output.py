"""What is printed of texts from outside: what they say, and nothing that a terminal would obey."""

import contextlib
import io
import json

import pytest

from instar.cli import output


def test_no_text_from_outside_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "red\x1b[31m title\x1b]0;pwned\x07 back\r over\x9b2J"
    output.say(evil)
    output.warn(evil)
    output.complain(evil, hint=evil)
    output.table(("name",), [(evil,)])
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert "\\x1b[31m" in text
        assert not {"\x1b", "\x07", "\r", "\x9b"} & set(text)


def test_lines_and_columns_stay_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("one\n  two: ü 日本")
    assert capsys.readouterr().out == "one\n  two: ü 日本\n"


def test_a_file_name_that_is_no_text_is_printed_all_the_same() -> None:
    raw = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(raw, encoding="utf-8", errors="strict")) as stdout:
        output.say("bad\udcff: changed")
        output.report({"path": "bad\udcff"}, as_json=True, human=lambda: None)
        stdout.flush()
    shown, _, document = raw.getvalue().decode().partition("\n")
    assert shown == "bad\\udcff: changed"
    assert json.loads(document) == {"path": "bad\udcff"}
