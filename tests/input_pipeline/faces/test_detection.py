"""Faces against the reference; the followed face against detection on every frame."""

import functools
import importlib.util

import cv2
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces import detection
from input_pipeline.faces.detection import Box

PHOTOS = ["Elektra", "Maya", "obama", "test1", "test14", "test5"]


def photo(reference, name):
    return reference(f"preprocess_image_{name}.npz")["image_bgr"][..., ::-1]


@pytest.mark.parametrize("name", PHOTOS)
def test_gray_box_and_points_equal_the_authors(reference, name):
    stored = reference(f"preprocess_image_{name}.npz")
    image = stored["image_bgr"][..., ::-1]  # a strided view, on purpose
    np.testing.assert_array_equal(detection.to_gray(image), stored["gray"])
    boxes = detection.detect(image)
    np.testing.assert_array_equal(boxes, stored["rects1"])
    np.testing.assert_array_equal(
        detection.find_points(image, boxes[0]), stored["shape1"]
    )
    np.testing.assert_array_equal(detection.photo_points(image), stored["shape1"])


def test_a_large_picture_gives_the_points_of_the_small_one_scaled(reference):
    image = photo(reference, "obama")
    large = cv2.resize(image, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    expected = (detection.photo_points(image) + 0.5) * 5 - 0.5
    error = np.linalg.norm(detection.photo_points(large) - expected, axis=1)
    assert error.mean() < 5 * 1.5  # 1.5 pixels of the small one


def test_a_small_face_in_a_large_picture_is_found_at_full_size(reference):
    face = cv2.resize(photo(reference, "obama"), None, fx=0.7, fy=0.7)
    image = np.full((2400, 5200, 3), 90, np.uint8)  # shrunk to 1024: a face of 25 px
    image[1000 : 1000 + face.shape[0], 3000 : 3000 + face.shape[1]] = face
    (box,) = detection.detect(image)
    x, y = box.centre
    assert 3000 < x < 3000 + face.shape[1]
    assert 1000 < y < 1000 + face.shape[0]


def test_no_face_and_upside_down_are_input_errors(reference):
    blank = reference("preprocess_image_edge_cases.npz")["no_face/image_bgr"]
    with pytest.raises(InputError, match=r"me\.png: no face found in the 300x300"):
        detection.photo_points(blank, name="me.png")
    with pytest.raises(InputError, match="upright"):
        detection.photo_points(photo(reference, "obama")[::-1])


def test_faces_are_counted_left_to_right_and_the_largest_is_the_default():
    right, left = Box(50, 0, 89, 39), Box(0, 5, 19, 24)
    assert detection.choose_face([left, right]) == right
    assert detection.choose_face([right, left], "0") == left
    assert detection.choose_face([right, left], "1") == right


def test_choices_that_cannot_be_met_are_input_errors():
    box = Box(0, 0, 9, 9)
    for boxes, policy, message in [
        ([box, box], "2", "face=2 asked for, but 2 faces found"),
        ([box], "1", "but 1 face found"),
        ([box], "leftmost", "'largest' or an index"),
        ([box], "-1", "'largest' or an index"),
        ([], "0", "no face to choose from"),
    ]:
        with pytest.raises(InputError, match=message):
            detection.choose_face(boxes, policy)


def test_a_missing_model_is_an_input_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install face-recognition-models"):
        detection._predictor.__wrapped__()


# Following


@functools.cache
def grid_frames(path):
    import av

    with av.open(str(path)) as container:
        decoded = container.decode(video=0)
        return [np.ascontiguousarray(f.to_ndarray(format="rgb24")) for f in decoded]


@pytest.fixture(params=["s11/bbae2n.mpg", "s5/bbae9s.mpg", "s31/bgix8n.mpg"])
def grid_clip(request, shared):
    return grid_frames(shared("data", "grid", request.param))


def test_following_equals_detection_on_every_frame_within_a_pixel(grid_clip):
    followed = list(detection.track(grid_clip))
    assert len(followed) == len(grid_clip)
    errors = []
    for points, image in zip(followed[::8], grid_clip[::8], strict=True):
        detected = detection.find_points(
            image, detection.choose_face(detection.detect(image))
        )
        errors.append(np.linalg.norm(points - detected, axis=1).mean())
    assert np.mean(errors) < 1
    assert max(errors) < 2


def test_the_box_of_points_overlaps_the_detected_box(reference):
    for name in PHOTOS:
        stored = reference(f"preprocess_image_{name}.npz")
        box = detection.box_of(stored["shape1"].astype(np.float32))
        assert detection._overlap(box, Box(*map(int, stored["rects1"][0]))) > 0.65


def test_a_face_that_leaves_is_none_and_is_taken_up_again(shared):
    frames = grid_frames(shared("data", "grid", "s11", "bbae2n.mpg"))[:22]
    gone = range(7, 13)
    noise = np.random.default_rng(0).integers(0, 256, frames[0].shape, np.uint8)
    shown = [noise if t in gone else frame for t, frame in enumerate(frames)]
    seen = [points is not None for points in detection.track(shown)]
    assert seen == [t not in gone for t in range(len(frames))]


def test_no_face_at_the_start_is_none_until_one_comes(shared):
    frames = grid_frames(shared("data", "grid", "s11", "bbae2n.mpg"))[:4]
    blank = np.full_like(frames[0], 128)
    seen = [points is not None for points in detection.track([blank] * 3 + frames)]
    assert seen == [False] * 3 + [True] * 4


def test_a_moving_face_is_followed_and_the_other_one_left_alone(shared):
    """Two faces side by side; the left one moves right by 6 px a frame."""
    frames = grid_frames(shared("data", "grid", "s11", "bbae2n.mpg"))[:16]

    def two(t):
        picture = np.full((288, 800, 3), 128, np.uint8)
        picture[:, 440:] = frames[t]
        picture[:, 6 * t : 6 * t + 360] = frames[t]
        return picture

    shown = [two(t) for t in range(16)]
    left = np.array(list(detection.track(shown, "0")))
    travelled = (left[-1] - left[0]).mean(0)
    assert travelled[0] == pytest.approx(6 * 15, abs=6)
    assert abs(travelled[1]) < 6
    right = np.array(list(detection.track(shown, "1")))
    assert np.abs(right[-1] - right[0]).mean() < 6
    with pytest.raises(InputError, match="2 faces found"):
        list(detection.track(shown, "2"))


def test_a_cut_to_a_face_elsewhere_breaks_the_track(shared):
    frames = grid_frames(shared("data", "grid", "s11", "bbae2n.mpg"))[:10]
    left, right = np.full((2, 288, 1000, 3), 128, np.uint8)
    left[:, :360], right[:, 640:] = frames[0], frames[1]
    seen = [p is not None for p in detection.track([left] * 5 + [right] * 2)]
    assert seen == [True] * 5 + [False] * 2
