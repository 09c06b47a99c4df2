"""Which data a run was trained on: a hash of every corpus, and the template to which
its faces were aligned.

A run, and the bundle made of it, carry it along, so that neither goes on with other
data without a word.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.clip import InputError
from input_pipeline.training_data import dataset

CLIPS, TEMPLATE = "clips", "template"


def fingerprint(
    data_dir: dataset.DataDir, corpora: Sequence[str] = ()
) -> dict[str, Any]:
    """{"clips": {corpus: hash}, "template": {"points", "indices"}} of the datasets.

    The hash is of the options and files that a dataset was prepared from, of the names
    and lengths of its clips, and of its PCA.  corpora, InputError: see
    dataset.find_datasets.
    """
    folders = dataset.find_datasets(data_dir, corpora)
    points, indices = dataset.open_template(data_dir, list(folders))
    return {
        CLIPS: {name: _hash(folder) for name, folder in folders.items()},
        TEMPLATE: {"points": points.tolist(), "indices": list(indices)},
    }


def _hash(folder: pathlib.Path) -> str:
    options = dataset.read_options(folder)
    known = {name: options.get(name) for name in ("options", "files")}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for name in ("index.npz", "pca.npz"):
        for array, values in sorted(dataset.read_arrays(folder, name).items()):
            if _identifies(array):
                digest.update(f"{array} {values.shape}".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def _identifies(name: str) -> bool:
    """Whether an array of index.npz or pca.npz says which clips there are."""
    return name in ("mean", "components") or name.endswith(("/clip_ids", "/lengths"))


def check_same(
    before: Mapping[str, Any], now: Mapping[str, Any], whose: str, remedy: str
) -> None:
    """InputError: a corpus that both have is another one, one of the earlier ones is
    missing, or faces are aligned otherwise.  whose: of `before`, as "runs/vg"."""
    apart = [
        f"another {name}" if name in now[CLIPS] else f"no {name}"
        for name, value in before[CLIPS].items()
        if now[CLIPS].get(name) != value
    ]
    if apart:
        raise InputError(f"{whose} made with other data ({', '.join(apart)}); {remedy}")
    check_template(before, now, whose, remedy)


def check_template(
    before: Mapping[str, Any], now: Mapping[str, Any], whose: str, remedy: str
) -> None:
    """InputError: faces are aligned to another template."""
    a, b = before[TEMPLATE], now[TEMPLATE]
    same = list(a["indices"]) == list(b["indices"]) and np.allclose(
        a["points"], b["points"], atol=1e-3
    )
    if not same:
        raise InputError(
            f"{whose} made with faces that were aligned to another template; {remedy}"
        )
