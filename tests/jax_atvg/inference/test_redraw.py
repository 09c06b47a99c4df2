"""VG-net with a photo of every frame, and lips that go back into frames."""

import jax
import numpy as np
import pytest

from input_pipeline.clip import InputError
from input_pipeline.faces import align, mouth
from input_pipeline.faces.rest import closed
from input_pipeline.media.image import to_float, to_u8
from jax_atvg.inference.networks import ToDraw
from jax_atvg.inference.redraw import (
    BATCH,
    Redrawer,
    Scene,
    Shot,
    adjoin,
    grouped,
    scene_of,
    steadied,
)
from tests.input_pipeline import face_videos

COUNT = BATCH + 3


# --- the network ---


def photos(size: int, seed: int = 0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (COUNT, size, size, 3), np.uint8)
    marks = random.uniform(-0.7, 0.7, (2, COUNT, 136)).astype(np.float32)
    return images, *marks


def whole(networks, images, examples, marks):
    """All frames in one call of the module."""
    drawn = jax.jit(networks.bundle.vg_net.apply)(
        networks.weights.vg_net,
        to_float(images)[None],
        marks[None],
        examples[None],
    )
    return np.asarray(to_u8(drawn.frames))[0]


def batches(images, examples, marks, fresh=(0,)):
    frames = [ToDraw(*one) for one in zip(images, examples, marks, strict=True)]
    for begin, end in zip(fresh, [*fresh[1:], COUNT], strict=True):
        for a in range(begin, end, BATCH):
            yield a == begin, frames[a : min(a + BATCH, end)]


def close(a, b):
    """Equal to rounding."""
    assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_one_photo_for_all_frames_is_a_photo_for_each(alone):
    images, examples, marks = photos(32)
    images, examples = images[[0] * COUNT], examples[[0] * COUNT]
    frames, _ = alone.draw(to_float(images[:1]), examples[:1], marks[None])
    close(whole(alone, images, examples, marks), frames[0])


def test_frames_in_batches_are_those_of_one_call(alone):
    inputs = photos(32)
    got = np.concatenate(list(alone.redraw(batches(*inputs), BATCH)))
    close(got, whole(alone, *inputs))


def test_a_batch_that_is_not_full_hands_no_state_on(alone):
    """It would be that after frames that only fill the batch."""
    frames = [ToDraw(*one) for one in zip(*photos(32), strict=True)]
    for fresh in (False, True):
        pair = [(True, frames[:3]), (fresh, frames[3:6])]
        *_, after = alone.redraw(pair, BATCH)
        (begun,) = alone.redraw([(True, frames[3:6])], BATCH)
        np.testing.assert_array_equal(after, begun)


def test_a_fresh_batch_remembers_nothing(alone):
    inputs = photos(32)
    cut = 2
    got = np.concatenate(list(alone.redraw(batches(*inputs, fresh=(0, cut)), BATCH)))
    close(got[:cut], whole(alone, *(x[:cut] for x in inputs)))
    close(got[cut:], whole(alone, *(x[cut:] for x in inputs)))


def test_one_program_serves_all_batches(alone):
    from jax_atvg.inference.networks import compiled_redraw

    list(alone.redraw(batches(*photos(32)), BATCH))
    step = compiled_redraw(alone.bundle.vg_net, alone.mesh, alone.precision)
    assert step._cache_size() == 1


def test_several_rows_cannot_draw_one_video(three):
    with pytest.raises(InputError, match=r"batch_size=3: .* make Networks"):
        list(three.redraw(batches(*photos(32)), BATCH))


# --- scenes and shots ---


def scene(first=0, last=COUNT, **fields):
    points = np.repeat(face_videos.shape()[None], last - first, 0)
    return scene_of(first, last, points)._replace(**fields)


def test_points_are_steadied_without_being_moved():
    random = np.random.default_rng(0)
    still = random.uniform(0, 128, (68, 2))
    points = still + random.normal(size=(400, 68, 2))
    steady = steadied(points)
    assert np.abs(steady.mean(0) - points.mean(0)).max() < 0.05
    assert np.diff(steady, 2, axis=0).std() < np.diff(points, 2, axis=0).std() / 4
    line = np.arange(40.0)[:, None, None] * np.ones((1, 68, 2))
    np.testing.assert_allclose(steadied(line)[5:-5], line[5:-5])


def test_groups_are_short_and_do_not_cross_scenes():
    first, second = scene(0, 20), scene(20, 30)
    at = [*range(20), *range(20, 30), *range(28, 25, -1)]
    shots = [Shot(i, t, None, first if t < 20 else second) for i, t in enumerate(at)]
    shots[4:7] = [shot._replace(scene=None) for shot in shots[4:7]]
    groups = list(grouped(shots))
    assert [shot for group in groups for shot in group] == shots
    assert max(map(len, groups)) <= BATCH
    for group in groups:
        assert len({id(shot.scene) for shot in group}) == 1
    assert [len(group) for group in groups] == [4, 3, 8, 5, 8, 5]
    assert not adjoin(shots[3], shots[7]._replace(scene=first))


# --- lips ---


@pytest.fixture(scope="module")
def film():
    """Frames of the astronaut, whose head moves to the right."""
    frames = [face_videos.picture(60 + 2 * t) for t in range(COUNT)]
    shift = np.array([60 - 120.0, 30.0])
    points = [face_videos.shape() + shift + (2 * t, 0) for t in range(COUNT)]
    return frames, scene_of(0, COUNT, np.array(points))


def redrawn(networks, film, moves, **fields):
    frames, one = film
    shots = [Shot(t, t, frame, one) for t, frame in enumerate(frames)]
    shots = [shot._replace(**fields) for shot in shots]
    redrawer = Redrawer(networks, closed(one.points.mean(0)), moves)
    return redrawer, list(redrawer(shots))


def test_only_the_lower_face_changes(alone, film):
    moves = np.zeros((COUNT, 68, 2))
    moves[:, 66, 1] = 0.2
    redrawer, made = redrawn(alone, film, moves)
    frames, one = film
    assert [shot.number for shot, _, _ in made] == list(range(COUNT))
    for (shot, picture, q), frame in zip(made, frames, strict=True):
        changed = np.argwhere((picture != frame).any(-1))[:, ::-1]
        assert len(changed)
        where = align.transform(
            align.invert(one.matrices[shot.t]), changed.astype(np.float64)
        )
        nose = one.points[shot.t][27:36, 1].max()
        assert where[:, 1].min() > nose - 10 and where[:, 1].max() < 128
        base = mouth.carried(redrawer.rest, one.points[shot.t])
        width = np.linalg.norm(base[54] - base[48])
        np.testing.assert_allclose((q - base)[66, 1], 0.2 * width, rtol=1e-6)


def test_frames_without_a_face_come_back_untouched_in_their_order(alone, film):
    frames, one = film
    seen = np.ones(COUNT, bool)
    seen[[0, 1, 6, 7, COUNT - 1]] = False
    shots = [Shot(t, t, f, one if seen[t] else None) for t, f in enumerate(frames)]
    redrawer = Redrawer(alone, closed(one.points.mean(0)), np.zeros((COUNT, 68, 2)))
    made = list(redrawer(shots))
    assert [shot.t for shot, _, _ in made] == list(range(COUNT))
    for t, (_, picture, q) in enumerate(made):
        assert (picture is frames[t]) == (q is None) == (not seen[t])
    untouched = [shot._replace(scene=None) for shot in shots]
    for t, (_, picture, _) in enumerate(redrawer(untouched)):
        assert picture is frames[t]
    assert list(redrawer([])) == []


def test_a_share_is_how_much_is_new(alone, film):
    moves = np.zeros((COUNT, 68, 2))
    _, all_new = redrawn(alone, film, moves)
    _, half = redrawn(alone, film, moves, share=0.5)
    _, none = redrawn(alone, film, moves, share=1e-9)
    frames, _ = film
    for t in (0, BATCH, COUNT - 1):
        np.testing.assert_array_equal(none[t][1], frames[t])
        full, part = (x[t][1].astype(int) - frames[t] for x in (all_new, half))
        assert 0 < np.abs(part).sum() < np.abs(full).sum()


@pytest.mark.parametrize("seen", [True, False])
def test_no_more_than_three_batches_of_frames_are_held(alone, film, seen):
    """Memory does not grow with the video, whether or not the face is seen."""
    frames, one = film
    asked = []

    def shots():
        for t in range(10 * BATCH):
            asked.append(t)
            scene = one if seen or t < BATCH else None
            yield Shot(t, t % COUNT, frames[t % COUNT], scene)

    redrawer = Redrawer(alone, closed(one.points.mean(0)), np.zeros((100, 68, 2)))
    ahead = [len(asked) - number for number, _ in enumerate(redrawer(shots()))]
    assert len(ahead) == 10 * BATCH and max(ahead) <= 3 * BATCH + 1


def test_a_scene_is_aligned_like_training_data(film):
    _, one = film
    assert isinstance(one, Scene)
    in_video = align.transform(one.matrices, one.points)
    stable = list(align.DEFAULT_TEMPLATE.indices)
    error = one.points[:, stable] - align.DEFAULT_TEMPLATE.points
    assert np.abs(error.mean((0, 1))).max() < 0.5
    assert np.abs(np.diff(in_video[:, 30, 0])[3:-3] - 2).max() < 0.2
