"""The page /live: a visitor speaks into the microphone, and the face speaks with them.

The browser sends, on the socket /api/live:

    {"rate": 16000, "full_frame": false, ...}, as text: WISHES
    the photo, as bytes
    samples, as bytes of 16-bit whole numbers, whenever there are some

It is told {"waiting": 2}, now and then, and {"ready": true, "width": W, "height": H}.
For every frame it gets bytes: the frame's number, 4 bytes, and a JPEG.  What ends the
talk before the visitor does is told as {"error": "..."}.
"""

import asyncio
import contextlib
import io
import json
import pathlib
import queue
import secrets
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse
from jaxtyping import UInt8
from PIL import Image

from input_pipeline.clip import InputError
from input_pipeline.media import image
from jax_atvg.inference.animate import COMMENT
from jax_atvg.inference.live import Talker
from jax_atvg.web.studio import Studio, named
from jax_atvg.web.turns import Busy

PAGE = pathlib.Path(__file__).with_name("live.html")
QUALITY = 90  # of the JPEGs
LONGEST = 1080  # pixels of a whole photo's longer side: larger frames would be late
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
PATIENCE = 10.0  # seconds, for a message to come or to be taken
SILENT = "nothing was heard for {:.0f} s; start again"
PHOTO_PATIENCE = 60.0  # seconds, for the photo to come
NO_PHOTO = "the photo did not come in {:.0f} s; start again with a smaller one"
FORGOTTEN = "the server no longer knows this page; load this page again"
FAILED = "the server has failed; start again"
# What is taken and not yet heard is 20 s of sound at most, at 96 kHz or in messages of
# 20 ms; then the visitor's browser waits.
MOST_BYTES = 4_000_000
MOST_MESSAGES = 1000

Send = Callable[[dict[str, Any] | bytes], None]


class Gone(Exception):
    """The visitor has left."""


def routes(studio: Studio) -> APIRouter:
    """The page and its socket, which needs the token that the page holds, so that no
    other site can use it."""
    router, tokens = APIRouter(), {}

    @router.get("/live", response_class=HTMLResponse)
    def page() -> str:
        token = secrets.token_urlsafe()
        tokens[token] = True
        while len(tokens) > MOST_TOKENS:
            del tokens[next(iter(tokens))]
        text = PAGE.read_text("utf-8").replace("{{token}}", token)
        return text.replace("{{megabytes}}", str(studio.limits.megabytes))

    @router.websocket("/api/live")
    async def live(socket: WebSocket, token: str = "") -> None:
        await socket.accept()  # a page is not told why a socket is refused
        if token in tokens:
            await visit(studio, socket)
        else:
            await close(socket, FORGOTTEN)

    return router


async def visit(studio: Studio, socket: WebSocket) -> None:
    """A visitor's conversation, from its beginning to its end."""
    received: queue.Queue[Any] = queue.Queue()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    send = sender(socket, loop)

    def converse() -> None:
        try:
            with contextlib.suppress(Gone):
                conversation(studio, received, send)
        finally:
            with contextlib.suppress(RuntimeError):  # the server itself has ended
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=converse, daemon=True).start()
    reader = asyncio.create_task(receive(socket, received))
    await ended.wait()
    reader.cancel()
    await close(socket)


async def close(socket: WebSocket, error: str = "") -> None:
    """Closes the socket, unless the visitor has closed it or takes nothing."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
        if error:
            await socket.send_json({"error": error})
        await asyncio.wait_for(socket.close(), PATIENCE)


async def receive(socket: WebSocket, received: queue.Queue) -> None:
    """Puts what comes into the queue, None at the end."""
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            received.put(message.get("bytes") or message.get("text") or b"")
            while is_full(received):
                await asyncio.sleep(0.05)
    finally:
        received.put(None)


def is_full(received: queue.Queue) -> bool:
    messages = tuple(received.queue)
    return len(messages) > MOST_MESSAGES or sum(map(len, messages)) > MOST_BYTES


def sender(socket: WebSocket, loop: asyncio.AbstractEventLoop) -> Send:
    """What sends a message from another thread, and returns when it is on its way.
    Gone: nobody takes it."""

    def send(message: dict[str, Any] | bytes) -> None:
        if isinstance(message, bytes):
            sending = socket.send_bytes(message)
        else:
            sending = socket.send_json(message)
        sending = asyncio.wait_for(sending, PATIENCE)
        try:
            asyncio.run_coroutine_threadsafe(sending, loop).result()
        except (RuntimeError, WebSocketDisconnect, TimeoutError) as error:
            raise Gone from error

    return send


def conversation(studio: Studio, received: queue.Queue, send: Send) -> None:
    """All that is done for one visitor, in a thread of its own.  Gone: they left."""
    try:
        talk(studio, received, send)
    except (InputError, Busy) as error:
        send({"error": str(error)})
    except Gone:
        raise
    except Exception:
        send({"error": FAILED})
        raise


def talk(studio: Studio, received: queue.Queue, send: Send) -> None:
    wishes = asked_for(next_of(received, PATIENCE, SILENT))
    photo = next_of(received, PHOTO_PATIENCE, NO_PHOTO)
    if not isinstance(photo, bytes):
        raise InputError("the photo comes second, as bytes")
    if len(photo) > studio.limits.megabytes * 10**6:
        raise InputError(
            f"the photo is larger than {studio.limits.megabytes} MB; make it smaller"
        )

    def waiting(ahead: int) -> None:
        if None in tuple(received.queue):
            raise Gone
        send({"waiting": ahead})

    with studio.turns.turn(waiting):
        talker = talker_of(studio, photo, wishes)
        height, width = talker.size
        send({"ready": True, "width": width, "height": height})
        frames = frames_of(talker, received, studio.limits.seconds)
        for number, frame in enumerate(frames):
            send(struct.pack(">I", number) + jpeg(frame))


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


def talker_of(studio: Studio, photo: bytes, wishes: dict[str, Any]) -> Talker:
    """The photo lies in a file only while it is read.  A whole one is made smaller."""
    job = studio.new_folder()
    path = job / "photo"
    try:
        path.write_bytes(photo)
        with named(path):
            subject = path
            if wishes["full_frame"]:
                subject = image.shrunk(image.read_image(path), LONGEST)
            return Talker(subject, studio.networks, label=studio.label, **wishes)
    finally:
        shutil.rmtree(job, ignore_errors=True)


def next_of(received: queue.Queue, seconds: float, late: str) -> Any:
    """The next message.  Gone: there is none.  InputError: it does not come in so many
    seconds, while others may be waiting; `late` says so."""
    with contextlib.suppress(queue.Empty):
        if seconds > 0:
            message = received.get(timeout=seconds)
            if message is None:
                raise Gone
            return message
    raise InputError(late.format(seconds))


def frames_of(
    talker: Talker, received: queue.Queue, seconds: int
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of what the visitor says, until they leave.

    seconds: how long their turn is, in sound and in time.  InputError: it is over, or
    nothing is heard.
    """
    over = (
        f"{seconds} s are over; start again, or have the server started with a larger "
        "--seconds"
    )
    end, room = time.monotonic() + seconds, seconds * talker.rate
    while True:
        left = end - time.monotonic()
        messages = [next_of(received, *min((PATIENCE, SILENT), (left, over)))]
        # The others that have come, but for those that come meanwhile.
        for _ in range(received.qsize()):
            messages.append(next_of(received, PATIENCE, SILENT))
        if not all(isinstance(x, bytes) and len(x) % 2 == 0 for x in messages):
            raise InputError("samples come as bytes, two for each")
        samples = np.frombuffer(b"".join(messages), "<i2")
        room -= len(samples)
        if room < 0:
            raise InputError(over)
        step = talker.rate // 5  # five frames in memory, which may be large
        for start in range(0, len(samples), step):
            for frame in talker.push(samples[start : start + step]):
                if time.monotonic() > end:
                    raise InputError(over)
                yield frame


def jpeg(frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The frame as a file, with the comment that videos have: it is synthetic."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=QUALITY, comment=COMMENT)
    return file.getvalue()
