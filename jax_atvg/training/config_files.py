"""Experiments as files: those of configs/, and the one that a run keeps.

workdir/config.json     the experiment, one flat table of dotted names
workdir/versions.json   schema number, and the packages that the run was started with
"""

import importlib.metadata
import importlib.util
import inspect
import json
import pathlib
import sys
import traceback
import warnings
from typing import Any

from etils import epath

import jax_atvg
from input_pipeline.clip import InputError
from input_pipeline.files import replacing
from jax_atvg.resources import packaged
from jax_atvg.training.config import (
    Experiment,
    flatten,
    from_flat,
    validate,
)

# Of config.json.  1: versions without versions.json.  2: network "vg" for "gan", no
# ema.
SCHEMA = 2
VERSIONED = ("jax", "flax")


# --- configs/ ---


def load_config(name: str) -> Experiment:
    """ "vg_small", "smoke:at", "my/config.py", "my/config.py:variant".

    A name finds a config that comes with the package; whatever ends in .py is a path.
    What follows a colon is given to the file's get_config().
    InputError: no such config; the file failed, or gave something else.
    """
    file, colon, variant = name.partition(":")
    path = config_path(file)
    try:
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if colon and not inspect.signature(module.get_config).parameters:
            raise InputError(
                f"config={name}: {file} has no variants; leave out :{variant}"
            )
        experiment = module.get_config(*([variant] if colon else []))
    except InputError:
        raise
    except Exception as error:  # the file may do anything
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"config={name}: {type(error).__name__}: {error} "
            f"({where.filename}, line {where.lineno}); correct the file"
        ) from error
    if not isinstance(experiment, Experiment):
        raise InputError(
            f"config={name}: get_config() returned {type(experiment).__name__}, must "
            "be an Experiment; see configs/"
        )
    return experiment


def config_path(file: str) -> pathlib.Path:
    """InputError: there is none."""
    if file.endswith(".py"):
        path = pathlib.Path(file).expanduser()
        if not path.is_file():
            raise InputError(
                f"config={file}: no such file; give a path, or a name of "
                f"{', '.join(config_names())}"
            )
        return path
    if file not in config_names():
        raise InputError(
            f"config={file}: no such config; choose one of "
            f"{', '.join(config_names())}, or give the path of a file that ends in .py"
        )
    return packaged("configs") / f"{file}.py"


def config_names() -> list[str]:
    """The configs that come with the package."""
    names = (path.stem for path in packaged("configs").glob("*.py"))
    return sorted(name for name in names if name != "__init__")


# --- config.json ---


def read_config(workdir: epath.Path) -> Experiment:
    """The experiment of a run, also of one that an earlier version began; warns, in one
    line, of fields that it did not have.

    InputError: no config.json there, a damaged one, one of a later version.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(
            f"{workdir}: no run there (a folder with config.json); make one with "
            "`python main.py train --workdir=...`"
        )
    try:
        schema = read_versions(workdir).get("schema", 1)
        if schema > SCHEMA:
            raise InputError(
                f"written by a later version (schema {schema}, this one knows {SCHEMA})"
            )
        flat, added = upgraded(json.loads(path.read_text()))
        experiment = from_flat(flat)
        validate(experiment)
    except (InputError, OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: not an experiment of this version ({error}); train again, or use "
            "the version that wrote it"
        ) from error
    if added:
        warnings.warn(
            f"{path}: of an earlier version; goes on with {', '.join(added)}",
            stacklevel=2,
        )
    return experiment


def write_config(workdir: epath.Path, experiment: Experiment) -> None:
    """config.json and versions.json, each whole or not at all."""
    for name, values in (
        ("versions.json", versions()),
        ("config.json", flatten(experiment)),
    ):
        with replacing(workdir / name) as partial:
            partial.write_text(json.dumps(values, indent=1) + "\n")


def read_versions(workdir: epath.Path) -> dict:
    """{} where there is no versions.json: the run is of schema 1."""
    path = workdir / "versions.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def versions() -> dict[str, str | int]:
    """The schema number, and the versions of what computes."""
    return {
        "schema": SCHEMA,
        "jax_atvg": jax_atvg.__version__,
        **{name: importlib.metadata.version(name) for name in VERSIONED},
        "python": ".".join(map(str, sys.version_info[:3])),
    }


# --- configs of earlier versions ---

# What was removed since, and the value with which it did nothing.
REMOVED = {
    "ema": 0.0,
    "data.augment.smile": 0.0,
    "data.augment.teeth": 0.0,
    "gan_loss.texture_weight": 0.0,
    "gan_loss.pyramid_weight": 0.0,
}
# Fields that are called otherwise now.
MOVED = {"compute": "precision"}
# Values that are called otherwise now.
RENAMED = {"network": {"gan": "vg"}, "precision": {"float32": "default"}}
# Fields that were added since and whose default is not what was done before: the value
# that is.  (A field that is in neither table takes its default, which is.)
AS_BEFORE: dict[str, Any] = {"gan_loss.landmark_on_generated": True}


def upgraded(flat: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(a flat config of an earlier version as this one has it, what was added to it).

    The run does what it did: a missing field takes the value that keeps the old
    behaviour.  InputError: an unknown field, or one that was removed and did something.
    """
    defaults, flat = flatten(Experiment()), dict(flat)
    for name, idle in REMOVED.items():
        if (value := flat.pop(name, idle)) != idle:
            raise InputError(
                f"config.{name}={value}: this version has no {name} any more; go on "
                "with the version that wrote it"
            )
    flat = {MOVED.get(name, name): value for name, value in flat.items()}
    if unknown := sorted(flat.keys() - defaults):
        raise InputError(
            f"config: unknown {', '.join(unknown)}; it is of a later version, or of "
            "another program"
        )
    for name, names in RENAMED.items():
        if name in flat:
            flat[name] = names.get(flat[name], flat[name])
    added = {n: AS_BEFORE.get(n, v) for n, v in defaults.items() if n not in flat}
    return flat | added, [f"{name}={value}" for name, value in added.items()]
