"""A small corpus, and the dataset made of it."""

import numpy as np
import pytest

from input_pipeline.preparation.prepare import prepare
from tests.input_pipeline import face_videos


@pytest.fixture(scope="session")
def lrw(shared, tmp_path_factory):
    """Eight clips in LRW's exact layout; one lacks its first half second, and another
    shows no face."""
    grid = sorted(shared("data", "grid", "s1").glob("*.mpg"))[:8]
    folder = face_videos.lrw(tmp_path_factory.mktemp("lrw"), grid)
    blank = [np.full((256, 256, 3), 128, np.uint8)] * 29
    nobody = folder / "ABOUT" / "train" / "ABOUT_00002.mp4"
    face_videos.write(nobody, blank, face_videos.hum(29 / 25))
    return folder


@pytest.fixture(scope="session")
def prepared(lrw, tmp_path_factory):
    """The dataset, prepared without interruption by one worker."""
    return prepare("lrw", lrw, tmp_path_factory.mktemp("one"), num_workers=1)
