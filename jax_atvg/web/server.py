"""The server: the page at /, the live one at /live, and for programs /api/animate."""

import contextlib
import ipaddress
import os
import pathlib
import secrets
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import fastapi
import gradio as gr
import uvicorn
from fastapi import Depends, Form, HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile as Upload

from input_pipeline.clip import InputError
from jax_atvg.web import live, page
from jax_atvg.web.studio import Studio, Wishes
from jax_atvg.web.turns import Busy

USER = "atvg"  # the name that goes with the password
TIDY_EVERY = 60.0  # seconds
BLOCK = 1 << 20  # bytes of an upload are copied at a time


def app(studio: Studio, password: str = "") -> fastapi.FastAPI:
    """The application.  password: asked of every visitor, whose name is USER; "":
    nobody is asked.

    gradio keeps what it is given in the folder that GRADIO_TEMP_DIR names, which is to
    be the studio's.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()

        def tidy() -> None:
            while not ended.wait(TIDY_EVERY):
                studio.tidy()

        threading.Thread(target=tidy, daemon=True).start()
        yield
        ended.set()

    whole = fastapi.FastAPI(
        title="jax_atvg", docs_url="/api", redoc_url=None, lifespan=lifespan
    )
    known = Depends(asked_for(password))
    whole.include_router(interface(studio, known))
    whole.include_router(live.routes(studio, [known]))
    return gr.mount_gradio_app(
        whole,
        page.build(studio).queue(max_size=studio.limits.waiting + 1),
        path="/",
        auth=(USER, password) if password else None,
        max_file_size=studio.limits.megabytes * gr.FileSize.MB,
        show_error=False,
        theme=gr.themes.Default(**page.FONTS),
        css=page.CSS,
        footer_links=[],
        ssr_mode=False,
        pwa=False,
    )


# --- for programs ---


def asked_for(password: str) -> Callable[..., None]:
    """What asks a visitor for the password, or nobody for an empty one."""

    def known(
        given: Annotated[
            HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))
        ],
    ) -> None:
        if not password:
            return
        words = (given.username, given.password) if given else ("", "")
        expected = USER, password
        if not all(
            secrets.compare_digest(a.encode(), b.encode())
            for a, b in zip(words, expected, strict=True)
        ):
            raise HTTPException(
                401, "wrong name or password", {"WWW-Authenticate": "Basic"}
            )

    return known


def interface(studio: Studio, known: Any) -> fastapi.APIRouter:
    """POST /api/animate: photo and sound -> the video."""
    router = fastapi.APIRouter(prefix="/api")

    @router.post("/animate", response_class=FileResponse, dependencies=[known])
    async def animate(
        photo: UploadFile,
        sound: UploadFile | None = None,
        text: Annotated[str, Form()] = "",
        face: Annotated[str, Form()] = "largest",
        full_frame: Annotated[bool, Form()] = False,
        panels: Annotated[bool, Form()] = False,
        blinks: Annotated[bool, Form()] = True,
        head_movement: Annotated[bool, Form()] = False,
        expressiveness: Annotated[float, Form()] = 1.0,
    ) -> FileResponse:
        """An MP4: the photo speaks the sound, or the text.  With panels the video shows
        landmarks, attention, colour and result instead.  400 says what is wrong; 413: a
        file is too large; 503: too many are waiting."""
        job = studio.new_folder()
        wishes = Wishes(face, full_frame, panels, blinks, head_movement, expressiveness)
        try:
            with as_answers():
                made = await run_in_threadpool(
                    carry_out, studio, job, photo, sound, text, wishes
                )
        except BaseException:
            shutil.rmtree(job, ignore_errors=True)
            raise
        return FileResponse(
            made,
            media_type="video/mp4",
            filename="talking.mp4",
            background=BackgroundTask(shutil.rmtree, job, ignore_errors=True),
        )

    return router


@contextlib.contextmanager
def as_answers() -> Iterator[None]:
    """What cannot be done is answered with 400, and with 503 where it may be later."""
    try:
        yield
    except InputError as error:
        raise HTTPException(400, str(error)) from error
    except Busy as error:
        raise HTTPException(503, str(error), {"Retry-After": "60"}) from error


def carry_out(
    studio: Studio,
    job: pathlib.Path,
    photo: Upload,
    sound: Upload | None,
    text: str,
    wishes: Wishes,
) -> pathlib.Path:
    """The video of a request, in the job's folder."""
    kept = keep(photo, job / "photo", studio.limits.megabytes)
    if text.strip():
        heard = studio.speak(text, job)
    elif sound is not None:
        heard = keep(sound, job / "sound", studio.limits.megabytes)
    else:
        raise InputError("there is no sound; send one as `sound`, or a `text`")
    made = studio.animate(kept, heard, wishes, folder=job)
    return made.panels or made.video


def keep(upload: Upload, path: pathlib.Path, megabytes: int) -> pathlib.Path:
    """Writes an upload to a path that does not depend on its name.  HTTPException 413:
    it is too large."""
    left = megabytes * 10**6
    with path.open("wb") as file:
        while block := upload.file.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise HTTPException(
                    413,
                    f"the {path.name} is larger than {megabytes} MB; make it smaller",
                )
            file.write(block)
    return path


# --- running it ---


def serve(studio: Studio, host: str, port: int, password: str = "") -> None:
    """Serves until the process is asked to end, by Ctrl-C or SIGTERM.  InputError: the
    address cannot be served on, or others could reach it and there is no password."""
    check_host(host, password)
    os.environ["GRADIO_TEMP_DIR"] = str(studio.folder)
    config = uvicorn.Config(
        app(studio, password), host=host, port=port, log_level="warning"
    )
    try:
        sock = config.bind_socket()
    except SystemExit as error:  # what uvicorn makes of an OSError
        raise InputError(
            f"--host={host} --port={port}: cannot be served on; choose another --port"
        ) from error
    sock.listen()  # from now on visitors wait, and are not refused
    shown = f"[{host}]" if ":" in host else host
    print(
        f"ready: http://{shown}:{sock.getsockname()[1]}  (Ctrl-C ends it)", flush=True
    )
    # uvicorn ends in order, and then sends itself the signal again.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([sock])


def check_host(host: str, password: str) -> None:
    """InputError: others could reach the server, and there is no password."""
    if not password and not is_local(host):
        raise InputError(
            f"--host={host}: others could reach the page; set a --password, which they "
            f"are asked for with the name {USER}"
        )


def is_local(host: str) -> bool:
    """Whether this machine alone reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
