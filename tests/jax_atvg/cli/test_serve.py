"""`main.py serve`: what it refuses, and a server from its start to its end."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from jax_atvg.cli import app, serve
from jax_atvg.inference.bundle import save_bundle
from tests.conftest import ROOT
from tests.small_bundle import small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "bundle"
    save_bundle(small_bundle(), folder)
    return folder


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a server changes of its process is changed back."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    kept = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for one, handler in kept.items():
        signal.signal(one, handler)


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
        (["--port=-1"], "--port=-1: -1 is not an integer in the range [0, 65535]"),
        (["--port=70000"], "70000 is not an integer in the range [0, 65535]"),
        (["--host=192.0.2.1", "--password=x"], "--host=192.0.2.1 --port=7860: cannot"),
        (["--bundle=nowhere", "--port=0"], "nowhere: no bundle there"),
    ],
)
def test_bad_flags_end_with_exit_code_2(flags, message, capsys, monkeypatch):
    pytest.importorskip("gradio", reason="requirements/web.txt")
    monkeypatch.delenv("ATVG_PASSWORD", raising=False)
    assert app.main(["main.py", "serve", *flags]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(capsys):
    pytest.importorskip("gradio", reason="requirements/web.txt")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert app.main(["main.py", "serve", f"--port={port}", "--bundle=nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --host=127.0.0.1 --port={port}: cannot be served")


def test_flags_reach_the_server(bundle, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="requirements/web.txt")
    from jax_atvg.web import server
    from jax_atvg.web.studio import Limits, Studio

    served = []
    monkeypatch.setattr(Studio, "warm_up", lambda studio: None)
    monkeypatch.setattr(server, "serve", lambda *given: served.append(given))
    monkeypatch.setenv("ATVG_PASSWORD", "secret")
    numbers = ["--seconds=3", "--megabytes=4", "--waiting=5"]
    command = ["main.py", "serve", f"--bundle={bundle}", "--port=0", "--label"]
    assert app.main([*command, *numbers]) == 0
    ((studio, _, password),) = served
    assert studio.label and studio.limits == Limits(4, 3, 5) and password == "secret"
    assert not studio.folder.exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_as_ctrl_c_does(end):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    serve.end_in_order()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(end)


def test_nohup_is_respected():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    serve.end_in_order()
    signal.raise_signal(signal.SIGHUP)


@contextlib.contextmanager
def visit(port, path):
    """The answer of a server."""
    there = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    there.request("GET", path)
    yield there.getresponse()
    there.close()


@pytest.mark.parametrize(
    ("end", "also"),
    [
        (signal.SIGINT, "/live"),
        (signal.SIGTERM, "/api"),
        (signal.SIGHUP, "/gradio_api/heartbeat/a"),  # as long as a page is open
    ],
)
def test_a_server_from_start_to_end(tmp_path, bundle, end, also):
    """Its folder is gone afterwards, also where an answer is not at its end."""
    pytest.importorskip("gradio", reason="requirements/web.txt")
    (tmp_path / "tmp").mkdir()
    server = subprocess.Popen(
        [sys.executable, ROOT / "main.py", "serve", "--port=0", f"--bundle={bundle}"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        text=True,
        # Where the tests run under nohup it is ignored, by their children as well.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    try:
        ready = server.stdout.readline()
        found = re.match(r"ready: http://127\.0\.0\.1:(\d+)  \(Ctrl-C", ready)
        assert found, ready
        port = int(found[1])
        with visit(port, "/") as page:
            assert b"A photo that talks" in page.read()
        (folder,) = (tmp_path / "tmp").glob("jax_atvg*")
        with visit(port, also) as answer:
            assert answer.status == 200 and answer.read(5)
            server.send_signal(end)
            assert server.wait(60) == 0
        assert not folder.exists()
    finally:
        server.kill()
        server.communicate()
