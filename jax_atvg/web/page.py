"""The page: photo, sound, a button, and the video."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import gradio as gr

from input_pipeline.clip import InputError
from jax_atvg.resources import packaged
from jax_atvg.web.studio import MOST_CHARACTERS, Made, Studio, Wishes, can_speak
from jax_atvg.web.turns import Busy
from jax_atvg.web.uploads import CheckedBlocks

TITLE = "A photo that talks"
INTRODUCTION = f"""# {TITLE}
A face photo and a speech recording become a video in which the face speaks. The best
photo shows one face from the front, upright, with the lips closed.
[Speak yourself, and the face speaks with you](/live)."""
SYNTHETIC = """*The videos are synthetic: the person shown did not say these words.
Every video says so in its metadata. Use photos and voices of people who agree.*"""
FONTS = {
    "font": ["system-ui", "sans-serif"],
    "font_mono": ["monospace"],
}  # none fetched
HEIGHT = 420  # pixels, of photo and video: what is below them stays in sight
CSS = "footer {display: none} .faces img {cursor: pointer}"


def build(studio: Studio) -> gr.Blocks:
    """The page.  Its files lie in the folder that GRADIO_TEMP_DIR names, where the
    studio deletes them; gradio itself would delete the sound to try as well."""
    limits = studio.limits
    with CheckedBlocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                photo = gr.Image(
                    label="Photo",
                    type="filepath",
                    sources=["upload", "webcam"],
                    height=HEIGHT,
                    elem_id="photo",
                )
                face = gr.State("largest")
                faces = gr.Gallery(
                    label="Several faces: click the one that is to talk",
                    visible=False,
                    columns=6,
                    height=140,
                    allow_preview=False,
                    object_fit="contain",
                    buttons=[],
                    elem_id="faces",
                    elem_classes="faces",
                )
                sound = gr.Audio(
                    label=f"Sound, {limits.seconds} s at most",
                    type="filepath",
                    sources=["upload", "microphone"],
                    buttons=["download"],
                    elem_id="sound",
                )
                text = gr.Textbox(
                    label="Or a text in English, which a computer's voice speaks",
                    max_length=MOST_CHARACTERS,
                    visible=can_speak(),
                    elem_id="text",
                )
                full_frame = gr.Checkbox(
                    label="Show the whole photo, not the face alone", elem_id="whole"
                )
                head_movement = gr.Checkbox(
                    label="Move the head a little (in the whole photo)",
                    interactive=False,
                    elem_id="head",
                )
                blinks = gr.Checkbox(label="Blink", value=True, elem_id="blinks")
                expressiveness = gr.Slider(
                    0.5,
                    2.0,
                    1.0,
                    step=0.1,
                    label="How much mouth and jaw move; 1 is as the networks learnt",
                    elem_id="expressiveness",
                )
                panels = gr.Checkbox(
                    label="Also show how it is made: landmarks, attention, colour",
                    elem_id="how",
                )
                go = gr.Button("Animate", variant="primary", elem_id="animate")
            with gr.Column():
                video = gr.Video(
                    label="Video",
                    autoplay=True,
                    height=HEIGHT,
                    buttons=["download"],
                    elem_id="video",
                )
                panels_video = gr.Video(
                    label="Landmarks, attention, colour, result",
                    visible=False,
                    buttons=["download"],
                    elem_id="panels",
                )
                about = gr.Markdown(elem_id="about")
        photos, sounds = examples()
        if photos:
            gr.Examples(photos, photo, label="Photos to try", elem_id="photos")
        if sounds:
            gr.Examples(sounds, sound, label="Sounds to try", elem_id="sounds")
        gr.Markdown(SYNTHETIC)

        # The networks' own reader opens the photo, and no other: preprocess=False.

        def forget() -> tuple[str, Any]:
            return "largest", gr.Gallery(value=None, visible=False)

        def look(photo: dict[str, Any] | None) -> tuple[Any, Any]:
            path = path_of(photo)
            with shown():
                if path and (instead := studio.viewable(path)):
                    return gr.skip(), str(instead)  # the new photo is looked at, too
                found = studio.faces(path) if path else []
            several = len(found) > 1
            value = found if several else None
            return gr.Gallery(value=value, visible=several), gr.skip()

        def allow(whole: bool) -> Any:
            return gr.Checkbox(interactive=whole, value=False)

        def choose(event: gr.SelectData) -> str:
            return str(event.index)

        def animate(
            photo: dict[str, Any] | None,
            sound: dict[str, Any] | None,
            text: str,
            face: str,
            full_frame: bool,
            panels: bool,
            blinks: bool,
            head_movement: bool,
            expressiveness: int | float,  # as the browser sends it
            progress: gr.Progress = gr.Progress(),  # noqa: B008
        ):
            wishes = Wishes(
                face, full_frame, panels, blinks, head_movement, float(expressiveness)
            )
            files = path_of(photo), path_of(sound)
            made = carried_out(studio, *files, text, wishes, progress)
            return (
                str(made.video),
                gr.Video(
                    value=made.panels and str(made.panels),
                    visible=made.panels is not None,
                ),
                "\n".join(f"- {line}" for line in made.about),
            )

        wishes = [face, full_frame, panels, blinks, head_movement, expressiveness]
        inputs = [photo, sound, text, *wishes]
        photo.change(forget, None, [face, faces], api_visibility="private").then(
            look, photo, [faces, photo], api_visibility="private", preprocess=False
        )
        full_frame.change(allow, full_frame, head_movement, api_visibility="private")
        faces.select(choose, None, face, api_visibility="private")
        go.click(
            animate,
            inputs,
            [video, panels_video, about],
            api_visibility="private",
            preprocess=False,
            scroll_to_output=True,
            concurrency_limit=limits.waiting + 1,  # the studio has them take turns
        )
    return page


def path_of(file: dict[str, Any] | None) -> str | None:
    """Where a visitor's file lies, of what gradio says of it."""
    return file and file["path"]


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Errors become gradio's, which the page shows in one line."""
    try:
        yield
    except (InputError, Busy) as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


def carried_out(
    studio: Studio,
    photo: str | None,
    sound: str | None,
    text: str,
    wishes: Wishes,
    progress: gr.Progress,
) -> Made:
    """The video, in gradio's own folder.  gr.Error: what is wrong, in one line."""
    with shown(), studio.job() as job:
        if not photo:
            raise InputError("there is no photo; upload one, or click one to try")
        if text.strip():
            heard = studio.speak(text, job)
        elif sound:
            heard = copied(sound, job / "sound", studio.limits.minutes)
        else:
            raise InputError("there is no sound; upload or record some")
        return studio.animate(
            copied(photo, job / "photo", studio.limits.minutes),
            heard,
            job,
            wishes,
            lambda share, words: progress(share, desc=words),
        )


def copied(path: str, to: pathlib.Path, minutes: int) -> pathlib.Path:
    """A copy of a visitor's file, which may be deleted while they wait.  InputError: it
    is deleted already."""
    try:
        return shutil.copyfile(path, to)
    except FileNotFoundError:
        raise InputError(
            f"the {to.name} is older than {minutes} minutes and was deleted; upload it "
            "again"
        ) from None


def examples() -> tuple[list[str], list[str]]:
    """(photos, sounds) to try: the astronaut Eileen Collins (NASA, public domain), who
    comes with scikit-image, and the demo's sentence."""
    import skimage.data

    photo = pathlib.Path(skimage.data.__path__[0]) / "astronaut.png"
    sound = packaged("demo/speech.flac")
    return tuple([str(path)] if path.exists() else [] for path in (photo, sound))
