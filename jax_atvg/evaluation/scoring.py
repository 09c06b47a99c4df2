"""All scores of clips: some from a device, some from this process or others beside it.

    frames --device--> PSNR, SSIM                                          pixels.py
    frames --process--> points, CPBD, ..., faces --device--> identity      scores.py,
                                                                           identity.py
The scores of a clip are the same bits whoever computes them and beside what.
"""

import collections
import contextlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
import numpy as np

from input_pipeline import workers
from input_pipeline.clip import InputError
from jax_atvg.evaluation import identity, pixels
from jax_atvg.evaluation.scores import Case, Scores, host_scores, mouth_box

Key = TypeVar("Key")


def score_all(
    cases: Iterable[tuple[Key, Case]],
    num_workers: int = 0,
    device: jax.Device | None = None,
) -> Iterator[tuple[Key, dict[str, Scores]]]:
    """Yields (key, {mode: {metric: value}}) for every case, in their order.

    cases: taken, and so made, while the scores of those before are computed.
    num_workers: processes that compute what a device does not; 0: this one.  device:
    JAX's first unless given.
    InputError: a process died, for instance for lack of memory; or see identity.
    """
    begun, weights = collections.deque(), None

    def beginning():
        for key, case in cases:
            begun.append(begin_pixels(case, device))
            yield key, case

    scored = workers.in_order(host_scores, beginning(), num_workers)
    try:
        with contextlib.closing(scored):
            for key, (table, faces) in scored:
                if faces and weights is None:
                    weights = identity.read_weights(identity.model_path())
                    weights = jax.device_put(weights, device)
                yield key, completed(table, begun.popleft(), faces, weights)
    except workers.WorkerLost as error:
        raise InputError(
            f"workers={num_workers}: one of these processes was killed, perhaps for "
            "lack of memory; take fewer"
        ) from error


def score(case: Case) -> dict[str, Scores]:
    """The scores of one clip, {mode: {metric: value}}, without another process."""
    ((_, table),) = score_all([(None, case)])
    return table


def begin_pixels(case: Case, device: jax.Device | None) -> pixels.Sums | None:
    if not case.fakes:
        return None
    fakes = {**case.fakes, "static": np.broadcast_to(case.photo, case.real.shape)}
    return pixels.begin(case.real, fakes, mouth_box(case.truth), device)


def completed(
    table: dict[str, Scores],
    begun: pixels.Sums | None,
    faces: dict[str, np.ndarray],
    weights: identity.Weights | None,
) -> dict[str, Scores]:
    """The host's scores and those of the device, which is waited for."""
    if begun is None:
        return table
    found, alike = pixels.finish(begun), identity.likeness(weights, faces)
    alike = {name: {"csim_dlib": one} for name, one in alike.items()}
    return {
        name: found.get(name, {}) | scores | alike.get(name, {})
        for name, scores in table.items()
    }
