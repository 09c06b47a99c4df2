"""Writes the files that describe a dataset: PCA, statistics, pictures, README.

Nothing in these files depends on when, where or by how many workers they were made.
"""

import collections
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from input_pipeline.clip import FRAME_RATE, MFCC_SIZE, Clip
from input_pipeline.faces import landmarks
from input_pipeline.faces.drawing import draw_dots
from input_pipeline.media import image
from input_pipeline.preparation import sync
from input_pipeline.preparation.recording import REASONS, Reject
from input_pipeline.preparation.sync import Sync
from input_pipeline.training_data import dataset, records

SHEET_ROWS, SHEET_COLUMNS, SHEET_SCALE = 32, 8, 2


def describe(
    folder: pathlib.Path,
    splits: Mapping[str, Sequence[tuple[str, str, int, Sync | None]]],
    rejects: Sequence[Reject],
    options: Mapping[str, Any],
) -> dict:
    """Writes all of a dataset but its shards; returns the statistics.

    splits: (clip_id, speaker, number of frames, sync) of each clip, in the shards'
    order.
    """
    _write_index(folder, splits)
    _write_json(folder / "options.json", options)
    lines = [json.dumps(reject._asdict(), ensure_ascii=False) for reject in rejects]
    text = "".join(line + "\n" for line in lines)
    (folder / "rejects.jsonl").write_text(text, encoding="utf-8")
    sums = _Sums()
    clips = dataset.open_clips(folder, "train")
    shapes = sums.through(clips)
    dataset.write_pca(folder / "pca.npz", shapes, dataset.MOST_COEFFICIENTS)
    statistics = _count(splits, rejects) | {"train": sums.results()}
    _write_json(folder / "statistics.json", statistics)
    image.write_image(folder / "contact_sheet.png", contact_sheet(folder))
    (folder / "README.md").write_text(_readme(options, statistics), encoding="utf-8")
    return statistics


def _write_index(folder: pathlib.Path, splits: Mapping[str, Sequence]) -> None:
    arrays = {}
    for split, clips in splits.items():
        clip_ids, speakers, lengths, syncs = zip(*clips, strict=True)
        arrays[f"{split}/clip_ids"] = np.array(clip_ids)
        arrays[f"{split}/speakers"] = np.array(speakers)
        arrays[f"{split}/lengths"] = np.array(lengths, np.int64)
        if None not in syncs:
            named = sync.columns(syncs)
            arrays |= {f"{split}/{name}": values for name, values in named.items()}
    np.savez(folder / "index.npz", **arrays)


def _write_json(path: pathlib.Path, values: Mapping) -> None:
    text = json.dumps(values, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


class _Sums:
    """Sums for the mean and standard deviation of landmarks and MFCC."""

    def __init__(self):
        self.sums = {
            "landmarks": np.zeros((3, 2 * 68)),
            "mfcc": np.zeros((3, MFCC_SIZE)),
        }

    def through(self, clips: Sequence[Clip]) -> Iterator[Float32[np.ndarray, "T L"]]:
        """Yields the clips' landmarks, and adds them and the MFCC to the sums."""
        for clip in clips:
            shapes = clip.landmarks.reshape(len(clip.landmarks), -1)
            for name, rows in (("landmarks", shapes), ("mfcc", clip.mfcc)):
                rows = rows.astype(np.float64)
                parts = np.ones_like(rows), rows, np.square(rows)
                self.sums[name] += [part.sum(0) for part in parts]
            yield shapes

    def results(self) -> dict[str, Any]:
        """landmarks: over all points, x and y apart.  mfcc: each coefficient apart."""
        results = {}
        for name, sums in self.sums.items():
            if name == "landmarks":
                sums = sums.reshape(3, -1, 2).sum(1)
            count, total, squares = sums
            mean = total / count
            std = np.sqrt(np.maximum(squares / count - mean**2, 0))
            results[name] = {
                "mean": np.round(mean, 6).tolist(),
                "std": np.round(std, 6).tolist(),
            }
        return results


def _count(splits: Mapping[str, Sequence], rejects: Sequence[Reject]) -> dict:
    """Clips, frames and seconds by split and by speaker; rejects by reason."""

    def tally(lengths: Sequence[int]) -> dict[str, Any]:
        frames = sum(lengths)
        seconds = round(frames / FRAME_RATE, 2)
        return {"clips": len(lengths), "frames": frames, "seconds": seconds}

    everything = [clip for clips in splits.values() for clip in clips]
    speakers = collections.defaultdict(list)
    for _, speaker, length, _ in everything:
        speakers[speaker].append(length)
    reasons = collections.Counter(reject.reason for reject in rejects)
    return {
        "total": tally([length for _, _, length, _ in everything]),
        "splits": {
            split: tally([length for _, _, length, _ in clips])
            for split, clips in splits.items()
        },
        "speakers": {name: tally(speakers[name]) for name in sorted(speakers)},
        "rejects": dict(sorted(reasons.items())),
    }


# --- pictures ---


def contact_sheet(folder: pathlib.Path) -> UInt8[np.ndarray, "H W 3"]:
    """A picture with a row per speaker: frames of many clips, with their points."""
    rows = collections.defaultdict(list)
    for split in dataset.splits_of(folder):
        clips = dataset.open_clips(folder, split)
        for i, speaker in enumerate(clips.speakers):
            rows[speaker].append((clips, i))
    names = sorted(rows)
    chosen = [names[i] for i in _spread(len(names), SHEET_ROWS)]
    return np.concatenate([_row(name, rows[name]) for name in chosen])


def _spread(count: int, most: int) -> list[int]:
    """At most `most` indices, evenly spread over range(count)."""
    most = min(count, most)
    return [(2 * i + 1) * count // (2 * most) for i in range(most)]


def _row(name: str, clips: list[tuple[dataset.Clips, int]]) -> np.ndarray:
    tiles = []
    for column in range(SHEET_COLUMNS):
        part, i = clips[column * len(clips) // SHEET_COLUMNS]
        clip = part[i]
        t = (2 * column + 1) * len(clip.frames) // (2 * SHEET_COLUMNS)
        caption = f"{name} {part.split}" if column == 0 else clip.clip_id
        tiles.append(_tile(clip, t, caption))
    return np.concatenate(tiles, axis=1)


def _tile(clip: Clip, t: int, caption: str) -> np.ndarray:
    import cv2

    data = np.frombuffer(clip.frames[t], np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    side = SHEET_SCALE * len(picture)
    picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
    points = landmarks.to_pixels(clip.landmarks[t].reshape(-1))
    picture = draw_dots(picture, (points + 0.5) * SHEET_SCALE - 0.5, radius=2.0)
    font, place = cv2.FONT_HERSHEY_SIMPLEX, (4, side - 6)
    cv2.putText(picture, caption[-40:], place, font, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, caption[-40:], place, font, 0.4, (255,) * 3, 1, cv2.LINE_AA)
    return picture


# --- words ---


def table(statistics: Mapping) -> str:
    """The counts of clips by split and of rejects by reason, as Markdown."""
    lines = ["| split | clips | frames | seconds |", "|---|---|---|---|"]
    counts = statistics["splits"] | {"all": statistics["total"]}
    for split, n in counts.items():
        line = f"| {split} | {n['clips']} | {n['frames']} | {n['seconds']:.0f} |"
        lines.append(line)
    rejects = statistics["rejects"]
    if not rejects:
        return "\n".join([*lines, "", "Nothing was rejected."])
    lines += ["", "| rejected because | times |", "|---|---|"]
    return "\n".join(lines + [f"| {why} | {n} |" for why, n in rejects.items()])


README = """# Talking faces: {corpus}

{about}.  Prepared for the networks of this project by `python main.py prepare`.

{table}

They show {num_speakers} people; `statistics.json` has the counts of each.
`rejects.jsonl` tells why a file, or the part of one from second `start` on, was left
out; the meaning of `value` depends on the reason:

{reasons}

`contact_sheet.png` shows what the clips look like.

A clip is {fps} aligned 128x128 pictures a second (JPEG), the 68 points of the face in
them (-1..1 from edge to edge of the picture), 13 MFCC 100 times a second from 0.12 s
before its start to 0.12 s after its end, and where the pictures lie in the original:

    from input_pipeline.training_data.dataset import open_clips, open_pca
    clips = open_clips("this folder", "train")
    clips[0].frames, clips[0].landmarks, clips[0].mfcc, clips[0].speaker
    pca = open_pca("this folder", 20)        # fitted to the training split alone

It is a TFDS dataset too: `tfds.builder_from_directory("this folder").as_data_source()`.

Made with (`options.json`):

{options}

The licence and terms of the recordings also apply to this copy of them.
"""


def _readme(options: Mapping, statistics: Mapping) -> str:
    made = {k: v for k, v in options["options"].items() if k != "template"}
    flags = options["flags"] | made
    return README.format(
        corpus=options["flags"]["corpus"],
        about=records.CORPORA[options["flags"]["corpus"]],
        table=table(statistics),
        num_speakers=len(statistics["speakers"]),
        fps=FRAME_RATE,
        reasons="\n".join(f"- {why}: {what}" for why, what in REASONS.items()),
        options="\n".join(f"    {name} = {value}" for name, value in flags.items()),
    )
