"""Where a scene begins, by the place of the face."""

import numpy as np
import pytest

from input_pipeline.faces.scenes import Notes, scene_cuts, stretches
from tests.input_pipeline import face_videos

GAP = [None] * 2


@pytest.mark.parametrize(("way", "cuts"), [(60, []), (200, [5])])
def test_a_face_that_is_far_away_after_a_gap_begins_a_scene(way, cuts):
    """A jaw of 90 pixels may go 31 in a frame.  A gap is bridged where it is none."""
    here = face_videos.shape()
    points = [here] * 3 + GAP + [here + np.array([way, 0])] * 3
    notes = Notes(count_faces=False)
    notes.change = notes.over_two = [0.0] * len(points)
    assert scene_cuts(notes, points) == cuts
    parts = [(first, last) for first, last, _ in stretches(points, cuts, 5)]
    assert parts == ([(0, 3), (5, 8)] if cuts else [(0, 8)])
