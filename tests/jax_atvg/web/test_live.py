"""The socket behind the page /live."""

import asyncio
import io
import json
import queue
import re
import struct
import time

import numpy as np
import pytest
from PIL import Image

from jax_atvg.inference.live import Talker
from tests.small_bundle import speech

pytest.importorskip("gradio", reason="requirements/web.txt")
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from jax_atvg.web import live, server

RATE = 16000


@pytest.fixture
def client(studio, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(studio.folder / "gradio"))
    with TestClient(server.app(studio)) as client:
        yield client


def token_of(client, **more):
    page = client.get("/live", **more)
    assert page.status_code == 200
    return re.search(r'TOKEN = "([\w-]+)"', page.text)[1]


def connect(client):
    return client.websocket_connect(f"/api/live?token={token_of(client)}")


def samples(seconds=0.6):
    return (speech(seconds, RATE) * 20000).astype("<i2")


def test_frames_come_while_one_speaks(client, studio, brought):
    """They are those of a talker, in their order."""
    sound = samples()
    wishes = {"rate": RATE, "expressiveness": 2, "blinks": False}
    expected = Talker(
        brought / "face.png",
        studio.networks,
        rate=RATE,
        expressiveness=2.0,
        blinks=False,
    ).push(sound)
    with connect(client) as socket:
        socket.send_text(json.dumps(wishes))
        socket.send_bytes((brought / "face.png").read_bytes())
        assert socket.receive_json() == {"ready": True, "width": 32, "height": 32}
        for start in range(0, len(sound), 320):
            socket.send_bytes(sound[start : start + 320].tobytes())
        for number, frame in enumerate(expected):
            data = socket.receive_bytes()
            assert struct.unpack(">I", data[:4]) == (number,)
            shown = np.asarray(Image.open(io.BytesIO(data[4:])))
            assert np.abs(shown.astype(int) - frame).mean() < 12  # JPEG, of noise
    # The visitor has left, and so does their photo, in a thread of its own.
    deadline = time.monotonic() + 10
    while kept := [path for path in studio.folder.iterdir() if path.name != "gradio"]:
        assert time.monotonic() < deadline, kept
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (["{}", b"no picture"], "the photo: not a readable picture"),
        (["rate", b""], 'the first message has some of {"rate": 16000'),
        (["[]", b""], 'the first message has some of {"rate": 16000'),
        ([f'{{"expressiveness": {10**400}}}', b""], "the first message has some of"),
        (["[" * 200_000, b""], "the first message has some of"),
        (['{"blinks": 1}', b""], 'the first message has some of {"rate": 16000'),
        (['{"photo": "x"}', b""], 'the first message has some of {"rate": 16000'),
        (['{"expressiveness": 9}', "PHOTO"], "expressiveness=9.0: must be 0 to 3.0"),
        (['{"head_movement": true}', "PHOTO"], "head_movement: the crop shows no more"),
        (['{"rate": 3}', b""], "with a rate of 8000 to 96000"),
        (["{}", "text"], "the photo comes second, as bytes"),
        (["{}", "FACE", b"abc"], "samples come as bytes, two for each"),
        (["{}", "FACE", bytes(4 * RATE + 2)], "2 s are over; start again"),
    ],
)
def test_errors_are_told(client, studio, brought, messages, error):
    with connect(client) as socket:
        for message in messages:
            if message in ("PHOTO", "FACE"):
                socket.send_bytes((brought / "face.png").read_bytes())
                if message == "FACE":
                    assert socket.receive_json()["ready"]
            elif isinstance(message, str):
                socket.send_text(message)
            else:
                socket.send_bytes(message)
        assert error in socket.receive_json()["error"]
    assert not studio.turns.queue


def test_who_says_nothing_does_not_hold_up_the_others(client, monkeypatch):
    monkeypatch.setattr(live, "PATIENCE", 0.05)
    with connect(client) as socket:
        assert socket.receive_json() == {
            "error": "nothing was heard for 0 s; start again"
        }


def test_without_the_pages_token_there_is_no_socket(client):
    for token in ("", "?token=guess"):
        with (
            pytest.raises(WebSocketDisconnect) as closed,
            client.websocket_connect(f"/api/live{token}"),
        ):
            pass
        assert closed.value.code == 4401


def test_the_oldest_tokens_are_forgotten(client, monkeypatch):
    monkeypatch.setattr(live, "MOST_TOKENS", 2)
    first, *_ = (token_of(client) for _ in range(3))
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(f"/api/live?token={first}"),
    ):
        pass


def test_the_page_asks_for_the_password(studio, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(studio.folder / "gradio"))
    with TestClient(server.app(studio, "secret")) as client:
        assert client.get("/live").status_code == 401
        assert token_of(client, auth=("atvg", "secret"))


def test_those_ahead_are_told(client, studio, brought):
    with studio.turns.turn(), connect(client) as socket:
        socket.send_text("{}")
        socket.send_bytes((brought / "face.png").read_bytes())
        assert socket.receive_json() == {"waiting": 1}


def test_a_visitor_who_is_not_heard_yet_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr(live, "MOST_BYTES", 9)
    taken = []

    class Flood:
        async def receive(self):
            taken.append(1)
            return {"type": "websocket.receive", "bytes": b"12"}

    async def flooded():
        received = queue.Queue()
        reader = asyncio.create_task(live.receive(Flood(), received))
        await asyncio.sleep(0.3)
        full = len(taken)
        received.get()
        await asyncio.sleep(0.3)
        reader.cancel()
        return full, len(taken)

    assert asyncio.run(flooded()) == (5, 6)
