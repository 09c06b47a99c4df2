"""What is found in a photo and a recording, here and by another process."""

import pickle

import numpy as np
import pytest
import soundfile

from input_pipeline import workers
from input_pipeline.clip import InputError
from input_pipeline.media import audio
from input_pipeline.media.image import write_image
from jax_atvg.inference.perception import perceive
from tests.small_bundle import photo, photo_points, speech


@pytest.fixture
def files(tmp_path):
    write_image(tmp_path / "face.png", photo())
    soundfile.write(tmp_path / "speech.wav", speech(60), 16000)
    return tmp_path / "face.png", tmp_path / "speech.wav"


def test_another_process_finds_the_same(files):
    with workers.assistant() as begin:
        elsewhere, wrong = begin(perceive, *files), begin(perceive, *files, "7")
        here = perceive(*files)
        np.testing.assert_array_equal(here.points, photo_points())
        np.testing.assert_array_equal(here.points, elsewhere().points)
        np.testing.assert_array_equal(here.heard.windows, elsewhere().heard.windows)
        with pytest.raises(
            InputError, match=r"face\.png: face=7 asked for, but 1 face"
        ):
            wrong()


def test_an_hour_of_sound_is_20_mb_to_hand_over(files):
    heard = audio.hear_file(files[1])
    assert len(pickle.dumps(heard)) * 60 < 20e6
    assert heard.windows.shape == (60 * 25, 28, 12)
