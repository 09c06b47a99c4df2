"""The socket behind the page /live."""

import asyncio
import dataclasses
import io
import json
import queue
import re
import struct
import time
import types

import numpy as np
import pytest
from PIL import Image

from input_pipeline.clip import InputError
from jax_atvg.inference.animate import COMMENT
from jax_atvg.inference.live import Talker
from tests.small_bundle import photo, speech

pytest.importorskip("gradio", reason="requirements/web.txt")
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

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


def wait_until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_large_whole_photo_is_made_smaller(client, brought, monkeypatch):
    monkeypatch.setattr(live, "LONGEST", 300)
    photo = (brought / "two.png").read_bytes()
    for wishes, width in (({"full_frame": True}, 300), ({}, 32)):
        with connect(client) as socket:
            socket.send_text(json.dumps(wishes))
            socket.send_bytes(photo)
            assert socket.receive_json()["width"] == width


@pytest.mark.parametrize("label", [False, True])
def test_frames_come_while_one_speaks(client, studio, brought, label):
    """They are those of a talker, in their order, and say that they are synthetic."""
    studio.label, sound = label, samples()
    studio.limits = dataclasses.replace(studio.limits, seconds=60)
    wishes = {"rate": RATE, "expressiveness": 2, "blinks": False}
    expected, other = (
        Talker(
            brought / "face.png",
            studio.networks,
            rate=RATE,
            expressiveness=2.0,
            blinks=False,
            label=which,
        ).push(sound)
        for which in (label, not label)
    )
    with connect(client) as socket:
        socket.send_text(json.dumps(wishes))
        socket.send_bytes((brought / "face.png").read_bytes())
        assert socket.receive_json() == {"ready": True, "width": 32, "height": 32}
        # The photo is not kept for longer than it is read.
        assert not [path for path in studio.folder.iterdir() if path.name != "gradio"]
        for start in range(0, len(sound), 320):
            socket.send_bytes(sound[start : start + 320].tobytes())
        for number, (frame, unlike) in enumerate(zip(expected, other, strict=True)):
            data = socket.receive_bytes()
            assert struct.unpack(">I", data[:4]) == (number,)
            picture = Image.open(io.BytesIO(data[4:]))
            assert picture.info["comment"] == COMMENT.encode()
            shown = np.asarray(picture).astype(int)
            assert np.abs(shown - frame).mean() < 12  # JPEG, of noise
            assert np.abs(shown - frame).mean() < np.abs(shown - unlike).mean()
    wait_until(lambda: not studio.turns.queue)  # the visitor has left


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (["{}", b"no picture"], "the photo: not a readable picture"),
        (
            ["{}", bytes(2 * 10**6 + 1)],
            "the photo is larger than 2 MB; make it smaller",
        ),
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


def test_a_photo_has_longer_to_come_and_not_for_ever(client, monkeypatch):
    monkeypatch.setattr(live, "PATIENCE", 0.05)
    monkeypatch.setattr(live, "PHOTO_PATIENCE", 1.0)
    with connect(client) as socket:
        socket.send_text("{}")
        time.sleep(0.3)
        socket.send_bytes(b"no picture")
        assert "not a readable picture" in socket.receive_json()["error"]
    with connect(client) as socket:
        socket.send_text("{}")
        assert socket.receive_json() == {
            "error": "the photo did not come in 1 s; start again with a smaller one"
        }


@pytest.mark.parametrize("message", [b"", b"\0\0"])
def test_a_turn_ends_in_time_however_little_is_said(studio, monkeypatch, message):
    """A message comes every nine seconds, within PATIENCE."""
    clock = types.SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(live, "time", clock)

    class Slow(queue.Queue):
        def get(self, timeout):
            clock.now += min(timeout, 9.0)
            if timeout < 9.0:
                raise queue.Empty
            return message

    talker = Talker(photo(), studio.networks)
    with pytest.raises(InputError, match="20 s are over; start again"):
        list(live.frames_of(talker, Slow(), 20))
    assert clock.now == 120.0


def test_a_turn_ends_in_time_while_frames_are_made(studio, monkeypatch):
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(live, "time", clock)
    received = queue.Queue()
    received.put(samples().tobytes())
    frames = live.frames_of(Talker(photo(), studio.networks), received, 20)
    next(frames)
    clock.now = 21.0
    with pytest.raises(InputError, match="20 s are over; start again"):
        next(frames)


def test_without_the_pages_token_there_is_no_talk(client, monkeypatch):
    """As after a restart of the server, and for all pages but the last ones."""
    monkeypatch.setattr(live, "MOST_TOKENS", 2)
    first, *_ = (token_of(client) for _ in range(3))
    for token in ("", "?token=guess", f"?token={first}"):
        with client.websocket_connect(f"/api/live{token}") as socket:
            assert socket.receive_json() == {
                "error": "the server no longer knows this page; load this page again"
            }
            with pytest.raises(WebSocketDisconnect):
                socket.receive_json()


def test_the_page_asks_for_the_password(studio, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(studio.folder / "gradio"))
    with TestClient(server.app(studio, "secret")) as client:
        assert client.get("/live").status_code == 401
        assert token_of(client, auth=("atvg", "secret"))


def test_those_ahead_are_told_and_one_who_leaves_gives_up_the_place(
    client, studio, brought
):
    with studio.turns.turn():
        with connect(client) as socket:
            socket.send_text("{}")
            socket.send_bytes((brought / "face.png").read_bytes())
            assert socket.receive_json() == {"waiting": 1}
        wait_until(lambda: len(studio.turns.queue) == 1)


def test_nothing_is_sent_to_a_waiting_visitor_who_has_left(studio):
    def send(message):
        raise AssertionError(message)

    received = queue.Queue()
    for message in ("{}", b"a photo", None):
        received.put(message)
    with studio.turns.turn(), pytest.raises(live.Gone):
        live.talk(studio, received, send)


def test_a_fault_of_the_server_is_told_and_logged(studio, brought, monkeypatch):
    def full(self):
        raise OSError("no space left on device")

    monkeypatch.setattr(type(studio), "new_folder", full)
    received, told = queue.Queue(), []
    received.put("{}")
    received.put(b"a photo")
    with pytest.raises(OSError, match="no space left"):
        live.conversation(studio, received, told.append)
    assert told == [{"error": "the server has failed; start again"}]
    assert not studio.turns.queue


class Socket(WebSocket):
    """receive and send do what the test says."""

    def __init__(self, receive=None, send=None):
        super().__init__({"type": "websocket"}, receive, send)
        self.client_state = self.application_state = WebSocketState.CONNECTED


@pytest.mark.parametrize("message", [{"waiting": 1}, b"a frame"])
def test_one_who_takes_nothing_has_left(monkeypatch, message):
    monkeypatch.setattr(live, "PATIENCE", 0.05)

    async def stuck(_):
        await asyncio.Event().wait()

    async def sent():
        send = live.sender(Socket(send=stuck), asyncio.get_running_loop())
        with pytest.raises(live.Gone):
            await asyncio.to_thread(send, message)
        await live.close(Socket(send=stuck))

    asyncio.run(sent())


@pytest.mark.parametrize(
    ("most", "message"), [("MOST_BYTES", b"12"), ("MOST_MESSAGES", b"")]
)
def test_a_visitor_who_is_not_heard_yet_cannot_fill_the_memory(
    monkeypatch, most, message
):
    monkeypatch.setattr(live, most, {"MOST_BYTES": 9, "MOST_MESSAGES": 4}[most])
    taken = []

    async def flood():
        taken.append(1)
        return {"type": "websocket.receive", "bytes": message}

    async def flooded():
        received = queue.Queue()
        reader = asyncio.create_task(live.receive(Socket(flood), received))
        await asyncio.sleep(0.3)
        full = len(taken)
        received.get()
        await asyncio.sleep(0.3)
        reader.cancel()
        return full, len(taken)

    assert asyncio.run(flooded()) == (5, 6)
