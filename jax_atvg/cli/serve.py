"""A page on this machine: a photo, a sound, a button, and the video.

    python main.py serve --port=7860

Then open the address that is printed.  What visitors give and get is kept in a folder
of its own, which is deleted at the end, and each file after some minutes.  Programs
send the same to /api/animate, which /api describes.  pip install -r
requirements/web.txt
"""

import os
import tempfile

from input_pipeline.clip import InputError
from jax_atvg.cli.console import say, say_what_networks_run, tell_compilations
from jax_atvg.cli.flags import Flags, Given, bundle_flag, precision_flag

PASSWORD = "ATVG_PASSWORD"  # in the environment, where other users do not see it


def flags(add: Flags) -> None:
    bundle_flag(add)
    precision_flag(add)
    add.text(
        "host",
        "The address to serve on; 0.0.0.0: all of this machine's, with a --password.",
        "127.0.0.1",
        kind="ADDRESS",
    )
    add.number("port", "0: any that is free.", 7860, least=0)
    add.text(
        "password",
        f"Visitors are asked for it, with the name atvg; or set {PASSWORD}, which "
        "other users of this machine do not see.",
    )
    add.switch("label", "Write into every video that it is synthetic.")
    add.number("seconds", "Of sound that are accepted.", 120, least=1)
    add.number("megabytes", "Of a file that are accepted.", 50, least=1)
    add.number("waiting", "Visitors that may wait for their turn.", 8, least=0)


def run(given: Given) -> int:
    from jax_atvg.cli.machine import set_up_jax

    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"serve: {error.name} is not installed; pip install -r requirements/web.txt"
        ) from error
    from jax_atvg.web.server import check_host

    password = given.password or os.environ.get(PASSWORD, "")
    check_host(given.host, password)
    set_up_jax()
    from jax_atvg.inference.bundle import load_bundle
    from jax_atvg.inference.networks import Networks
    from jax_atvg.web.server import serve
    from jax_atvg.web.studio import Limits, Studio

    tell_compilations()
    networks = Networks(load_bundle(given.bundle), precision=given.precision)
    say_what_networks_run(networks)
    with tempfile.TemporaryDirectory(prefix="jax_atvg") as folder:
        studio = Studio(
            networks,
            folder,
            Limits(given.megabytes, given.seconds, given.waiting),
            given.label,
        )
        say("compiling the networks")
        studio.warm_up()
        serve(studio, given.host, given.port, password)
    return 0
