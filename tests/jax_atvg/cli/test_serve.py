"""`main.py serve`: what it refuses, and a server from its start to its end."""

import http.client
import os
import re
import signal
import subprocess
import sys

import pytest

from jax_atvg.cli import app
from jax_atvg.inference.bundle import save_bundle
from tests.conftest import ROOT
from tests.small_bundle import small_bundle


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert app.main(["main.py", "serve"]) == 2
    assert "pip install -r requirements/web.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--host=0.0.0.0"],
            "--host=0.0.0.0: others could reach the page; set a --pass",
        ),
        (["--seconds=0"], "--seconds"),
        (["--port=-1"], "--port"),
        (["--bundle=nowhere"], "nowhere: no bundle there"),
    ],
)
def test_bad_flags_end_with_exit_code_2(flags, message, capsys, monkeypatch):
    pytest.importorskip("gradio", reason="requirements/web.txt")
    monkeypatch.delenv("ATVG_PASSWORD", raising=False)
    assert app.main(["main.py", "serve", *flags]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_server_from_start_to_end(tmp_path, end):
    """Its folder is gone afterwards."""
    pytest.importorskip("gradio", reason="requirements/web.txt")
    save_bundle(small_bundle(), tmp_path / "bundle")
    command = [sys.executable, ROOT / "main.py", "serve", "--port=0"]
    (tmp_path / "tmp").mkdir()
    env = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    server = subprocess.Popen(
        [*command, f"--bundle={tmp_path / 'bundle'}"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ready = server.stdout.readline()
        found = re.match(r"ready: http://127\.0\.0\.1:(\d+)  \(Ctrl-C", ready)
        assert found, ready
        there = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        there.request("GET", "/")
        assert b"A photo that talks" in there.getresponse().read()
        there.close()
        (folder,) = (tmp_path / "tmp").glob("jax_atvg*")
        server.send_signal(end)
        assert server.wait(60) == 0
        assert not folder.exists()
    finally:
        server.kill()
        server.communicate()
