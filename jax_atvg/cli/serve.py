"""A page on this machine: a photo, a sound, a button, and the video.

    python main.py serve --port=7860

Then open the address that is printed.  What visitors give and get is kept in a folder
of its own, which is deleted at the end, and each file after some minutes.  Programs
send the same to /api/animate, which /api describes.  pip install -r
requirements/web.txt
"""

import gc
import os
import signal
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
    add.number("port", "0: any that is free.", 7860, least=0, most=65535)
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
    end_in_order()
    with tempfile.TemporaryDirectory(
        prefix="jax_atvg", ignore_cleanup_errors=True
    ) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio reads it when it is imported
        return serve(given, folder)


def end_in_order() -> None:
    """From now on SIGTERM, and SIGHUP of a terminal that is closed, do what Ctrl-C
    does: temporary files are deleted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def serve(given: Given, folder: str) -> int:
    from jax_atvg.cli.machine import set_up_jax

    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"serve: {error.name} is not installed; pip install -r requirements/web.txt"
        ) from error
    from jax_atvg.web import server

    password = given.password or os.environ.get(PASSWORD, "")
    server.check_host(given.host, password)
    with server.listen(given.host, given.port) as sock:
        set_up_jax()
        from jax_atvg.inference.bundle import load_bundle
        from jax_atvg.inference.networks import Networks
        from jax_atvg.web.studio import Limits, Studio

        tell_compilations()
        networks = Networks(load_bundle(given.bundle), precision=given.precision)
        say_what_networks_run(networks)
        limits = Limits(given.megabytes, given.seconds, given.waiting)
        studio = Studio(networks, folder, limits, given.label)
        say("compiling the networks")
        studio.warm_up()
        # What is loaded stays until the end.  Python would look through it now and then
        # for what is no longer used, and a live talk would stand still for 0.2 s.
        gc.freeze()
        server.serve(studio, sock, password)
    return 0
