"""The page /live in a real browser, whose microphone beeps."""

import json

import pytest

from input_pipeline.media.image import read_image
from jax_atvg.web.studio import Limits

pytest.importorskip("gradio", reason="requirements/web.txt")

from jax_atvg.web import live

LIMITS = Limits(megabytes=2, seconds=60, waiting=2)
# Keeps the microphones, and lets a test say when the visitor allows them.
ASKED = """
window.streams = [];
window.allowed = [];
const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);
media.getUserMedia = async wishes => {
  if (window.late) { await new Promise(allow => window.allowed.push(allow)); }
  window.streams.push(await real(wishes));
  return window.streams.at(-1);
};
"""
OPEN = """window.streams.map(stream => stream.getTracks()[0].readyState)"""
FRAMES = "/^frame \\d+; the face is -?\\d+ ms behind/"
SPOKEN = f"{FRAMES}.test(document.querySelector('#state').textContent)"
STARTED = {"ready": True, "width": 32, "height": 32}


@pytest.fixture
def visit(open_page, brought):
    """Opens /live and gives a photo.  late: the microphone is allowed when the test
    calls what is in window.allowed."""

    def visit(photo=None, late=False):
        script = f"{ASKED} window.late = {json.dumps(late)};"
        page = open_page("/live", "#go", script=script)
        page.set_input_files("#photo", photo or str(brought / "face.png"))
        return page

    return visit


def text(page, which):
    return page.text_content(which)


def ended(page, error):
    """Whether the talk has ended with this error, and nothing of it goes on."""
    page.wait_for_function("document.querySelector('#error').textContent !== ''")
    assert error in text(page, "#error")
    assert text(page, "#go") == "Start" and text(page, "#state") == ""
    assert page.is_enabled("#wishes")
    assert set(page.evaluate(OPEN)) <= {"ended"}
    return True


def test_the_face_speaks_with_the_visitor(visit, brought):
    """Frames come, and the page says how late they are."""
    page, sent = visit(), []
    page.on("websocket", lambda one: one.on("framesent", lambda x: sent.append(x)))
    assert page.is_disabled("#head")
    page.check("#whole")
    page.check("#head")
    page.uncheck("#blinks")
    page.fill("#expressiveness", "1.5")
    assert text(page, "#amount") == "1.5"
    page.click("#go")
    assert page.is_disabled("#blinks")  # what is asked for holds from the start on
    page.wait_for_function(SPOKEN)
    assert json.loads(sent[0]) == {
        "rate": 16000,
        "full_frame": True,
        "head_movement": True,
        "blinks": False,
        "expressiveness": 1.5,
    }
    drawn = "document.querySelector('#face').toDataURL()"
    whole = read_image(brought / "face.png").shape[1]
    assert page.evaluate("document.querySelector('#face').width") == whole
    before = page.evaluate(drawn)
    page.wait_for_function(f"{drawn} !== {before!r}")
    page.click("#go")
    assert text(page, "#go") == "Start" and text(page, "#error") == ""
    assert page.evaluate(OPEN) == ["ended"]


def test_a_photo_is_needed_and_is_not_too_large(open_page):
    page = open_page("/live", "#go")
    page.click("#go")
    assert text(page, "#error") == "there is no photo; choose one"
    large = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": bytes(2 * 10**6 + 1)}
    page.set_input_files("#photo", large)
    page.click("#go")
    assert text(page, "#error") == "the photo is larger than 2 MB; choose a smaller one"
    assert text(page, "#go") == "Start"


def test_the_server_waits_for_nobody_who_has_not_allowed_the_microphone(
    visit, monkeypatch
):
    monkeypatch.setattr(live, "PATIENCE", 2.0)
    page, sockets = visit(late=True), []
    page.on("websocket", lambda one: sockets.append(one))
    page.click("#go")
    page.wait_for_timeout(2500)
    assert text(page, "#state") == "allow the microphone" and not sockets
    page.evaluate("window.allowed[0]()")
    page.wait_for_function(SPOKEN)
    assert len(sockets) == 1


def test_a_microphone_that_is_allowed_after_the_end_is_closed(visit):
    page, sockets = visit(late=True), []
    page.on("websocket", lambda one: sockets.append(one))
    for _ in range(3):  # Start, Stop, Start
        page.click("#go")
        page.wait_for_timeout(300)
    page.evaluate("window.allowed.forEach(allow => allow())")
    page.wait_for_function(SPOKEN)
    assert page.evaluate(OPEN) == ["ended", "live"]
    assert len(sockets) == 1


def test_the_end_of_a_talk_does_not_end_the_next(visit):
    page = visit()
    page.click("#go")
    page.wait_for_function(SPOKEN)
    page.evaluate("go.click(); go.click()")  # its socket is closed during the next
    page.wait_for_function(SPOKEN)
    assert text(page, "#go") == "Stop" and text(page, "#error") == ""
    assert page.evaluate(OPEN) == ["ended", "live"]


def test_an_error_closes_the_microphone(visit, brought):
    page = visit(str(brought / "speech.wav"))
    page.click("#go")
    assert ended(page, "the photo: not a readable picture")


# Firefox makes no source of another rate than the microphone's.
SOURCE = """() => {
  const real = AudioContext.prototype.createMediaStreamSource;
  AudioContext.prototype.createMediaStreamSource = function (stream) {
    if (!RATES.includes(this.sampleRate)) { throw new Error("another rate"); }
    return real.call(this, stream);
  };
}"""


def test_a_browser_that_does_not_change_the_rate_leaves_it_to_the_server(visit):
    page, sent = visit(), []
    page.on("websocket", lambda one: one.on("framesent", lambda x: sent.append(x)))
    rate = page.evaluate("new AudioContext().sampleRate")
    page.evaluate(SOURCE.replace("RATES", f"[{rate}]"))
    page.click("#go")
    page.wait_for_function(SPOKEN)
    assert json.loads(sent[0])["rate"] == rate != 16000


def test_a_browser_that_cannot_hear_the_microphone_says_so(visit):
    page = visit()
    page.evaluate(SOURCE.replace("RATES", "[]"))
    page.click("#go")
    assert ended(page, "the microphone cannot be used (another rate)")
    page.evaluate(
        "Object.defineProperty(navigator, 'mediaDevices', {value: undefined})"
    )
    page.click("#go")
    assert ended(page, "browsers give it only to pages over https or of this machine")


@pytest.mark.parametrize("ready", [False, True])
def test_a_connection_that_is_lost_is_told(visit, ready):
    page, sockets = visit(), []
    page.route_web_socket("**/api/live*", lambda one: sockets.append(one))
    page.click("#go")
    page.wait_for_function("window.streams.length")
    while not sockets:
        page.wait_for_timeout(50)
    if ready:
        sockets[0].send(json.dumps(STARTED))
        page.wait_for_function(
            "document.querySelector('#state').textContent === 'speak'"
        )
    sockets[0].close(code=1011)
    assert ended(page, "the connection to the server is lost (code 1011); start again")


def test_a_page_that_the_server_has_forgotten_is_to_be_loaded_again(
    visit, address, monkeypatch
):
    page = visit()
    monkeypatch.setattr(live, "MOST_TOKENS", 1)
    page.request.get(f"{address}/live")
    page.click("#go")
    assert ended(page, "the server no longer knows this page; load this page again")
