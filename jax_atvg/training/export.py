"""Two finished runs become a bundle: what `python main.py export` calls.

The boost w, with which AT-net's coefficients are multiplied, is calibrated here: what a
network trained on squared errors predicts varies less than faces do.  Larger movements
cost accuracy, so `mouth_error` is to be read beside it.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32

from input_pipeline.clip import (
    CROP_SIZE,
    MOUTH,
    EvaluationBatch,
    InputError,
    Pca,
)
from input_pipeline.faces import align, authors
from input_pipeline.faces.landmarks import as_points, opening
from input_pipeline.training_data import dataset, loader, sampling, synthetic
from input_pipeline.training_data.fingerprint import (
    CLIPS,
    TEMPLATE,
    check_same,
    check_template,
    fingerprint,
)
from jax_atvg.inference.bundle import Bundle, SeenFaces, as_float32, check_out
from jax_atvg.inference.stablehlo import write_bundle
from jax_atvg.models.precision import traced
from jax_atvg.sharding import data_mesh
from jax_atvg.training.runs import Run, averaged, read_run
from jax_atvg.training.train import SYNTHETIC_FRAMES
from jax_atvg.training.train_step import make_nets
from jax_atvg.training.workdir import template_of

OUTLIERS = (0.005, 0.995)
LEAST_BOOST, MOST_BOOST = 0.5, 3.0


Workdir = str | os.PathLike


def export(
    at: Workdir | Sequence[Workdir],
    vg: Workdir,
    out: str | pathlib.Path,
    data_dir: str | os.PathLike | None = None,
    *,
    checkpoint: str = "best",
    half: bool = False,
    stablehlo: bool = False,
    template: align.Template | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Makes a bundle of AT-net's and VG-net's runs, writes it to out, and returns it.

    at: a workdir, or several, of which the mean is taken.  data_dir: the dataset of
    both runs: it calibrates the boost, and says which faces were seen.  checkpoint:
    "best" (least validation loss) or "newest".  half: weights are stored in float16;
    those returned are what load_bundle makes of them, rounded so and in float32.
    stablehlo: also programs that need jax alone.  template: where the face lies in the
    crop; None: where the data of the runs have it.  say: gets what is found, a line at
    a time.
    InputError: see read_run, averaged, make_bundle, write_bundle; no dataset there;
    data or a template that are not those of both runs.
    """
    check_out(out)
    several = [at] if isinstance(at, (str, os.PathLike)) else list(at)
    members = [read_run(workdir, "at", checkpoint) for workdir in several]
    at_run, seen = averaged(members), None
    vg_run = read_run(vg, "vg", checkpoint)
    data = at_run.data
    if data_dir:  # a photo must lie in the crop as the clips did
        data = data_of(data_dir, at_run, vg_run)
        clips = dataset.open_clips(data_dir, "train")
        seen = seen_faces(at_run.pca, map(sampling.flat_landmarks, clips))
    elif at_run.data and vg_run.data:
        remedy = "give runs whose data were prepared with one --template"
        check_template(at_run.data, vg_run.data, "--at: the run was", remedy)
    template = template_of_runs(template, data or vg_run.data)
    steps = ", ".join(str(member.step) for member in members)
    say(f"AT-net of step {steps}, VG-net of step {vg_run.step}")
    scale = CROP_SIZE / 2  # undoes landmarks.normalise
    bundle = make_bundle(
        at_run,
        vg_run,
        calibrated_boost(at_run, data_dir, say),
        half=half,
        seen=seen,
        landmark_to_crop=np.array([[scale, 0, scale - 0.5], [0, scale, scale - 0.5]]),
        template=template.points,
        template_indices=template.indices,
        data=data and data[CLIPS],
    )
    write_bundle(bundle, out, stablehlo=stablehlo)
    # float16 is for files: networks with such weights would compute in it.
    return dataclasses.replace(bundle, variables=as_float32(bundle.variables))


def data_of(data_dir: str | os.PathLike, at_run: Run, vg_run: Run) -> dict[str, Any]:
    """The fingerprint of the data.

    InputError: AT-net's run was trained on other data, or VG-net's on faces that were
    aligned otherwise.
    """
    data = fingerprint(data_dir, list(dataset.all_datasets(data_dir)))
    remedy = "give the --data_dir that it was trained on"
    if at_run.data:
        check_same(at_run.data, data, "--at: the run was", remedy)
    if vg_run.data:
        check_template(vg_run.data, data, "--vg: the run was", remedy)
    return data


def template_of_runs(
    template: align.Template | None, data: Mapping[str, Any] | None
) -> align.Template:
    """That of the data, where they are known, else `template` or the default one.
    InputError: `template` is not that of the data."""
    if not data:
        return align.DEFAULT_TEMPLATE if template is None else template
    if template is not None:
        named = {TEMPLATE: align.template_as_json(template)}
        remedy = "leave --template out, and that of their data is taken"
        check_template(data, named, "--template: the runs were", remedy)
    return template_of(data)


def calibrated_boost(
    at: Run, data_dir: str | os.PathLike | None, say: Callable[[str], None]
) -> Float32[np.ndarray, "K"] | None:
    """w of AT-net's run on the validation clips; None (w = 1) without clips, or where
    that puts the mouth nearer to the truth."""
    if data_dir:
        clips = dataset.open_clips(data_dir, "validation")
    elif count := at.experiment.data.synthetic:
        clips = synthetic.SyntheticClips(count, SYNTHETIC_FRAMES)
    else:
        say("boost w: 1, not calibrated; give --data_dir to calibrate it")
        return None
    batches = loader.evaluation_batches(
        clips,
        batch_size=4,
        pca=at.pca,
        frames=False,
        from_rest=at.experiment.at_net.from_rest,
    )
    predicted, true = coefficients(at, batches)
    w = calibrate(predicted, true)
    say(f"boost w, factors of AT-net's coefficients, from {len(clips)} clips: {row(w)}")
    say(f"(the authors' are {row(authors.BOOST)})")
    with_it, without = (mouth_error(at.pca, b * predicted, true) for b in (w, 1))
    say(f"mouth error: {with_it:.2f} px with it, {without:.2f} px with w = 1")
    if without <= with_it:
        say("taken: w = 1")
        return None
    return w


def row(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def make_bundle(
    at: Run,
    vg: Run,
    boost: Float[np.ndarray, "K"] | None = None,
    *,
    half: bool = False,
    seen: SeenFaces | None = None,
    **alignment: Any,
) -> Bundle:
    """A bundle of both runs' networks, without anything that only training needs.

    boost: see calibrate; ones if None.  half: weights in float16, half the size, to be
    written and not to compute with.  seen: see seen_faces.
    alignment: the fields of Bundle that say where the face lies in the crop.
    InputError: a weight too large for float16.
    """
    variables = {"at_net": at.variables, "vg_net": vg.variables}
    ones = np.ones(at.experiment.data.num_coefficients, np.float32)
    return Bundle(
        at_net=make_nets(at.experiment).net,
        vg_net=make_nets(vg.experiment).vg_net.clone(remat=False),
        variables=to_half(variables) if half else variables,
        pca=at.pca,
        boost=ones if boost is None else np.asarray(boost, np.float32),
        seen=seen,
        **alignment,
    )


def to_half(variables: dict[str, Any]) -> dict[str, Any]:
    """InputError: a weight would become infinite; names it."""

    def cast(path, x: np.ndarray) -> np.ndarray:
        largest = float(np.abs(x).max(initial=0))
        if not largest <= float(np.finfo(np.float16).max):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"{name} reaches {largest:g}, float16 ends at 65504; export without "
                "--half"
            )
        return x.astype(np.float16)

    return jax.tree_util.tree_map_with_path(cast, variables)


# --- the faces of the training clips ---


def seen_faces(pca: Pca, landmarks: Iterable[np.ndarray]) -> SeenFaces:
    """The range of the training clips' landmarks, f32[T,136] each; see
    Bundle.recognise.

    opening: the regression of the landmarks on the lips' opening, within clips.
    Of all clips only the coefficients and sums are kept: a corpus may be large.
    """
    found, apart, product, square = [], 0.0, np.zeros(pca.mean.shape), 0.0
    for p in landmarks:
        h = pca.project(p)
        found.append(h)
        apart += np.sum((p - pca.reconstruct(h)) ** 2, dtype=np.float64)
        moved = (p - p.mean(0)).astype(np.float64)
        opened = opening(as_points(moved))
        product += opened @ moved
        square += opened @ opened
    h = np.concatenate(found)
    low, high = np.quantile(h, OUTLIERS, axis=0).astype(np.float32)
    direction = (product / max(square, 1e-12)).astype(np.float32)
    return SeenFaces(low, high, np.float32(apart / len(h)), direction)


# --- the boost ---


def calibrate(
    predicted: Float[np.ndarray, "n K"], true: Float[np.ndarray, "n K"]
) -> Float32[np.ndarray, "K"]:
    """w_k = std(true_k) / std(predicted_k), within [0.5, 3].

    1 where the prediction stands still: no factor would move it.
    """
    spread, wanted = predicted.std(0), true.std(0)
    # Rounding alone moves a constant by some 1e-7 of its size.
    still = spread <= 1e-6 * np.maximum(np.abs(predicted).max(0), 1e-6)
    w = np.clip(wanted / np.where(still, 1, spread), LEAST_BOOST, MOST_BOOST)
    return np.where(still, 1, w).astype(np.float32)


def coefficients(
    at: Run, batches: Iterable[EvaluationBatch]
) -> tuple[Float32[np.ndarray, "n K"], Float32[np.ndarray, "n K"]]:
    """AT-net's coefficients of all valid frames of all clips: (predicted, true).

    Their means over a clip are not taken off, although movements would be matched
    then: w multiplies the whole coefficient (equation 3), which holds the face's own
    shape, too.  On GRID, 400 steps of at_small, matching movements raised the mouth's
    error from 1.00 to 1.84 pixels, matching the whole to 1.27.
    """
    mesh = data_mesh(jax.local_devices()[:1])
    compiled = jax.jit(traced(mesh, "highest", make_nets(at.experiment).net.apply))
    predicted, true = [], []
    for batch in batches:
        inputs = batch.at
        output = compiled(at.variables, inputs.example, inputs.audio)
        found = np.asarray(output.coefficients)
        valid = (batch.frame_valid * batch.valid[:, None]) > 0
        predicted.append(found[valid])
        true.append(inputs.coefficients[valid])
    return np.concatenate(predicted), np.concatenate(true)


def mouth_error(
    pca: Pca, predicted: Float[np.ndarray, "n K"], true: Float[np.ndarray, "n K"]
) -> float:
    """Mean distance of the mouth's points, pixels of the crop."""
    apart = (predicted - true) @ pca.components.T * (CROP_SIZE / 2)
    return float(np.linalg.norm(as_points(apart)[:, MOUTH], axis=-1).mean())
