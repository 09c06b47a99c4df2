"""The interface for programs, and who may use the server."""

import io
import threading

import av
import pytest

from input_pipeline.clip import InputError
from jax_atvg.web.studio import Studio, can_speak

pytest.importorskip("gradio", reason="requirements/web.txt")
from starlette.testclient import TestClient

from jax_atvg.web import server


@pytest.fixture
def client(studio, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(studio.folder / "gradio"))
    with TestClient(server.app(studio)) as client:
        yield client


def send(client, brought, photo="face.png", sound="speech.wav", **fields):
    files = {"photo": (brought / photo).read_bytes()}
    if sound:
        files["sound"] = (brought / sound).read_bytes()
    return client.post("/api/animate", files=files, data=fields)


def left_over(studio):
    return [path for path in studio.folder.iterdir() if path.name != "gradio"]


def frames_of(answer):
    with av.open(io.BytesIO(answer.content)) as container:
        (video,), (sound,) = container.streams.video, container.streams.audio
        assert sound.duration
        return video.frames, (video.width, video.height)


def test_a_photo_and_a_sound_become_a_video(client, studio, brought):
    answer = send(client, brought)
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    assert frames_of(answer) == (15, (32, 32))
    assert frames_of(send(client, brought, panels="true")) == (15, (128, 32))
    whole = send(client, brought, "two.png", face="1", full_frame="true")
    assert frames_of(whole) == (15, (600, 300))
    assert not left_over(studio)


@pytest.mark.skipif(not can_speak(), reason="espeak-ng is not installed")
def test_a_text_is_spoken(client, studio, brought):
    answer = send(client, brought, sound="", text="Good day")
    assert answer.status_code == 200 and frames_of(answer)[0] > 10
    assert not left_over(studio)


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"photo": "speech.wav"}, 400, "the photo: not a readable picture"),
        ({"sound": ""}, 400, "there is no sound; send one as `sound`, or a `text`"),
        ({"sound": "long.wav"}, 400, "the sound is longer than 2 s"),
        ({"face": "7"}, 400, "face=7 asked for, but 1 face found; choose 0"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    client, studio, brought, fields, code, message
):
    answer = send(client, brought, **fields)
    assert answer.status_code == code and message in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"] and not left_over(studio)


def test_a_file_that_is_too_large_is_refused(client, studio, brought):
    files = {"photo": bytes(2_000_001), "sound": (brought / "speech.wav").read_bytes()}
    answer = client.post("/api/animate", files=files)
    assert answer.status_code == 413 and not left_over(studio)
    assert answer.json()["detail"] == "the photo is larger than 2 MB; make it smaller"


def test_names_of_files_are_no_paths(client, studio, brought):
    files = {
        "photo": ("../../../outside.png", (brought / "face.png").read_bytes()),
        "sound": ("/outside.wav", (brought / "speech.wav").read_bytes()),
    }
    assert client.post("/api/animate", files=files).status_code == 200
    assert not list(studio.folder.parent.rglob("outside*"))


def test_two_at_once_are_both_right_and_the_third_is_sent_away(
    client, studio, brought, networks
):
    """One may wait in this studio."""
    expected = send(client, brought).content
    answers, go = [], threading.Event()

    def visit():
        answers.append(send(client, brought))

    with studio.turns.turn():  # somebody is being served
        first = threading.Thread(target=visit)
        first.start()
        while len(studio.turns.queue) < 2:
            go.wait(0.01)
        busy = send(client, brought)
    first.join(60)
    assert busy.status_code == 503 and busy.headers["retry-after"] == "60"
    assert busy.json()["detail"] == "1 are waiting already; try again in a minute"
    assert [answer.content for answer in answers] == [expected]
    assert not left_over(studio)


def test_with_a_password_strangers_see_nothing(studio, brought, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(studio.folder / "gradio"))
    with TestClient(server.app(studio, "secret")) as client:
        assert send(client, brought).status_code == 401
        assert client.get("/config").status_code == 401
        client.auth = ("atvg", "wrong")
        assert send(client, brought).status_code == 401
        client.auth = ("atvg", "secret")
        assert send(client, brought).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_others_need_a_password(host, studio):
    with pytest.raises(InputError, match=f"--host={host}: others could reach the page"):
        server.serve(studio, host, 0)
    server.check_host(host, "secret")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.3.4"])
def test_this_machine_needs_none(host):
    server.check_host(host, "")


def test_files_of_the_machine_are_not_served(client, studio, brought):
    for path in (brought / "face.png", "/etc/passwd", studio.folder / ".." / "x"):
        answer = client.get(f"/gradio_api/file={path}")
        assert answer.status_code in (403, 404)


def test_a_port_that_is_taken_is_told(networks, tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port={port}: cannot be served on"):
            server.serve(Studio(networks, tmp_path), "127.0.0.1", port)
