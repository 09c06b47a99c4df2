"""The authors' constants for preprocessing, which their networks need.

See docs/reference.md, sections 3.3 to 3.5.
"""

import pathlib

import numpy as np

from input_pipeline.clip import NUM_POINTS, InputError, Pca
from input_pipeline.faces.align import authors_template, similarity
from input_pipeline.faces.landmarks import normalise_like_authors

# {name: shape} of the arrays NAME.npy in their folder `basics`.
BASICS = {
    "U_lrw1": (136, 136),
    "mean_lrw1": (136,),
    "mean_shape_img": (68, 2),
    "mean_shape_norm": (1, 136),
    "S": (100, 136),
    "base_68": (68, 2),
}
NUM_COEFFICIENTS = 6
LANDMARK_SCALE = 5.0
BOOST = (1.0, 2.2, 2.4, 2.6, 2.8, 3.0)


def read_basics(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the authors' arrays from their folder `basics` or from an .npz of them.

    InputError: an array is missing, unreadable or of another shape.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist; give the folder ATVGnet/basics")
    basics = {}
    for name, shape in BASICS.items():
        try:
            if path.is_dir():
                basics[name] = np.load(path / f"{name}.npy")
            else:
                with np.load(path) as arrays:
                    basics[name] = arrays[name]
        except Exception as error:  # numpy and zipfile raise many kinds
            raise InputError(
                f"{path}: no readable {name} in it ({error}); give the folder "
                "ATVGnet/basics of the authors' repository"
            ) from error
        if basics[name].shape != shape:
            raise InputError(
                f"{path}: {name} is {basics[name].shape}, must be {shape}; give the "
                "folder ATVGnet/basics of the authors' repository"
            )
    return basics


def bundle_settings(basics: dict[str, np.ndarray]) -> dict:
    """The fields of a bundle of the authors' networks, except networks and weights.

    Their normalisation gives every photo the same landmarks, which are therefore
    stored.  Their landmarks are not positions in the crop: to draw them, the mean
    landmarks are fitted to `base_68`, the face of which the template is a part.
    """
    template = authors_template(basics["base_68"])
    mean = basics["mean_lrw1"].astype(np.float64)
    any_shape = basics["mean_shape_img"][None].astype(np.float64)
    photo_landmarks = LANDMARK_SCALE * normalise_like_authors(
        any_shape, any_shape[0], basics["mean_shape_norm"], basics["S"]
    )
    face = basics["base_68"].astype(np.float64) - 1
    return {
        "pca": Pca(
            mean.astype(np.float32),
            basics["U_lrw1"][:, :NUM_COEFFICIENTS].astype(np.float32),
        ),
        "boost": np.array(BOOST, np.float32),
        "landmark_to_crop": similarity(mean.reshape(NUM_POINTS, 2), face).astype(
            np.float32
        ),
        "template": template.points,
        "template_indices": template.indices,
        "photo_landmarks": photo_landmarks.reshape(-1).astype(np.float32),
    }
