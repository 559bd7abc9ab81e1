"""What a user reads when a package for some of the work is not installed."""

from __future__ import annotations

import pickle
import sys

import pytest

from napari_mepdiff.base.extras import MissingExtra, available, require


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place on the import path for packages made up here."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("madeup")]:
        del sys.modules[name]


def test_what_is_installed_is_imported():
    assert require("xml.dom", "formats", "Reading") is sys.modules["xml.dom"]


def test_a_missing_package_is_named_with_its_purpose_and_how_to_get_it():
    with pytest.raises(MissingExtra) as caught:
        require("madeup_reader.inner", "formats", "Reading .xyz files")
    assert str(caught.value) == (
        "Reading .xyz files needs the package madeup_reader, which is not installed: "
        'pip install "napari-mepdiff[formats]"'
    )
    assert (caught.value.name, caught.value.extra) == ("madeup_reader.inner", "formats")


def test_a_package_goes_by_the_name_under_which_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "rsciio", None)
    with pytest.raises(MissingExtra, match="the package rosettasciio"):
        require("rsciio.mrc", "formats", "Reading")
    assert not available("rsciio")


def test_a_package_that_lacks_one_of_its_own_is_not_called_missing(folder):
    """Told to install what is there already, a user would turn in a circle."""
    (folder / "madeup_broken.py").write_text("import madeup_below\n")
    with pytest.raises(MissingExtra, match=r"cannot be loaded \(No module named 'madeup_below'\)"):
        require("madeup_broken", "simulate", "Simulating")
    assert available("madeup_broken")
    assert not available("madeup_below")


def test_an_error_of_a_package_itself_is_not_hidden(folder):
    (folder / "madeup_wrong.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        require("madeup_wrong", "simulate", "Simulating")


def test_it_is_caught_as_an_import_error_and_as_a_value_error_and_crosses_processes():
    error = MissingExtra("text", name="a.b", extra="fast")
    assert isinstance(error, ImportError)
    assert isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.extra) == ("text", "a.b", "fast")


def test_the_command_line_answers_in_one_line(monkeypatch, capsys):
    """A traceback of an import was what a user saw."""
    from napari_mepdiff.cli import main as cli

    def command(**_):
        require("madeup_reader", "formats", "Reading .xyz files")

    monkeypatch.setattr(cli, "app", command)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    text = capsys.readouterr().err
    assert text.startswith("mepdiff: Reading .xyz files needs the package")
    assert text.count("\n") == 1
