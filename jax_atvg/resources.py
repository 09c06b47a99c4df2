"""Where the files lie that come with the package: configs and the default model."""

import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parent


def packaged(name: str) -> pathlib.Path:
    """ "configs" -> its folder: within an installed package, beside it in a
    checkout."""
    installed = PACKAGE / name
    return installed if installed.exists() else PACKAGE.parent / name


DEFAULT_BUNDLE = packaged("default_model/bundle")
