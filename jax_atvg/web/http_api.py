"""For programs: POST /api/animate, and the page /api, which describes it."""

import contextlib
import html
import inspect
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile as Upload

from input_pipeline.clip import InputError
from input_pipeline.files import remove
from jax_atvg.inference.options import MOST_EXPRESSIVE
from jax_atvg.web.studio import LONGEST_SIDE, MOST_CHARACTERS, Studio, Wishes
from jax_atvg.web.turns import Busy

PAGE = pathlib.Path(__file__).with_name("http_api.html")
BLOCK = 1 << 20  # bytes of an upload are copied at a time
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the video; with panels landmarks, attention, colour and result",
        "content": {"video/mp4": {}},
    },
    400: {"description": "photo, sound or a choice is missing or cannot be used"},
    401: {"description": "name or password is wrong"},
    413: {"description": "a file, or all together, is too large"},
    503: {"description": "too many are waiting; Retry-After says how many seconds"},
    "default": {"description": "the server has failed"},
}


def routes(studio: Studio) -> APIRouter:
    """POST /api/animate: photo and sound -> the video.  GET /api: how to use it."""
    router = APIRouter(prefix="/api")

    @router.get("", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request) -> str:
        return manual(animate, str(request.base_url))

    @router.post("/animate", response_class=FileResponse, responses=ANSWERS)
    async def animate(
        photo: Annotated[UploadFile, File(description="a picture with a face")],
        sound: Annotated[
            UploadFile | None,
            File(description="a recording of speech; or send a text"),
        ] = None,
        text: Annotated[
            str,
            Form(
                description=f"English, {MOST_CHARACTERS} characters at most, which "
                "espeak-ng speaks, where the server has it"
            ),
        ] = "",
        face: Annotated[
            str,
            Form(description="which one talks: largest, or 0, 1, ... from the left"),
        ] = "largest",
        full_frame: Annotated[
            bool,
            Form(
                description=f"show the whole photo, {LONGEST_SIDE} pixels a side at "
                "most, not the face alone"
            ),
        ] = False,
        panels: Annotated[
            bool, Form(description="show landmarks, attention, colour and result")
        ] = False,
        blinks: Annotated[bool, Form(description="the eyes blink")] = True,
        head_movement: Annotated[
            bool, Form(description="the head moves a little; with full_frame")
        ] = False,
        expressiveness: Annotated[
            float,
            Form(description=f"how much mouth and jaw move, 0 to {MOST_EXPRESSIVE:g}"),
        ] = 1.0,
    ) -> FileResponse:
        """Makes a photo speak a sound, or a text, in an MP4."""
        wishes = Wishes(face, full_frame, panels, blinks, head_movement, expressiveness)
        with as_answers(), studio.job() as job:
            made = await run_in_threadpool(
                carry_out, studio, job, photo, sound, text, wishes
            )
        return FileResponse(
            made,
            media_type="video/mp4",
            filename="talking.mp4",
            background=BackgroundTask(remove, job),
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


async def say_what_is_wrong(_: Request, error: RequestValidationError) -> JSONResponse:
    """The answer to a form that lacks a field, or has one of another type."""
    first = error.errors()[0]
    field, given = first["loc"][-1], first["input"]
    if first["type"] in ("missing", "value_error"):  # the latter of a text for a file
        detail = f"there is no {field}; send a file as `{field}`"
    else:
        detail = f"{field}={given!r:.60}: {first['msg']}; /api describes the fields"
    return JSONResponse({"detail": detail}, 400)


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
    made = studio.animate(kept, heard, job, wishes)
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


def manual(animate: Callable[..., Any], address: str) -> str:
    """The page /api.  animate: whose arguments are the fields of the form.  address: of
    this server."""
    fields = inspect.signature(animate).parameters.values()
    shown = {
        "address": html.escape(address.rstrip("/")),
        "fields": rows(
            (one.name, usual(one.default), one.annotation.__metadata__[0].description)
            for one in fields
        ),
        "answers": rows(
            (code, one["description"])
            for code, one in ANSWERS.items()
            if code != "default"
        ),
    }
    text = PAGE.read_text("utf-8")
    for name, value in shown.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def usual(default: Any) -> str:
    """What a field is where it is not sent."""
    if default is inspect.Parameter.empty:
        return "(needed)"
    return "" if default is None else str(default).lower()


def rows(cells: Iterable[tuple]) -> str:
    """Rows of a table."""
    lines = ("".join(f"<td>{html.escape(str(x))}</td>" for x in row) for row in cells)
    return "\n".join(f"<tr>{line}</tr>" for line in lines)
