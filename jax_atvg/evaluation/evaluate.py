"""Scores a bundle on the clips of a split, in several modes and against baselines.

    mode               what is scored                         what that shows
    at                 photo + sound -> landmarks             AT-net alone
    teacher            true landmarks -> frames               VG-net alone
    end_to_end         photo + sound -> frames                both networks
    ..._shuffled       the same with another clip's sound     what the photo alone gives
    at_static, static  the photo, repeated                    a face that does not move
    at_mean            the mean face, repeated                an unmoving average face
    real               points found again on the real frames  the detector's own error
    dub, dub_shuffled  the clip dubbed with its own sound,    `dub`, if asked for
                       and with another clip's

The photo is the clip's first frame, which is not scored.  Scores are computed on the
128x128 crop, clip by clip: padding does not enter them, and how clips are divided into
batches and devices matters by rounding at most.  The points of frames are dlib's, found
in one box for the whole clip, which the true landmarks give.  CPBD and identity are
those of every fifth frame.

While the networks make the frames of a clip, other processes score those before it.

Letters: B clips, T frames, S the networks' picture size; points are pixels of the crop.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh

from input_pipeline.clip import NUM_POINTS, InputError
from input_pipeline.faces import align, landmarks
from input_pipeline.progress import Progress
from input_pipeline.training_data import dataset, sampling
from jax_atvg.evaluation.metrics import find_protocol
from jax_atvg.evaluation.report import Results, check_out, write_report
from jax_atvg.evaluation.scores import SAMPLE_EVERY, Case
from jax_atvg.evaluation.scoring import score_all
from jax_atvg.evaluation.synthesis import Made, Synthesis, Take
from jax_atvg.inference.bundle import Bundle, load_bundle

SHORTEST = 8  # frames a clip must have: its photo, and enough to correlate
STRIP = 8  # frames shown side by side in a strip


def evaluate(
    bundle: Bundle | str | pathlib.Path,
    clips: Any,
    out: str | pathlib.Path,
    *,
    split: str = "validation",
    protocol: str = "true",
    speakers: Collection[str] = (),
    limit: int = 0,
    landmarks_only: bool = False,
    end_to_end_only: bool = False,
    dub: bool = False,
    title: str = "evaluation",
    batch_size: int = 0,
    workers: int = 0,
    mesh: Mesh | None = None,
    precision: str = "default",
    progress: bool = False,
) -> Results:
    """Scores a bundle and writes the report's folder `out`, complete or not at all.

    bundle: a Bundle or its folder.  clips: a dataset's folder, of which `split` is
    used, or what dataset.open_clips returns.  protocol: "true"; "atvg-compat" adds the
    authors' definitions of the metrics.  speakers: only their clips are scored (the
    shuffled sound may come from any clip of the split); () for all.  limit: how many
    clips, spread evenly; 0 for all.  landmarks_only: only the modes of AT-net, without
    frames: seconds instead of minutes.  end_to_end_only: of the modes of frames those
    of the clip's own sound alone: two fifths of the time.  dub: also the modes of
    dubbed clips.  batch_size: clips the networks process at once, raised to a multiple
    of the mesh's devices (this process's own unless given); 0 for one on a CPU and 16
    on each GPU or TPU, or as many as there are.  It changes landmarks by 0.002 pixels
    and frames by one grey level at most (checked on CPUs, with the highest matmul
    precision).  workers: processes that score frames beside this one, which changes no
    score; 0: this one does.  (A program that has workers must start under `if __name__
    == "__main__":`, as always with Python's processes.)  precision: see
    models/precision.py.
    InputError: no clips, a damaged clip, an unknown speaker or protocol, a negative
    limit or number of workers, an `out` that exists and is no report, or a worker that
    was killed.
    """
    if workers < 0:
        raise InputError(
            f"workers={workers}: must be 0 (this process) or more; raise it"
        )
    if isinstance(clips, (str, pathlib.Path)):
        clips = dataset.open_clips(clips, split)
    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle)
    find_protocol(protocol)
    chosen = choose(clips.speakers, speakers, limit)
    other = other_clips(clips.speakers, clips.clip_ids)
    check_out(out)
    synthesis = Synthesis(
        bundle, batch_size, mesh, precision, dub, end_to_end_only, len(chosen)
    )

    def cases() -> Iterator[tuple[dict[str, Any], Case]]:
        pairs = [(i, other[i]) for i in chosen]
        for (i, _), (take, made) in zip(
            pairs, make(synthesis, clips, pairs, landmarks_only), strict=True
        ):
            names = {"clip": clips.clip_ids[i], "speaker": clips.speakers[i]}
            names["frames"] = len(take.frames) - 1
            yield names, case_of(bundle, take, made, protocol)

    # The scores of points take less time than to start a process.
    count = 0 if landmarks_only else min(workers, len(chosen))
    rows = []
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(Progress(len(chosen), "clip", active=progress))
        scored = score_all(cases(), count, synthesis.device)
        for names, table in stack.enter_context(contextlib.closing(scored)):
            rows += [{**names, "mode": mode, **row} for mode, row in table.items()]
            bar.update()
    about = {"title": title, "protocol": protocol, "clips": len(chosen)}
    about |= {
        "batch_size": synthesis.batch_size,
        "precision": precision,
        **synthesis.pace(),
    }
    strips = []
    if not landmarks_only:
        about["cpbd and csim_dlib"] = f"of every {SAMPLE_EVERY}th frame"
        shown = best_median_worst(rows)
        again = make(synthesis, clips, [(chosen[place], None) for _, place in shown])
        for (name, _), (take, made) in zip(shown, again, strict=True):
            strips.append((name, strip(take, made)))
    results = Results(rows, about, strips)
    write_report(results, out)
    return results


def make(
    synthesis: Synthesis,
    clips: Any,
    pairs: list[tuple[int, int | None]],
    landmarks_only: bool = False,
) -> Iterator[tuple[Take, Made]]:
    """Reads clips and has the networks make them; pairs: see read_take."""
    for start in range(0, len(pairs), synthesis.batch_size):
        some = pairs[start : start + synthesis.batch_size]
        takes = [read_take(clips, *pair) for pair in some]
        yield from zip(takes, synthesis(takes, landmarks_only), strict=True)


# --- clips ---


def choose(speakers: list[str], wanted: Collection[str], limit: int) -> list[int]:
    """Indices of the wanted speakers' clips (of all, if none is named); `limit` of
    them, spread evenly, or all if it is 0.

    speakers: of every clip.  InputError: there are no clips, a speaker is not in the
    split, or the limit is negative.
    """
    if limit < 0:
        raise InputError(f"limit={limit}: must be 0 (all clips) or more; raise it")
    if not speakers:
        raise InputError("the split holds no clips; prepare some, or name another")
    if unknown := sorted(set(wanted) - set(speakers)):
        raise InputError(
            f"speakers={','.join(unknown)}: not in the split, which has "
            f"{','.join(sorted(set(speakers)))}; name some of them"
        )
    of_them = [i for i, name in enumerate(speakers) if not wanted or name in wanted]
    count = min(limit or len(of_them), len(of_them))
    return [of_them[i * len(of_them) // count] for i in range(count)]


def other_clips(speakers: list[str], clip_ids: list[str]) -> list[int | None]:
    """For each clip the index of another one, whose sound the shuffled modes use.

    A permutation without fixed points; the other clip is another speaker's wherever
    there are enough of them: the clips, sorted by speaker, are rotated by the largest
    number of clips that one speaker has.  A single clip has no other: None.

    Speakers and their clips are sorted by the hash of their names.  The order of a
    corpus often follows what is said (words in LRW, the first words in GRID), and the
    other clip would say about the same.
    """
    if len(speakers) < 2:
        return [None] * len(speakers)

    def place(i: int) -> tuple[str, str, int]:
        return hashed(speakers[i]), hashed(clip_ids[i]), i

    order = sorted(range(len(speakers)), key=place)
    turn = max(speakers.count(name) for name in set(speakers)) % len(speakers) or 1
    other = [0] * len(order)
    for i, lender in zip(order, order[turn:] + order[:turn], strict=True):
        other[i] = lender
    return other


def hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def read_take(clips: Any, index: int, other: int | None) -> Take:
    """Reads and decodes a clip, with the sound of clip `other`, fitted to its length.

    InputError: the clip is too short, damaged, or cannot be read.
    """
    clip = sampling.read(clips, index)
    sampling.check(clip, SHORTEST)
    length, sound = len(clip.frames), None
    if other is not None:
        sound = sampling.audio_windows(sampling.read(clips, other))
        sound = sound[np.minimum(np.arange(length), len(sound) - 1)]
    return Take(
        sampling.decode(clip, range(length)),
        landmarks.to_pixels(sampling.flat_landmarks(clip)),
        sampling.audio_windows(clip),
        sound,
    )


# --- one clip ---


def case_of(bundle: Bundle, take: Take, made: Made, protocol: str = "true") -> Case:
    """What is scored of a clip: everything but frame 0, the photo."""
    truth = take.points[1:]
    mean = bundle.pca.mean.reshape(NUM_POINTS, 2)
    still = {
        "at_static": take.points[0],
        "at_mean": align.transform(bundle.landmark_to_crop, mean),
    }
    points = {name: p[1:] for name, p in made.at.items()}
    points |= {name: np.broadcast_to(p, truth.shape) for name, p in still.items()}
    fakes = {name: frames[1:] for name, frames in made.frames.items()}
    return Case(take.frames[0], take.frames[1:], truth, points, fakes, protocol)


def best_median_worst(rows: list[dict]) -> list[tuple[str, int]]:
    """(title, position in the scored clips) of three clips, by end_to_end mouth LMD."""
    scores = [row["lmd"] for row in rows if row["mode"] == "end_to_end"]
    order = np.argsort(scores, kind="stable")
    names = [row["clip"] for row in rows if row["mode"] == "end_to_end"]
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    return [
        (f"{which}: {names[i]}, mouth LMD {scores[i]:.2f} px", int(i))
        for which, i in places.items()
    ]


def strip(take: Take, made: Made) -> np.ndarray:
    """A picture, u8[H,W,3], of STRIP frames spread evenly over the clip.

    Its rows are real, end_to_end, attention, and what there is of teacher and dub.
    """
    which = np.linspace(1, len(take.frames) - 1, STRIP).round().astype(int)
    attention = np.repeat(made.attention[..., None], 3, axis=-1)
    rows = [take.frames, made.frames["end_to_end"], attention]
    rows += [made.frames[name] for name in ("teacher", "dub") if name in made.frames]
    return np.concatenate([np.concatenate(x[which], axis=1) for x in rows])
