"""The page /live: a visitor speaks into the microphone, and the face speaks with them.

The browser sends, on the socket /api/live:

    {"rate": 16000, "full_frame": false, ...}, as text: WISHES
    the photo, as bytes
    samples, as bytes of 16-bit whole numbers, whenever there are some

It is told {"waiting": 2}, then {"ready": true, "width": W, "height": H}, and for every
frame bytes: its number, 4 bytes, and a JPEG; or {"error": "..."}.
"""

import asyncio
import contextlib
import json
import pathlib
import queue
import secrets
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse
from jaxtyping import UInt8

from input_pipeline.clip import InputError
from jax_atvg.inference.live import Talker
from jax_atvg.web.studio import Studio, named
from jax_atvg.web.turns import Busy

PAGE = pathlib.Path(__file__).with_name("live.html")
QUALITY = 90  # of the JPEGs
MOST_TOKENS = 1000  # pages that were opened, of which the oldest are forgotten
RATES = (8000, 96000)
# What a visitor may ask for, and what they get otherwise: arguments of the talker.
WISHES = {
    "rate": 16000,
    "face": "largest",
    "full_frame": False,
    "blinks": True,
    "head_movement": False,
    "expressiveness": 1.0,
}
PATIENCE = 10.0  # seconds
MOST_BYTES = 4_000_000  # that are taken and not yet heard: 20 s of sound at 96 kHz

Send = Callable[[dict[str, Any] | bytes], None]


class Gone(Exception):
    """The visitor has left."""


def routes(studio: Studio, dependencies: list[Any]) -> APIRouter:
    """The page and its socket.  dependencies: of who may open the page.  The socket
    needs the token that the page holds, so that no other site can use it."""
    router, tokens = APIRouter(), {}

    @router.get("/live", response_class=HTMLResponse, dependencies=dependencies)
    def page() -> str:
        token = secrets.token_urlsafe()
        tokens[token] = True
        while len(tokens) > MOST_TOKENS:
            del tokens[next(iter(tokens))]
        return PAGE.read_text("utf-8").replace("{{token}}", token)

    @router.websocket("/api/live")
    async def live(socket: WebSocket, token: str = "") -> None:
        if token not in tokens:
            await socket.close(4401, "open /live, which has the token")
            return
        await socket.accept()
        received: queue.Queue[Any] = queue.Queue()
        loop = asyncio.get_running_loop()

        def send(message: dict[str, Any] | bytes) -> None:
            text = isinstance(message, dict)
            call = (
                socket.send_text(json.dumps(message))
                if text
                else socket.send_bytes(message)
            )
            try:
                asyncio.run_coroutine_threadsafe(call, loop).result()
            except (RuntimeError, WebSocketDisconnect) as error:
                raise Gone from error

        def converse() -> None:
            try:
                with contextlib.suppress(Gone):
                    conversation(studio, received, send)
            finally:
                loop.call_soon_threadsafe(ended.set)

        ended = asyncio.Event()
        thread = threading.Thread(target=converse, daemon=True)
        thread.start()
        reader = asyncio.create_task(receive(socket, received))
        await ended.wait()
        reader.cancel()
        with contextlib.suppress(RuntimeError):  # the visitor has closed it
            await socket.close()

    return router


async def receive(socket: WebSocket, received: queue.Queue) -> None:
    """Puts what comes into the queue, None at the end."""
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            received.put(message.get("bytes") or message.get("text") or b"")
            while sum(map(len, tuple(received.queue))) > MOST_BYTES:
                await asyncio.sleep(0.05)  # the visitor's browser waits
    finally:
        received.put(None)


def conversation(studio: Studio, received: queue.Queue, send: Send) -> None:
    """All that is done for one visitor, in a thread of its own.  Gone: they left."""
    try:
        talk(studio, received, send)
    except (InputError, Busy) as error:
        send({"error": str(error)})


def talk(studio: Studio, received: queue.Queue, send: Send) -> None:
    wishes = asked_for(next_of(received))
    photo = next_of(received)
    if not isinstance(photo, bytes):
        raise InputError("the photo comes second, as bytes")
    job = studio.new_folder()
    path = job / "photo"
    try:
        path.write_bytes(photo)
        with studio.turns.turn(lambda ahead: send({"waiting": ahead})), named(path):
            talker = Talker(path, studio.networks, label=studio.label, **wishes)
            height, width = talker.size
            send({"ready": True, "width": width, "height": height})
            number, heard = 0, 0
            for samples in pieces(received):
                heard += len(samples)
                if heard > studio.limits.seconds * talker.rate:
                    raise InputError(
                        f"{studio.limits.seconds} s are over; start again, or have the "
                        "server started with a larger --seconds"
                    )
                for frame in talker.push(samples):
                    send(struct.pack(">I", number) + jpeg(frame))
                    number += 1
    finally:
        path.unlink(missing_ok=True)
        job.rmdir()


def asked_for(text: Any) -> dict[str, Any]:
    """The talker's arguments.  InputError: it is not what the page sends."""
    try:
        given = WISHES | json.loads(text)
        if type(given["expressiveness"]) is int:  # JavaScript writes 1 for 1.0
            given["expressiveness"] = float(given["expressiveness"])
    except (TypeError, ValueError, OverflowError, RecursionError):
        given = {}
    right = given.keys() == WISHES.keys() and all(
        type(given[name]) is type(usual) for name, usual in WISHES.items()
    )
    if not right or not RATES[0] <= given["rate"] <= RATES[1]:
        raise InputError(
            f"the first message has some of {json.dumps(WISHES)}, with a rate of "
            f"{RATES[0]} to {RATES[1]}"
        )
    return given


def next_of(received: queue.Queue) -> Any:
    """The next message.  Gone: there is none.  InputError: nothing comes, while others
    may be waiting."""
    try:
        message = received.get(timeout=PATIENCE)
    except queue.Empty:
        raise InputError(
            f"nothing was heard for {PATIENCE:.0f} s; start again"
        ) from None
    if message is None:
        raise Gone
    return message


def pieces(received: queue.Queue) -> Iterator[np.ndarray]:
    """The samples that have come, all of them at once, until the visitor leaves."""
    while True:
        messages = [next_of(received)]
        while not received.empty():
            messages.append(next_of(received))
        if not all(isinstance(x, bytes) and len(x) % 2 == 0 for x in messages):
            raise InputError("samples come as bytes, two for each")
        yield np.frombuffer(b"".join(messages), "<i2")


def jpeg(frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
    import cv2

    done, data = cv2.imencode(
        ".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    assert done
    return data.tobytes()
