"""A studio with small networks, what visitors bring, and a browser with a server."""

import shutil
import threading
import time

import numpy as np
import pytest
import skimage.data
import soundfile
from PIL import Image

from jax_atvg.inference.networks import Networks
from jax_atvg.web.studio import Limits, Studio
from tests.small_bundle import small_bundle, speech

SECONDS = 0.6
LIMITS = Limits(megabytes=2, seconds=2, waiting=1)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
    # A microphone that hears beeps, and that nobody has to allow.
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="session")
def brought(tmp_path_factory):
    """A folder with face.png, two.png (two faces, the right one grey), speech.wav and
    long.wav."""
    folder = tmp_path_factory.mktemp("brought")
    face = skimage.data.astronaut()
    Image.fromarray(face).save(folder / "face.png")
    head = face[:300, 60:360]
    grey = np.repeat(head.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    Image.fromarray(np.concatenate([head, grey], 1)).save(folder / "two.png")
    soundfile.write(folder / "speech.wav", speech(SECONDS, 16000), 16000)
    soundfile.write(folder / "long.wav", speech(8.0, 16000), 16000)
    return folder


@pytest.fixture(scope="session")
def networks():
    return Networks(small_bundle())


@pytest.fixture
def studio(networks, tmp_path):
    return Studio(networks, tmp_path, LIMITS)


@pytest.fixture(scope="module")
def client(networks, tmp_path_factory):
    """Sends requests to a server without a password; gradio's files lie apart.
    client.studio: the server's."""
    pytest.importorskip("gradio", reason="requirements/web.txt")
    from starlette.testclient import TestClient

    from jax_atvg.web import server

    folder = tmp_path_factory.mktemp("visitors")
    studio = Studio(networks, folder, LIMITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        with TestClient(server.app(studio)) as client:
            client.studio = studio
            yield client


@pytest.fixture(scope="module")
def browser():
    reason = "requirements/dev.txt"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: Debian's package chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(browser, request, networks, tmp_path_factory):
    """A server with the module's LIMITS, in a thread of this process."""
    pytest.importorskip("gradio", reason="requirements/web.txt")
    from jax_atvg.web import server

    folder = tmp_path_factory.mktemp("visitors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        studio = Studio(networks, folder, request.module.LIMITS)
        studio.warm_up()
        sock = server.listen("127.0.0.1", 0)
        running = server.Server(studio)
        thread = threading.Thread(target=running.run, args=([sock],))
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        running.should_exit = True
        thread.join()


@pytest.fixture
def open_page(browser, address):
    """Opens the page, in a window of its own; nothing may be asked of elsewhere.
    script: is run before those of the page."""
    contexts, outside = [], []

    def open_page(path="/", wait_for="#animate", width=1200, script=""):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: outside.append(request.url))
        page.goto(address + path)
        page.wait_for_selector(wait_for)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [
        url for url in outside if not url.startswith((address, "data:", "blob:"))
    ]
