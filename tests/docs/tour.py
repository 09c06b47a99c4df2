"""Runs docs/tour.ipynb in a kernel of its own.

    python -m tests.docs.tour

stores the notebook with what it gave.  Its outputs name no folder of this machine.
"""

import os
import pathlib
import tempfile
from unittest import mock

import nbformat
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
TIMEOUT = 600  # seconds a cell may take


def executed(folder: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook, run anew from this folder.  CellExecutionError: a cell fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory() as own:
        # What Jupyter and IPython keep would lie in the user's folder.
        places = dict.fromkeys(["IPYTHONDIR", "JUPYTER_RUNTIME_DIR"], own)
        with mock.patch.dict(os.environ, places):
            client.execute()
    return notebook


if __name__ == "__main__":
    done = executed(ROOT)
    done.metadata.language_info = {"name": "python"}  # not: of which version
    NOTEBOOK.write_text(nbformat.writes(done) + "\n", encoding="utf-8")
