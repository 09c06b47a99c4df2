"""What goes wrong is said in one line."""

import pytest

from jax_atvg.cli.console import complain


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\x0b", "\x1b", "\x1c", "\x85", "\u2028", "\udcff"]
)
def test_a_complaint_is_one_line_whatever_names_hold(capsys, character):
    complain(f"a{character}b.png: no such file")
    assert capsys.readouterr().err == "error: a b.png: no such file\n"


def test_letters_of_all_scripts_are_kept(capsys):
    complain("größe 写真 🙂.png: no such file")
    assert capsys.readouterr().err == "error: größe 写真 🙂.png: no such file\n"
