"""The page in a real browser."""

import io

import pytest
from PIL import Image

from jax_atvg.web.studio import Limits, Wishes, can_speak

LIMITS = Limits(seconds=7, waiting=2)


def give(page, photo=None, sound=None):
    """Uploads files and waits until they are there."""
    if photo is not None:
        page.set_input_files("#photo input[type=file]", photo)
        page.wait_for_selector("#photo img")
    if sound is not None:
        page.set_input_files("#sound input[type=file]", sound)
        page.wait_for_selector("#sound audio", state="attached")


def video_of(page, which="#video"):
    """(seconds, width, height) of the video when it can be played."""
    page.wait_for_selector(f"{which} video")
    page.wait_for_function(f"document.querySelector('{which} video').readyState >= 1")
    return page.evaluate(
        f"(v => [v.duration, v.videoWidth, v.videoHeight])"
        f"(document.querySelector('{which} video'))"
    )


def error_of(page):
    page.wait_for_selector(".toast-body.error")
    return page.inner_text(".toast-body.error")


def downloaded(page, which="#video"):
    """The file that the link at a video gives."""
    with page.expect_download() as download:
        page.click(f"{which} a[download]")
    return download.value.path().read_bytes()


def test_upload_animate_play(open_page, brought):
    page = open_page()
    assert "The videos are synthetic" in page.inner_text("body")
    give(page, brought / "face.png", brought / "speech.wav")
    page.check("#how input")
    page.click("#animate")
    assert video_of(page) == [pytest.approx(0.6, abs=0.1), 32, 32]
    assert video_of(page, "#panels") == [pytest.approx(0.6, abs=0.1), 128, 32]
    page.wait_for_function("document.querySelector('#video video').currentTime > 0")
    about = page.inner_text("#about")
    assert "photo: 512 x 512 pixels" in about and "made in" in about


def test_the_face_that_is_clicked_talks(open_page, brought, studio):
    files = brought / "two.png", brought / "speech.wav"
    expected = studio.animate(*files, studio.new_folder(), Wishes("1"))
    page = open_page()
    give(page, *files)
    page.wait_for_selector("#faces img")
    assert page.locator("#faces button img").count() == 2
    page.locator("#faces button").nth(1).click()
    page.click("#animate")
    video_of(page)
    assert downloaded(page) == expected.video.read_bytes()


def test_examples_are_clicked_and_animated(open_page):
    page = open_page()
    page.click("#photos button")
    page.wait_for_selector("#photo img")
    page.click("#sounds button")
    page.wait_for_selector("#sound audio", state="attached")
    page.click("#animate")
    assert video_of(page) == [pytest.approx(6.25, abs=0.1), 32, 32]


@pytest.mark.skipif(not can_speak(), reason="espeak-ng is not installed")
def test_a_text_is_spoken(open_page, brought):
    page = open_page()
    give(page, brought / "face.png")
    page.fill("#text textarea", "Good day")
    page.click("#animate")
    assert video_of(page)[0] > 0.4


def test_errors_are_the_command_lines_one_line(open_page, brought):
    page = open_page()
    page.click("#animate")
    assert "there is no photo; upload one" in error_of(page)
    page = open_page()
    give(page, brought / "face.png", brought / "long.wav")
    page.click("#animate")
    assert "the sound is longer than 7 s; cut it" in error_of(page)


def test_a_photo_that_cannot_be_read_is_told_at_once(open_page, brought):
    """The faces of the one before are gone."""
    page = open_page()
    give(page, brought / "two.png")
    page.wait_for_selector("#faces img")
    page.click("#photo button[title='Remove Image']")
    page.wait_for_selector("#faces img", state="detached")
    broken = {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    give(page, broken)
    assert "the photo: not a readable picture; save it as JPEG" in error_of(page)
    assert not page.locator("#faces img").count()


def test_a_photo_that_browsers_do_not_show_is_shown(open_page, brought):
    file, page = io.BytesIO(), open_page()
    Image.open(brought / "two.png").save(file, "TIFF")
    give(page, {"name": "a.tif", "mimeType": "image/tiff", "buffer": file.getvalue()})
    page.wait_for_function("document.querySelector('#photo img').naturalWidth == 600")
    page.wait_for_selector("#faces img")
    assert page.locator("#faces button img").count() == 2


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
    for path, wait_for in (("/api", "table"), ("/", "#animate")):
        page = open_page(path, wait_for, width=360)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#animate").bounding_box()["width"] > 250
