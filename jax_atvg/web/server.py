"""The server: the page at /, the live one at /live, and for programs /api."""

import contextlib
import ipaddress
import logging
import socket
import threading
from collections.abc import AsyncIterator

import fastapi
import gradio as gr
import uvicorn
from fastapi.exceptions import RequestValidationError

from input_pipeline.clip import InputError
from jax_atvg.web import http_api, live, page
from jax_atvg.web.middleware import USER, Guard
from jax_atvg.web.studio import Studio

TIDY_EVERY = 60.0  # seconds
FINISH = 3  # seconds that answers may still take when the server is to end


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

        thread = threading.Thread(target=tidy, daemon=True)
        thread.start()
        yield
        ended.set()
        thread.join()

    whole = fastapi.FastAPI(
        title="jax_atvg",
        openapi_url="/api/openapi.json",
        docs_url=None,  # these pages would load their scripts from another server
        redoc_url=None,
        lifespan=lifespan,
    )
    megabytes = studio.limits.megabytes
    whole.add_middleware(Guard, password=password, megabytes=megabytes)
    whole.add_exception_handler(RequestValidationError, http_api.say_what_is_wrong)
    whole.include_router(http_api.routes(studio))
    whole.include_router(live.routes(studio))
    blocks = page.build(studio).queue(max_size=studio.limits.waiting + 1)
    studio.kept.update(studio.folder.iterdir())  # the examples
    whole = gr.mount_gradio_app(
        whole,
        blocks,
        path="/",
        auth=(USER, password) if password else None,
        max_file_size=megabytes * 10**6,
        show_error=False,
        theme=gr.themes.Default(**page.FONTS),
        css=page.CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
    )
    blocks.has_launched = True  # without this gradio does not check paths either
    return whole


class Server(uvicorn.Server):
    """Serves the application.  It ends though pages are open and videos are made."""

    def __init__(self, studio: Studio, password: str = ""):
        self.studio = studio
        config = uvicorn.Config(
            app(studio, password),
            log_level="warning",
            timeout_graceful_shutdown=FINISH,
            # A photo is one message to the live page, which tells what is too large.
            ws_max_size=(studio.limits.megabytes + 1) * 10**6,
            ws_ping_timeout=live.PHOTO_PATIENCE,  # it may be long on its way
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.studio.ended.set()
        # It is no error that answers are broken off now.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket where visitors wait from now on.  port: 0 for any that is free.
    InputError: the address cannot be served on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"--host={host} --port={port}: cannot be served on ({reason}); choose "
            "another --port or --host"
        ) from error


def serve(studio: Studio, sock: socket.socket, password: str = "") -> None:
    """Serves visitors of a socket until the process is asked to end, by Ctrl-C or
    SIGTERM."""
    server = Server(studio, password)
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"ready: http://{shown}:{port}  (Ctrl-C ends it)", flush=True)
    # uvicorn ends in order, and then sends itself the signal again.
    with contextlib.suppress(KeyboardInterrupt):
        server.run([sock])


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
