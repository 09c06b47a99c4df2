"""The page in a real browser."""

import shutil
import threading
import time

import pytest

from input_pipeline.media.image import read_image
from jax_atvg.web.studio import Limits, Studio

pytest.importorskip("gradio", reason="requirements/web.txt")
import uvicorn

from jax_atvg.web import server

sync_api = pytest.importorskip("playwright.sync_api", reason="requirements/dev.txt")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: Debian's package chromium"
)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
    # A microphone that hears beeps, and that nobody has to allow.
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="module")
def address(networks, tmp_path_factory):
    """A server in a thread of this process."""
    folder = tmp_path_factory.mktemp("visitors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        studio = Studio(networks, folder, Limits(seconds=2, waiting=2))
        studio.warm_up()
        config = uvicorn.Config(server.app(studio), port=0, log_level="warning")
        sock = config.bind_socket()
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([sock],))
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page, in a window of its own; nothing may be asked of elsewhere."""
    contexts, outside = [], []

    def open_page(path="/", wait_for="#animate", width=1200):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
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


def give(page, photo=None, sound=None):
    """Uploads files and waits until they are there."""
    if photo is not None:
        page.set_input_files("#photo input[type=file]", str(photo))
        page.wait_for_selector("#photo img")
    if sound is not None:
        page.set_input_files("#sound input[type=file]", str(sound))
        page.wait_for_selector("#sound audio", state="attached")


def video_of(page, which="#video"):
    """(seconds, width, height) of the video when it can be played."""
    page.wait_for_selector(f"{which} video")
    page.wait_for_function(
        f"document.querySelector('{which} video').readyState >= 1", timeout=PATIENCE
    )
    return page.evaluate(
        f"(v => [v.duration, v.videoWidth, v.videoHeight])"
        f"(document.querySelector('{which} video'))"
    )


def error_of(page):
    page.wait_for_selector(".toast-body.error")
    return page.inner_text(".toast-body.error")


def test_upload_animate_play(open_page, brought):
    page = open_page()
    give(page, brought / "face.png", brought / "speech.wav")
    page.check("#how input")
    page.click("#animate")
    assert video_of(page) == [pytest.approx(0.6, abs=0.1), 32, 32]
    assert video_of(page, "#panels") == [pytest.approx(0.6, abs=0.1), 128, 32]
    page.wait_for_function("document.querySelector('#video video').currentTime > 0")
    about = page.inner_text("#about")
    assert "photo: 512 x 512 pixels" in about and "made in" in about


def test_the_face_that_is_clicked_talks(open_page, brought):
    page = open_page()
    give(page, brought / "two.png", brought / "speech.wav")
    page.wait_for_selector("#faces img")
    assert page.locator("#faces button img").count() == 2
    page.locator("#faces button").nth(1).click()
    page.click("#animate")
    assert video_of(page)[1:] == [32, 32]


def test_errors_are_the_command_lines_one_line(open_page, brought):
    page = open_page()
    page.click("#animate")
    assert "there is no photo; upload one" in error_of(page)
    page = open_page()
    give(page, brought / "face.png", brought / "long.wav")
    page.click("#animate")
    assert "the sound is longer than 2 s; cut it" in error_of(page)


def test_two_tabs_at_once_are_both_served(open_page, brought):
    pages = [open_page() for _ in range(2)]
    for page, photo in zip(pages, ("face.png", "two.png"), strict=True):
        give(page, brought / photo, brought / "speech.wav")
    for page in pages:
        page.click("#animate")
    for page, size in zip(pages, ("512 x 512", "600 x 300"), strict=True):
        assert video_of(page)[1:] == [32, 32]
        assert f"photo: {size} pixels" in page.inner_text("#about")


def test_on_a_phone_nothing_is_wider_than_the_screen(open_page):
    page = open_page(width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#animate").bounding_box()["width"] > 250


def test_the_face_speaks_with_the_visitor(open_page, brought):
    """The fake microphone beeps; frames come, and the page says how late they are."""
    page = open_page("/live", "#go")
    page.click("#go")
    page.wait_for_function(
        "document.querySelector('#error').textContent.startsWith('there is no photo')"
    )
    page.set_input_files("#photo", str(brought / "face.png"))
    assert page.is_disabled("#head")
    page.check("#whole")
    page.check("#head")
    page.uncheck("#blinks")
    page.fill("#expressiveness", "1.5")
    assert page.text_content("#amount") == "1.5"
    page.click("#go")
    assert page.is_disabled("#blinks")  # what is asked for holds from the start on
    page.wait_for_function(
        "/^frame \\d+; the face is \\d+ ms behind/.test("
        "document.querySelector('#state').textContent)"
    )
    drawn = "document.querySelector('#face').toDataURL()"
    whole = read_image(brought / "face.png").shape[1]
    assert page.evaluate("document.querySelector('#face').width") == whole
    before = page.evaluate(drawn)
    page.wait_for_function(f"{drawn} !== {before!r}")
    page.click("#go")
    page.wait_for_function("document.querySelector('#go').textContent === 'Start'")
    assert page.evaluate("document.querySelector('#error').textContent") == ""
