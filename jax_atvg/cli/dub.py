"""The speaker of a video gets another voice, and lips that move with it.

    python main.py dub --video=speaker.mp4 --audio=other.wav --out=dubbed.mp4

Head, eyes, hands and background stay as they were filmed.  Where the sound is longer
than the video, the video runs to and fro.
"""

from jax_atvg.cli.console import say_what_networks_run, tell_compilations
from jax_atvg.cli.flags import Flags, Given, bundle_flag, precision_flag
from jax_atvg.inference.options import AFTERWARDS, check_dub


def flags(add: Flags) -> None:
    add.path("video", "The video of a speaker.", required=True)
    add.path("audio", "The new sound: a recording, or a video's.", required=True)
    add.path("out", "The video to write, an .mp4.", required=True)
    bundle_flag(add)
    precision_flag(add)
    add.text(
        "face",
        "Which face of the first picture that shows any: largest, or 0, 1, ... from "
        "the left.",
        "largest",
    )
    add.choice(
        "rest",
        AFTERWARDS,
        "When the sound has ended: keep the frames as they were filmed, or close the "
        "lips.",
        "keep",
    )
    add.real(
        "expressiveness",
        "By which the movement of mouth and jaw is multiplied, 0 to 3; 1 is as learnt.",
        1.0,
        least=0.0,
    )
    add.switch("label", "Write into the picture that it is synthetic.")
    add.path(
        "landmarks_out",
        "Also write the landmarks, f32[T,68,2], to this .npy; NaN where a frame stays.",
    )
    add.number(
        "track",
        "Which sound track of the recording, counted from 1; 0: the first that is not "
        "silent.",
        0,
        least=0,
    )


def run(given: Given) -> int:
    from jax_atvg.cli.machine import set_up_jax

    written = [given.out, given.landmarks_out] if given.landmarks_out else [given.out]
    check_dub((given.video, given.audio), written, given.rest, given.expressiveness)
    set_up_jax()
    from jax_atvg.inference.bundle import load_bundle
    from jax_atvg.inference.dub import dub_file
    from jax_atvg.inference.networks import Networks

    tell_compilations()
    networks = Networks(load_bundle(given.bundle), precision=given.precision)
    say_what_networks_run(networks)
    written = dub_file(
        given.video,
        given.audio,
        given.out,
        networks,
        face=given.face,
        track=given.track,
        rest=given.rest,
        expressiveness=given.expressiveness,
        label=given.label,
        landmarks_out=given.landmarks_out,
        progress=True,
    )
    print("wrote", *written)
    return 0
