"""docs/tour.ipynb runs from its first cell to its last, and is stored as it ran."""

import functools
import re

import nbformat
import pytest
from nbformat import v4

from tests.docs.tour import NOTEBOOK, executed

MACHINE_PATHS = re.compile(r"/(tmp|mnt|opt|root|home|Users|var|private)\b")
PICTURES = re.compile(r"base64,[A-Za-z0-9+/=\s]+")  # may spell anything
MAX_BYTES = 2e6


@functools.cache
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def run():
    """The notebook, run anew in docs/, where a reader may have started it."""
    return executed(NOTEBOOK.parent)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def texts(notebook):
    """All that the outputs say in words."""
    for output in outputs(notebook):
        yield output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield PICTURES.sub("", value)


def kinds(notebook):
    """For each cell what its outputs are; of plain values also which."""
    return [
        [
            (output.output_type, sorted(data), data.get("text/plain"))
            for output in cell.outputs
            for data in [output.get("data", {})]
        ]
        for cell in code_cells(notebook)
    ]


def complaints(notebook) -> list[str]:
    """What a reader must not find: errors, warnings, names of folders."""
    found = [o.output_type for o in outputs(notebook) if o.output_type == "error"]
    found += [o.text for o in outputs(notebook) if o.get("name") == "stderr"]
    return found + [text for text in texts(notebook) if MACHINE_PATHS.search(text)]


def test_it_is_stored_executed_from_top_to_bottom():
    cells = code_cells(stored())
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "run python -m tests.docs.tour"


def test_what_is_stored_shows_no_error_no_warning_and_no_folder_of_a_machine():
    assert complaints(stored()) == []
    assert NOTEBOOK.stat().st_size < MAX_BYTES


def test_its_links_lead_somewhere():
    text = "\n".join(c.source for c in stored().cells if c.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    for link in links:
        assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.slow
def test_every_cell_runs_and_gives_what_is_stored(run):
    assert complaints(run) == []
    assert kinds(run) == kinds(stored()), "run python -m tests.docs.tour"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("stream", {"name": "stderr", "text": "a warning"}),
        ("stream", {"name": "stdout", "text": "in /tmp/tmpabc/at"}),
        ("execute_result", {"data": {"text/plain": "'/home/somebody'"}}),
        ("error", {"ename": "ValueError", "evalue": "wrong"}),
    ],
)
def test_what_a_reader_must_not_find_is_found(kind, values):
    cell = v4.new_code_cell("x", outputs=[v4.new_output(kind, **values)])
    assert len(complaints(v4.new_notebook(cells=[cell]))) == 1
