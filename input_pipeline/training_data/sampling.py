"""Makes examples out of clips, and draws the order of the clips; pure functions.

Nothing random is stored: (clip, seed, epoch, place) gives the same training example on
any machine, whatever was asked for before.  For the letters in shapes see clip.py; here
there is no batch axis B.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from input_pipeline.clip import (
    CONTEXT_FRAMES,
    CROP_SIZE,
    ROWS_PER_FRAME,
    WINDOW_ROWS,
    AtBatch,
    Clip,
    EvaluationBatch,
    InputError,
    Pca,
    VgBatch,
)
from input_pipeline.faces.rest import photo_coefficients
from input_pipeline.training_data import augment as augmenting
from input_pipeline.training_data import augment_sound

Key = tuple[int, int, int]  # seed, epoch, place in the epoch's order


def random_numbers(seed: int, *key: int) -> np.random.Generator:
    """A generator of the random numbers that belong to this seed and key alone.

    The key is the spawn_key, not part of the entropy, because SeedSequence takes the
    entropies (1, 2) and (1, 2, 0) for the same.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.Philox(sequence))


# --- the order of the clips ---


def shuffled(num_clips: int, seed: int, epoch: int) -> Int[np.ndarray, "N"]:
    """A random order of the clips, another one in each epoch."""
    return random_numbers(seed, epoch).permutation(num_clips)


def groups_of(
    corpora: Sequence[str],
    speakers: Sequence[str],
    exponent: float | None,
    mix: Mapping[str, float],
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "G"]]:
    """Divides N clips into groups that are drawn in fixed shares: (the group of each
    clip, the share of each group).

    corpora, speakers: of each clip.  A speaker with n clips has a share of the corpus
    in proportion to n^exponent; 0: every speaker alike.  exponent None: the corpus is
    one group, in which clips are alike.  mix: {corpus: its share, in any unit}; empty:
    corpora have no shares of their own, all speakers are as if of one corpus.
    """
    whose = [
        f"{c}/{s}" if exponent is not None else c
        for c, s in zip(corpora, speakers, strict=True)
    ]
    names, group_of, counts = np.unique(
        np.array(whose), return_inverse=True, return_counts=True
    )
    shares = counts ** (1.0 if exponent is None else exponent)
    if mix:
        # A speaker's name may hold slashes, a corpus's does not.
        corpus_of = np.array([name.split("/")[0] for name in names])
        total = sum(mix.values())
        for corpus, share in mix.items():
            mine = corpus_of == corpus
            shares[mine] *= share / total / max(shares[mine].sum(), 1e-12)
    return group_of, shares / shares.sum()


def in_shares(
    group_of: Int[np.ndarray, "N"],
    shares: Float[np.ndarray, "G"],
    seed: int,
    epoch: int,
) -> Int[np.ndarray, "N"]:
    """A random order of N clips in which groups have these shares, evenly spread.

    Within an epoch, the clips of a group that has few are repeated; of one that has
    many, a random part is used.
    """
    random = random_numbers(seed, epoch)
    clips, times = [], []
    for group, share in enumerate(shares):
        quota = int(np.ceil(len(group_of) * share))
        own = random.permutation(np.flatnonzero(group_of == group))
        clips.append(np.resize(own, quota))
        times.append((np.arange(quota) + random.random(quota)) / share)
    soonest = np.argsort(np.concatenate(times))
    return np.concatenate(clips)[soonest][: len(group_of)]


# --- one example ---


def draw(
    length: int,
    key: Key,
    num_frames: int,
    change: augmenting.Augmentation | None = None,
) -> tuple[int, int]:
    """Draws (reference frame, first frame of the window), both uniform over the clip;
    the reference is frame 0 if `change` has first_photo.

    The authors' AT reference is one of LRW's frames 3..7 and the window follows it
    (docs/reference.md, section 2); here, as in their VG data, it may lie anywhere.
    """
    random = random_numbers(*key)
    reference = int(random.integers(length))
    first = int(random.integers(length - num_frames + 1))
    return (0 if change and change.first_photo else reference), first


def augmentation(key: Key, strength: augmenting.Strength) -> augmenting.Augmentation:
    """Draws a change, from random numbers that do not affect the windows of `draw`."""
    return augmenting.draw(random_numbers(*key, 1), strength)


def at_example(
    clip: Clip,
    pca: Pca,
    key: Key,
    num_frames: int,
    augment: augmenting.Strength | None = None,
    from_rest: bool = False,
) -> AtBatch:
    """An example for AT-net; decodes no frame.

    example f32[K], audio f32[T,28,12], coefficients f32[T,K].
    augment: how strongly face and sound change, see augment.py.  from_rest: see
    rest.photo_coefficients.
    InputError: the clip is shorter than the window, or damaged.
    """
    check(clip, num_frames)
    change = augmentation(key, augment) if augment else None
    if change:
        landmarks, mfcc = augment_sound.change_tempo(
            *augment_sound.usable_tempo(change.tempo, len(clip.frames), num_frames),
            clip.landmarks,
            augment_sound.change_sound(change, clip.mfcc),
        )
        clip = clip._replace(landmarks=landmarks, mfcc=mfcc)
    reference, first = draw(len(clip.landmarks), key, num_frames, change)
    points = clip.landmarks[[reference, *range(first, first + num_frames)]]
    if change:  # of these frames alone: a field takes long to invert
        points = augmenting.change_landmarks(change, points)
    landmarks = points.reshape(len(points), -1)
    return AtBatch(
        example=photo_coefficients(pca, landmarks[0], from_rest),
        audio=audio_windows(clip)[first : first + num_frames],
        coefficients=pca.project(landmarks[1:]),
    )


def vg_example(
    clip: Clip,
    key: Key,
    num_frames: int,
    augment: augmenting.Strength | None = None,
) -> VgBatch:
    """An example for VG-net; decodes only the reference frame and the window's.

    image u8[H,W,3], example f32[L], frames u8[T,H,W,3], landmarks f32[T,L].
    augment: how strongly photo, frames and landmarks change alike, see augment.py; the
    light is changed by the training step.
    InputError: the clip is shorter than the window, or damaged.
    """
    check(clip, num_frames)
    change = augmentation(key, augment) if augment else None
    reference, first = draw(len(clip.frames), key, num_frames, change)
    which = [reference, *range(first, first + num_frames)]
    pictures, points = decode(clip, which), clip.landmarks[which]
    if change:
        pictures = augmenting.change_frames(change, pictures)
        points = augmenting.change_landmarks(change, points)
    landmarks = points.reshape(len(which), -1)
    return VgBatch(
        image=pictures[0],
        example=landmarks[0],
        frames=pictures[1:],
        landmarks=landmarks[1:],
        colour=change.colour if change else None,
    )


def evaluation_example(
    clip: Clip,
    index: int,
    pca: Pca | None,
    with_frames: bool,
    num_frames: int,
    from_rest: bool = False,
) -> EvaluationBatch:
    """A whole clip, padded with zeros to num_frames; the photo is its first frame.

    `at` is None without a PCA, `vg` is None without frames.  from_rest: see
    rest.photo_coefficients.
    InputError: the clip is longer than num_frames, or damaged.
    """
    check(clip, 1)
    length = len(clip.frames)
    if length > num_frames:
        raise InputError(
            f"{name_of(clip)}: {length} frames, and room for {num_frames}; "
            "pad to the longest clip"
        )
    landmarks = flat_landmarks(clip)

    def pad(x: np.ndarray) -> np.ndarray:
        filling = np.zeros((num_frames - length, *x.shape[1:]), x.dtype)
        return np.concatenate([x, filling])

    at = vg = None
    if pca is not None:
        coefficients = pca.project(landmarks)
        example = photo_coefficients(pca, landmarks, from_rest)[0]
        at = AtBatch(example, pad(audio_windows(clip)), pad(coefficients))
    if with_frames:
        frames = decode(clip, range(length))
        vg = VgBatch(frames[0], landmarks[0], pad(frames), pad(landmarks))
    return EvaluationBatch(
        index=np.int32(index),
        valid=np.float32(1),
        frame_valid=pad(np.ones(length, np.float32)),
        at=at,
        vg=vg,
    )


# --- a clip's parts ---


def read(clips, index: int):
    """clips[index].  InputError: the record cannot be read."""
    try:
        return clips[index]
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{clips.clip_ids[index]}: clip {index} of the split cannot be read "
            f"({error}); prepare it again"
        ) from error


def name_of(clip: Clip) -> str:
    return f"{clip.corpus} {clip.clip_id}"


def check(clip: Clip, num_frames: int) -> None:
    """Checks a clip.  InputError: it is too short, or its parts differ in length."""
    length = len(clip.frames)
    if length < num_frames:
        raise InputError(
            f"{name_of(clip)}: {length} frames, num_frames={num_frames} needs more; "
            "leave the clip out or take a shorter window"
        )
    rows = (length + 2 * CONTEXT_FRAMES) * ROWS_PER_FRAME
    if len(clip.landmarks) != length or len(clip.mfcc) != rows:
        raise InputError(
            f"{name_of(clip)}: {length} frames, {len(clip.landmarks)} landmarks and "
            f"{len(clip.mfcc)} MFCC rows, must be {length}, {length} and {rows}; "
            "prepare it again"
        )


def flat_landmarks(clip: Clip) -> Float32[np.ndarray, "T 136"]:
    return clip.landmarks.reshape(len(clip.landmarks), -1)


def audio_windows(clip: Clip) -> Float32[np.ndarray, "T 28 12"]:
    """For frame t, MFCC rows 4t .. 4t+27, columns 1..12; a read-only view."""
    view = np.lib.stride_tricks.sliding_window_view(clip.mfcc, WINDOW_ROWS, axis=0)
    return view[::ROWS_PER_FRAME, 1:].swapaxes(1, 2)


def decode(clip: Clip, which: Sequence[int]) -> UInt8[np.ndarray, "n 128 128 3"]:
    """Decodes these frames to RGB.  InputError: one is not a whole 128x128 JPEG."""
    import cv2

    pictures = np.empty((len(which), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for picture, t in zip(pictures, which, strict=True):
        data, decoded = np.frombuffer(clip.frames[t], np.uint8), None
        if data.size:  # for no data OpenCV raises, for a broken JPEG it returns None
            decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        if decoded is None or decoded.shape != picture.shape:
            raise InputError(
                f"{name_of(clip)}: frame {t} is no whole JPEG of {CROP_SIZE}x"
                f"{CROP_SIZE} pixels; prepare the clip again"
            )
        picture[:] = decoded
    return pictures


def blank(example: EvaluationBatch) -> EvaluationBatch:
    """An example of zeros, of the same shapes, for a row that only fills the batch."""

    def zeros(part):
        return part and part._make(None if x is None else 0 * x for x in part)

    return EvaluationBatch(
        index=np.int32(-1),
        valid=np.float32(0),
        frame_valid=0 * example.frame_valid,
        at=zeros(example.at),
        vg=zeros(example.vg),
    )
