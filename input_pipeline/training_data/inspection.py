"""Shows a prepared dataset: a table, a contact sheet, and a plot of one clip."""

import io
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from input_pipeline.clip import (
    CONTEXT_FRAMES,
    CROP_SIZE,
    FRAME_RATE,
    MFCC_RATE,
    Clip,
    InputError,
)
from input_pipeline.faces.drawing import draw_dots
from input_pipeline.faces.landmarks import to_pixels
from input_pipeline.media.image import write_image
from input_pipeline.training_data import dataset, sampling

SHEET = 12, 9  # clips and frames of the contact sheet
STRIP = 10  # frames above the plot of an example
LABEL = 14  # pixels under a row of the sheet, for the clip's name


def inspect(
    data_dir: str | pathlib.Path, split: str, index: int, out: str | pathlib.Path
) -> str:
    """Writes out/contact_sheet.png and out/example.png; returns the table.

    InputError: there is no such dataset, split or clip, or it is damaged.
    """
    text, clips = table(data_dir), dataset.open_clips(data_dir, split)
    if not len(clips):
        raise InputError(f"split {split} holds no clips; name another with --split")
    if not 0 <= index < len(clips):
        raise InputError(
            f"index={index}: split {split} holds {len(clips)} clips; "
            f"ask for 0..{len(clips) - 1}"
        )
    out, sheet, plot = pathlib.Path(out), contact_sheet(clips), io.BytesIO()
    plot_example(clips[index], plot)
    out.mkdir(parents=True, exist_ok=True)  # nothing is damaged
    write_image(out / "contact_sheet.png", sheet)
    (out / "example.png").write_bytes(plot.getvalue())
    return text


def default_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder `inspect` in data_dir.  InputError: no dataset there."""
    dataset.all_datasets(data_dir)
    return pathlib.Path(data_dir).expanduser() / "inspect"


def table(data_dir: str | pathlib.Path) -> str:
    """Text: clips, speakers and durations by split; variance explained by the PCA."""
    rows = [["split", "clips", "speakers", "minutes", "mean s", "min s", "max s"]]
    for split in dataset.SPLITS:
        try:
            clips = dataset.open_clips(data_dir, split)
        except InputError:
            if rows[1:]:  # the dataset exists, but has no such split
                continue
            raise
        rows.append([split, *summary(clips)])
    model, variance = dataset.pca_with_variance(data_dir)
    shares = np.cumsum(variance) / variance.sum()
    most = model.components.shape[1]
    counts = [k for k in (1, 2, 3, 6, 10, 20, 40) if k < most] + [most]
    pca = [["PCA coefficients", *map(str, counts)]]
    pca.append(["variance explained", *(f"{shares[k - 1]:.2%}" for k in counts)])
    return "\n\n".join(aligned(one) for one in (rows, pca, *lags(data_dir)))


def lags(data_dir: str | pathlib.Path) -> Iterator[list[list[str]]]:
    """For each corpus whose sound was looked at, rows of a table: how many of its clips
    have which lag, and how well the mouths heard and seen agree there."""
    for corpus, folder in dataset.all_datasets(data_dir).items():
        parts = [dataset.Clips(folder, split) for split in dataset.splits_of(folder)]
        if not all("lag" in part.columns for part in parts):
            continue
        known = {
            name: np.concatenate([part.columns[name] for part in parts])
            for name in ("lag", "r", "judged")
        }
        rows = [[f"{corpus}: sound late by, frames", "clips", "mean r"]]
        groups = {
            f"{lag:+d}" if lag else "0": known["judged"] & (known["lag"] == lag)
            for lag in np.unique(known["lag"][known["judged"]])
        } | {"cannot be told": ~known["judged"]}
        yield rows + [
            [name, str(mine.sum()), f"{known['r'][mine].mean():.2f}"]
            for name, mine in groups.items()
            if mine.any()
        ]


def summary(clips) -> list[str]:
    """A split's cells in the table."""
    seconds = np.asarray(clips.lengths) / FRAME_RATE
    if not len(seconds):
        return ["0", "0", "0.0", "-", "-", "-"]
    return [
        str(len(seconds)),
        str(len(set(clips.speakers))),
        f"{seconds.sum() / 60:.1f}",
        *(f"{x:.2f}" for x in (seconds.mean(), seconds.min(), seconds.max())),
    ]


def aligned(rows: list[list[str]]) -> str:
    """Rows of cells as text: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def contact_sheet(clips) -> UInt8[np.ndarray, "H W 3"]:
    """A picture with a row of frames, first to last, for each of a dozen clips.

    They are of as many speakers as possible; every other frame shows its landmarks.
    """
    import cv2

    rows = []
    for i in choose(clips.speakers, SHEET[0]):
        clip = clips[i]
        which = np.linspace(0, len(clip.frames) - 1, SHEET[1]).astype(int).tolist()
        frames = sampling.decode(clip, which)
        for column in range(1, len(which), 2):
            frames[column] = with_landmarks(frames[column], clip, which[column])
        label = np.full((LABEL, SHEET[1] * CROP_SIZE, 3), 255, np.uint8)
        text = f"{i}: {sampling.name_of(clip)}, {len(clip.frames)} frames"
        place = (3, LABEL - 4)
        cv2.putText(label, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0))
        rows += [np.concatenate(list(frames), axis=1), label]
    return np.concatenate(rows)


def choose(speakers: list[str], most: int) -> list[int]:
    """Indices of at most `most` clips: equally many of speakers all over the list."""
    where: dict[str, list[int]] = {}
    for i, speaker in enumerate(speakers):
        where.setdefault(speaker, []).append(i)
    each = max(1, most // len(where))
    groups = list(where.values())
    return sorted(
        groups[g][i]
        for g in spread(len(groups), most)
        for i in spread(len(groups[g]), each)
    )


def spread(count: int, most: int) -> list[int]:
    """At most `most` indices, evenly spread over 0 .. count-1."""
    return sorted(set(np.linspace(0, count - 1, most).astype(int).tolist()))


def with_landmarks(
    frame: UInt8[np.ndarray, "H W 3"], clip: Clip, t: int
) -> UInt8[np.ndarray, "H W 3"]:
    return draw_dots(frame, to_pixels(clip.landmarks[t].reshape(-1)))


def plot_example(clip: Clip, path: pathlib.Path | io.BytesIO) -> None:
    """Plots a clip over time: frames with landmarks, the mouth's shape, the MFCC."""
    from matplotlib.figure import Figure

    length = len(clip.frames)
    points = to_pixels(sampling.flat_landmarks(clip))
    seconds = np.arange(length) / FRAME_RATE
    figure = Figure(figsize=(12, 7), layout="constrained")
    strip, mouth, sound = figure.subplots(3, 1, height_ratios=[1.3, 1.5, 1.5])

    which = spread(length, STRIP)
    frames = zip(sampling.decode(clip, which), which, strict=True)
    pictures = [with_landmarks(frame, clip, t) for frame, t in frames]
    strip.imshow(np.concatenate(pictures, axis=1))
    middles = (np.arange(len(which)) + 0.5) * CROP_SIZE
    strip.set_xticks(middles, [f"{t / FRAME_RATE:.2f} s" for t in which])
    strip.set_yticks([])
    strip.set_title(f"{sampling.name_of(clip)}: {length} frames")

    mouth.plot(seconds, points[:, 66, 1] - points[:, 62, 1], label="opening, 62 to 66")
    width = points[:, 64, 0] - points[:, 60, 0]
    mouth.plot(seconds, width - width.mean(), label="width, 60 to 64, less its mean")
    mouth.plot(seconds, points[:, 8, 1] - points[0, 8, 1], label="chin, from its start")
    mouth.set_ylabel("pixels of the crop")
    for word, first, last in clip.words:
        mouth.axvspan(first, last, alpha=0.1, edgecolor="black")
        mouth.annotate(
            word,
            ((first + last) / 2, 0.97),
            xycoords=mouth.get_xaxis_transform(),
            ha="center",
            va="top",
        )
    mouth.legend(loc="upper right", fontsize="small")

    before = CONTEXT_FRAMES / FRAME_RATE  # seconds from MFCC row 0 to frame 0
    rows = (np.arange(len(clip.mfcc) + 1) / MFCC_RATE) - before
    cepstra = clip.mfcc[:, 1:].T
    limit = np.percentile(np.abs(cepstra), 99) or 1
    places = np.arange(len(cepstra) + 1) + 0.5
    sound.pcolormesh(rows, places, cepstra, vmin=-limit, vmax=limit, cmap="RdBu_r")
    energy = sound.twinx()
    energy.plot(rows[:-1], clip.mfcc[:, 0], "k", linewidth=0.8)
    energy.set_ylabel("log energy (line)")
    sound.set_ylabel(f"MFCC 1..{len(cepstra)}, blue -{limit:.0f}, red {limit:.0f}")
    sound.set_xlabel("seconds; frame t is shown from t / 25")
    for axes in (mouth, sound):
        axes.set_xlim(rows[0], rows[-1])
    figure.savefig(path, dpi=100)
