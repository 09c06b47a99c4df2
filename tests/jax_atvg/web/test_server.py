"""Who may use the server, where it is reached, and how it ends."""

import os
import socket

import pytest

from input_pipeline.clip import InputError

pytest.importorskip("gradio", reason="requirements/web.txt")
from starlette.testclient import TestClient

from jax_atvg.web import server

FILES = {"photo": "face.png", "sound": "speech.wav"}


def test_with_a_password_strangers_see_nothing(studio, brought, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(studio.folder / "gradio"))
    files = {name: (brought / path).read_bytes() for name, path in FILES.items()}
    with TestClient(server.app(studio, "secret")) as client:
        for auth in (None, ("atvg", "wrong")):
            client.auth = auth
            assert client.post("/api/animate", files=files).status_code == 401
            for path in ("/config", "/live", "/api", "/api/openapi.json"):
                assert client.get(path).status_code == 401
        client.auth = ("atvg", "secret")
        assert client.post("/api/animate", files=files).status_code == 200
        assert client.get("/api").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_others_need_a_password(host):
    with pytest.raises(InputError, match=f"--host={host}: others could reach the page"):
        server.check_host(host, "")
    server.check_host(host, "secret")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.3.4"])
def test_this_machine_needs_none(host):
    server.check_host(host, "")


def test_an_address_that_cannot_be_served_on_is_told():
    with server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        message = f"--host=127.0.0.1 --port={port}: cannot be served on"
        with pytest.raises(InputError, match=rf"{message} \(Address already in use"):
            server.listen("127.0.0.1", port)
    for host in ("192.0.2.1", "a" * 70, "nowhere.invalid"):
        with pytest.raises(InputError, match=f"--host={host} --port=0: cannot be ser"):
            server.listen(host, 0)


def test_visitors_wait_from_the_beginning():
    with (
        server.listen("127.0.0.1", 0) as sock,
        socket.create_connection(sock.getsockname(), timeout=10),
    ):
        pass


def test_a_photo_as_large_as_a_file_may_be_is_one_message(studio, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(studio.folder))
    assert server.Server(studio).config.ws_max_size == 3 * 10**6


def test_old_files_are_deleted_while_it_runs_but_not_the_examples(studio, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(studio.folder))
    monkeypatch.setattr(server, "TIDY_EVERY", 0.01)
    examples = "astronaut.png", "speech.flac"
    with TestClient(server.app(studio)) as client:
        (studio.folder / "old").touch()
        for path in studio.folder.rglob("*"):
            os.utime(path, (0, 0))
        while (studio.folder / "old").exists():
            client.get("/config")
    left = [path.name for path in studio.folder.rglob("*") if path.is_file()]
    assert sorted(left) == sorted(examples)
