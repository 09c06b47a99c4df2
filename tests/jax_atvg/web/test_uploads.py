"""The page as a program sees it: which files it takes, and what it says of them."""

import io
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="requirements/web.txt")
import gradio as gr
from gradio import processing_utils

from jax_atvg.web import page, uploads
from jax_atvg.web.studio import Wishes

WISHES = (False, False, True, False, 1)  # as the page sends them
REFUSED = "this file was not uploaded here; upload it"


def file(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def upload(client, name, content):
    answer = client.post("/gradio_api/upload", files={"files": (name, content)})
    assert answer.status_code == 200
    return file(answer.json()[0])


def event(client, element, kind, *data):
    """What the page is told when an event of one of its elements is over.  Where a
    second function follows on the first, data is the second's."""
    config = client.get("/config").json()
    (target,) = (
        [one["id"], kind]
        for one in config["components"]
        if one["props"].get("elem_id") == element
    )
    functions = config["dependencies"]
    (number,) = (one["id"] for one in functions if target in one["targets"])
    for follower in (one for one in functions if one["trigger_after"] == number):
        number = follower["id"]
    body = {"data": data, "fn_index": number, "session_hash": "visitor"}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    told = client.get("/gradio_api/queue/data", params={"session_hash": "visitor"})
    messages = [json.loads(line[5:]) for line in told.text.splitlines() if line]
    (done,) = (one for one in messages if one["msg"] == "process_completed")
    assert done["success"] == ("error" not in done["output"])
    return done["output"]


@pytest.fixture
def sound(client, brought):
    return upload(client, "speech.wav", (brought / "speech.wav").read_bytes())


def picture(*alpha):
    """A face as the bytes of a PNG, with this opacity."""
    import skimage.data

    face = Image.fromarray(skimage.data.astronaut())
    for value in alpha:
        face.putalpha(value)
    file = io.BytesIO()
    face.save(file, "PNG")
    return file.getvalue()


def test_the_page_makes_the_video_that_the_interface_makes(client, brought, sound):
    """Also of a picture that gradio itself would have changed."""
    photo = picture(120)
    made = event(
        client,
        *("animate", "click"),
        *(upload(client, "face.png", photo), sound, "", None, *WISHES),
    )
    video = client.get(f"/gradio_api/file={made['data'][0]['path']}")
    files = {"photo": photo, "sound": (brought / "speech.wav").read_bytes()}
    assert video.content == client.post("/api/animate", files=files).content
    with av.open(io.BytesIO(video.content)) as container:
        assert container.streams.video[0].frames == 15


@pytest.mark.parametrize("place", [0, 1, 2])  # photo, sound, text
def test_other_files_are_neither_animated_nor_copied(
    client, brought, sound, place, monkeypatch
):
    async def fetch(*_, **__):
        raise AssertionError

    for name in ("async_ssrf_protected_download", "async_ssrf_protected_get"):
        monkeypatch.setattr(processing_utils, name, fetch)
    right = [upload(client, "face.png", picture()), sound, "", None, *WISHES]
    before = set(client.studio.folder.rglob("*"))
    for other in (
        *(brought / "face.png", client.studio.folder / "gradio" / ".." / "x"),
        *("face.png", "https://example.org/face.png", "file:///etc/passwd"),
    ):
        for data in (file(other), [file(other)], {"path": "", "x": file(other)}):
            sent = [*right[:place], data, *right[place + 1 :]]
            answer = event(client, "animate", "click", *sent)
            assert answer["error"] == REFUSED
    assert event(client, "photo", "change", file(brought / "face.png")) == {
        **answer,
        "error": REFUSED,
    }
    assert set(client.studio.folder.rglob("*")) == before


def test_gradios_own_check_is_on_as_well(client, brought, sound, monkeypatch):
    monkeypatch.setattr(uploads, "paths_in", lambda message: [])
    before = set(client.studio.folder.rglob("*"))
    sent = file(brought / "face.png"), sound, "", None, *WISHES
    assert "error" in event(client, "animate", "click", *sent)
    assert set(client.studio.folder.rglob("*")) == before


def test_paths_are_found_at_any_depth():
    message = [{"path": "a", "b": [{"path": "c"}]}, {"path": {"path": "d"}}, "e", None]
    assert list(uploads.paths_in(message)) == ["a", "c", "d"]


def test_a_file_that_is_no_picture_is_told(client):
    photo = upload(client, "face.png", b"no picture")
    error = "the photo: not a readable picture; save it as JPEG or PNG"
    assert event(client, "photo", "change", photo)["error"] == error
    assert event(client, "photo", "change", None)["data"] is not None


def test_a_file_that_was_deleted_is_to_be_uploaded_again(client, sound):
    photo = upload(client, "face.png", picture())
    gone = file(photo["path"] + "x")
    told = event(client, "animate", "click", gone, sound, "", None, *WISHES)["error"]
    assert told == (
        "the photo is older than 15 minutes and was deleted; upload it again"
    )


def test_files_may_be_deleted_while_their_visitor_waits(studio, brought):
    files = [studio.folder / name for name in ("face.png", "speech.wav")]
    for file in files:
        shutil.copy(brought / file.name, file)
    given = (studio, *map(str, files), "", Wishes(), gr.Progress())
    with ThreadPoolExecutor() as pool:
        with studio.turns.turn():  # somebody else's
            made = pool.submit(page.carried_out, *given)
            while len(studio.turns.queue) < 2:
                time.sleep(0.01)
            for file in files:
                file.unlink()
        assert made.result(60).video.exists()
    assert not studio.kept


def test_the_faces_of_a_heic_photo_are_shown(client, brought):
    heif = pytest.importorskip("pillow_heif", reason="requirements/heic.txt")
    two, file = Image.open(brought / "two.png"), io.BytesIO()
    heif.from_pillow(two).save(file, quality=90)
    photo = upload(client, "two.heic", file.getvalue())
    _, shown = event(client, "photo", "change", photo)["data"]
    answer = client.get(f"/gradio_api/file={shown['path']}")
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    faces, _ = event(client, "photo", "change", shown)["data"]
    assert len(faces["value"]) == 2 and faces["visible"]
    shown = client.get(f"/gradio_api/file={faces['value'][1]['image']['path']}")
    grey = np.asarray(Image.open(io.BytesIO(shown.content)).convert("RGB"), int)
    assert np.ptp(grey, -1).mean() < 10


def test_files_that_were_not_uploaded_are_not_served(client, brought):
    for path in (
        brought / "face.png",
        "/etc/passwd",
        client.studio.folder / ".." / "x",
    ):
        answer = client.get(f"/gradio_api/file={path}")
        assert answer.status_code in (403, 404)
    answer = client.get("/gradio_api/file=https://example.org/face.png")
    assert answer.status_code == 403


def test_uploads_that_are_too_large_are_refused(client):
    for size in (2_000_001, 5_000_000):  # of one file, and of all together
        files = {"files": ("face.png", bytes(size))}
        assert client.post("/gradio_api/upload", files=files).status_code == 413
