"""What a user chooses for a video, checked.

Nothing heavy is imported here: the command line checks before it loads anything.
"""

import dataclasses
import numbers
import os
import pathlib
from collections.abc import Iterable, Sequence

from input_pipeline.clip import InputError
from input_pipeline.files import same_place

AFTERWARDS = ("keep", "close")  # what dubbed lips do when the sound has ended
MOST_EXPRESSIVE = 3.0


@dataclasses.dataclass(frozen=True)
class Look:
    """How frames are shown.

    full_frame: the face in the whole picture instead of the aligned crop.  label: every
    frame says that it is synthetic.  blinks: the eyes are closed now and then.
    head_movement: the head moves a little, in full frames.  seed: of both; of any type
    of whole numbers, as numpy's, and kept as an int.
    InputError: the seed is no whole number from 0 on; head_movement without full_frame.
    """

    full_frame: bool = False
    label: bool = False
    blinks: bool = True
    head_movement: bool = False
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.seed, numbers.Integral) or self.seed < 0:
            raise InputError(f"seed={self.seed}: must be a whole number, 0 or more")
        object.__setattr__(self, "seed", int(self.seed))  # the class is frozen
        if self.head_movement and not self.full_frame:
            raise InputError(
                "head_movement: the crop shows no more than the face, which stays "
                "where it is; choose full_frame as well"
            )


PLAIN = Look()


def checked_expressiveness(value: float) -> float:
    """The value as a float.  InputError: it is no number from 0 to MOST_EXPRESSIVE."""
    if not isinstance(value, numbers.Real) or not 0 <= value <= MOST_EXPRESSIVE:
        raise InputError(
            f"expressiveness={value}: must be 0 to {MOST_EXPRESSIVE}; 1 is as the "
            "networks learnt, 1.3 livelier"
        )
    return float(value)


def check_mp4(out: str | os.PathLike) -> None:
    """InputError: the name does not end in .mp4."""
    if pathlib.Path(out).suffix.lower() != ".mp4":
        raise InputError(f"{out}: the video is an MP4; give a name that ends in .mp4")


def check_dub(
    read: Iterable[str | os.PathLike],
    written: Sequence[str | os.PathLike],
    rest: str,
    expressiveness: float,
) -> None:
    """InputError: an option is out of range, or a result would overwrite an input.

    written: the video first.
    """
    if rest not in AFTERWARDS:
        raise InputError(f"rest={rest}: choose one of {', '.join(AFTERWARDS)}")
    checked_expressiveness(expressiveness)
    check_mp4(written[0])
    check_not_read(written, read)


def check_not_read(
    written: Sequence[str | os.PathLike], read: Iterable[str | os.PathLike]
) -> None:
    """InputError: one of the paths to write is, also through links, one of the inputs,
    which would be lost."""
    for source in read:
        for path in written:
            if same_place(source, path):
                raise InputError(
                    f"{path} is read, too; choose another name for the result"
                )
