"""Videos whose frames say that they are synthetic."""

import av
import numpy as np
import pytest
import soundfile

from input_pipeline.media.image import write_image
from jax_atvg.inference import animate
from tests.small_bundle import photo, speech

RATE = 16000


def decode(path):
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


@pytest.mark.parametrize("full_frame", [False, True])
def test_the_label_covers_a_corner_and_nothing_else(alone, full_frame):
    sound = (speech(0.4, RATE), RATE)
    plain, labelled = (
        animate.animate(photo(), sound, alone, full_frame=full_frame, label=label)
        for label in (False, True)
    )
    changed = np.argwhere((plain != labelled).any((0, 3)))
    height, width = plain.shape[1:3]
    assert len(changed) and (plain[0] != labelled[0]).any()
    top, right = changed[:, 0].min(), changed[:, 1].max()
    assert top > height / 3 and changed[:, 0].max() == height - 1
    assert changed[:, 1].min() == 0 and (right < 0.7 * width or not full_frame)


def test_labelled_files(alone, tmp_path):
    write_image(tmp_path / "photo.png", photo())
    soundfile.write(tmp_path / "speech.wav", speech(0.4, RATE), RATE)
    for label in (False, True):
        animate.animate_file(
            tmp_path / "photo.png",
            tmp_path / "speech.wav",
            tmp_path / f"{label}.mp4",
            alone,
            label=label,
            panels=True,
        )
    for name in ("{}.mp4", "{}_panels.mp4"):
        plain, labelled = (decode(tmp_path / name.format(x)) for x in (False, True))
        assert plain.shape == labelled.shape and (plain != labelled).any()
