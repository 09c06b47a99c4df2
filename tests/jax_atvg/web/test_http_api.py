"""The interface for programs."""

import io
import re
import threading

import av
import pytest

from jax_atvg.web.studio import Studio, can_speak

pytest.importorskip("gradio", reason="requirements/web.txt")
from starlette.testclient import TestClient

from jax_atvg.inference.animate import animate_file
from jax_atvg.web import server


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


def test_a_photo_and_a_sound_become_a_video(client, brought):
    answer = send(client, brought)
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    assert frames_of(answer) == (15, (32, 32))
    assert frames_of(send(client, brought, panels="true")) == (15, (128, 32))
    whole = send(client, brought, "two.png", face="1", full_frame="true")
    assert frames_of(whole) == (15, (600, 300))
    assert not left_over(client.studio)


@pytest.mark.skipif(not can_speak(), reason="espeak-ng is not installed")
def test_a_text_is_spoken(client, brought):
    answer = send(client, brought, sound="", text="Good day")
    assert answer.status_code == 200 and frames_of(answer)[0] > 10
    assert not left_over(client.studio)


def test_every_frame_says_that_it_is_synthetic_where_the_server_has_label(
    networks, brought, tmp_path, monkeypatch
):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    files = brought / "face.png", brought / "speech.wav"
    animate_file(*files, tmp_path / "same.mp4", networks, label=True)
    with TestClient(server.app(Studio(networks, tmp_path, label=True))) as client:
        assert send(client, brought).content == (tmp_path / "same.mp4").read_bytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"photo": "speech.wav"}, "the photo: not a readable picture"),
        ({"sound": ""}, "there is no sound; send one as `sound`, or a `text`"),
        ({"sound": "long.wav"}, "the sound is longer than 2 s"),
        ({"face": "7"}, "face=7 asked for, but 1 face found; choose 0"),
        ({"expressiveness": "abc\nd"}, r"expressiveness='abc\nd': Input should be a"),
        ({"expressiveness": "nan"}, "expressiveness=nan: must be 0 to 3.0"),
        ({"blinks": "x" * 999}, f"blinks='{'x' * 59}: Input should be a valid bool"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(client, brought, fields, message):
    answer = send(client, brought, **fields)
    assert answer.status_code == 400 and message in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"] and not left_over(client.studio)


@pytest.mark.parametrize("how", [{}, {"data": {"photo": "a text"}}, {"json": {}}])
def test_a_photo_that_is_missing_is_told(client, how):
    answer = client.post("/api/animate", **how)
    assert answer.status_code == 400
    assert answer.json()["detail"] == "there is no photo; send a file as `photo`"


def test_a_file_that_is_too_large_is_refused(client, brought):
    files = {"photo": bytes(2_000_001), "sound": (brought / "speech.wav").read_bytes()}
    answer = client.post("/api/animate", files=files)
    assert answer.status_code == 413 and not left_over(client.studio)
    assert answer.json()["detail"] == "the photo is larger than 2 MB; make it smaller"
    answer = client.post("/api/animate", files={"photo": bytes(5_000_000)})
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("the request is larger than 5 MB")


def test_names_of_files_are_no_paths(client, brought):
    files = {
        "photo": ("../../../outside.png", (brought / "face.png").read_bytes()),
        "sound": ("/outside.wav", (brought / "speech.wav").read_bytes()),
    }
    assert client.post("/api/animate", files=files).status_code == 200
    assert not list(client.studio.folder.parent.rglob("outside*"))


def test_two_at_once_are_both_right_and_the_third_is_sent_away(
    client, brought, networks
):
    """One may wait in this studio."""
    expected = send(client, brought).content
    answers, go = [], threading.Event()

    def visit():
        answers.append(send(client, brought))

    with client.studio.turns.turn():  # somebody is being served
        first = threading.Thread(target=visit)
        first.start()
        while len(client.studio.turns.queue) < 2:
            go.wait(0.01)
        busy = send(client, brought)
    first.join(60)
    assert busy.status_code == 503 and busy.headers["retry-after"] == "60"
    assert busy.json()["detail"] == "1 are waiting already; try again in a minute"
    assert [answer.content for answer in answers] == [expected]
    assert not left_over(client.studio)


def test_the_page_describes_every_field_and_answer_by_itself(client):
    page = client.get("/api", headers={"host": "atvg.example"}).text
    told = client.get("/api/openapi.json").json()
    fields = told["components"]["schemas"]["Body_animate_api_animate_post"]
    answers = told["paths"]["/api/animate"]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "413", "503", "default"}
    for name in (*fields["properties"], *sorted(answers)[:-1]):
        assert f"<td>{name}</td>" in page
    assert "<td>head_movement</td><td>false</td>" in page
    assert "<td>photo</td><td>(needed)</td>" in page
    assert "http://atvg.example/api/animate</pre>" in page and "{{" not in page
    assert set(re.findall(r'(?:href|src)="([^"]*)"', page)) == {
        "/",
        "/api/openapi.json",
    }
    strange = client.get("/api", headers={"host": "a<script>"})
    assert "<script>" not in strange.text
