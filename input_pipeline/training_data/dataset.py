"""Reads and writes prepared clips: a TFDS dataset in ArrayRecord, no TensorFlow.

    data_dir/atvg_clips/<corpus>/<version>/   what `prepare` makes of one corpus
        atvg_clips-train.array_record-00000-of-00002 ...   the clips, and TFDS's own
        dataset_info.json, features.json                   description of them
        index.npz                 speaker, name and length of every clip
        pca.npz                   mean, components, variance of the training landmarks
        statistics.json  rejects.jsonl  options.json  contact_sheet.png  README.md

Training needs `open_clips` and `open_pca`.  `open_template` says how a photo must be
aligned to look like the clips.
"""

import contextlib
import functools
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from input_pipeline.clip import (
    CROP_SIZE,
    FRAME_RATE,
    MFCC_SIZE,
    NUM_POINTS,
    Clip,
    InputError,
    Pca,
)

NAME = "atvg_clips"
VERSION = "1.0.0"  # of the records; raise it when what a clip holds changes
CORPORA = {
    "grid": "GRID: sentences of fixed form (Cooke et al., JASA 120(5), 2006)",
    "lrw": "LRW: single words from television (Chung and Zisserman, ACCV 2016)",
    "folder": "a folder of talking-face videos",
}
SPLITS = ("train", "validation", "test")


def open_clips(data_dir: str | pathlib.Path, split: str) -> "Clips":
    """Opens the clips of a split: `len`, and `clips[i]` -> Clip, in any order.

    data_dir: the one given to `prepare`, or the folder of one of its datasets.
    InputError: there is no dataset, there are several, or it has no such split.
    """
    return Clips(find_dataset(data_dir), split)


def open_pca(data_dir: str | pathlib.Path, num_coefficients: int | None = None) -> Pca:
    """The PCA model of the training landmarks, with K components or all there are.

    InputError: see find_dataset; or there are fewer components.
    """
    path = find_dataset(data_dir) / "pca.npz"
    with np.load(path) as arrays:
        mean, components = arrays["mean"], arrays["components"]
    most = components.shape[1]
    if num_coefficients is not None and not 1 <= num_coefficients <= most:
        raise InputError(
            f"num_coefficients={num_coefficients}: {path} has {most}; ask for 1..{most}"
        )
    return Pca(mean, components[:, :num_coefficients])


def open_template(
    data_dir: str | pathlib.Path,
) -> tuple[Float64[np.ndarray, "n 2"], tuple[int, ...]]:
    """The template to which faces were aligned: crop pixels, and indices of the points.

    A photo must be aligned to it (align.Template) to look like the clips.
    InputError: see find_dataset.
    """
    text = (find_dataset(data_dir) / "options.json").read_text(encoding="utf-8")
    template = json.loads(text)["options"]["template"]
    return np.array(template["points"], np.float64), tuple(template["indices"])


def find_dataset(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder of the dataset that data_dir is or holds.  InputError: not one."""
    data_dir = pathlib.Path(data_dir).expanduser()
    if (data_dir / "index.npz").is_file():
        return data_dir
    found = sorted(
        path.parent
        for depth in ("*", "*/*", "*/*/*")
        for path in data_dir.glob(f"{depth}/index.npz")
        if "work" not in path.relative_to(data_dir).parts
    )
    if not found:
        raise InputError(
            f"{data_dir}: no prepared dataset; run `python main.py prepare` first"
        )
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise InputError(f"{data_dir}: {len(found)} datasets; give one of {names}")
    return found[0]


class Clips(Sequence):
    """The clips of one split.  A clip is read when it is indexed.

    speakers, clip_ids: list[str], of all clips.  lengths: i64[n], their frames T.
    It can be pickled, for data workers; the copy opens the shards again.
    """

    def __init__(self, folder: pathlib.Path, split: str):
        self.folder, self.split = folder, split
        with np.load(folder / "index.npz") as index:
            known = [name for name in SPLITS if f"{name}/lengths" in index]
            if split not in known:
                raise InputError(
                    f"{folder}: no split {split!r}; it has {', '.join(known)}; "
                    "prepare more files, or with another --split_rule"
                )
            self.lengths = index[f"{split}/lengths"]
            self.speakers = index[f"{split}/speakers"].tolist()
            self.clip_ids = index[f"{split}/clip_ids"].tolist()
        self._opened = None

    def __getstate__(self):
        return self.__dict__ | {"_opened": None}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int | np.integer) -> Clip:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        if self._opened is None:
            self._opened = _open_source(self.folder, self.split)
        return parse(self._opened[int(i) % len(self)])


def write_shards(
    data_dir: pathlib.Path,
    corpus: str,
    shards: Mapping[str, Sequence[Callable[[], Iterator[Clip]]]],
    **config: Any,
) -> pathlib.Path:
    """Writes the dataset's shards below data_dir and returns its folder.

    shards: for each split, a function per shard that yields its clips; the order is
    kept.  config: of TFDS's DownloadConfig; with beam_runner and beam_options, Beam
    writes the shards in parallel.
    """
    import tensorflow_datasets as tfds

    builder = _builder_class()(data_dir=str(data_dir), config=corpus, shards=shards)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints about downloads
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                compute_stats=tfds.download.ComputeStatsMode.SKIP, **config
            ),
            file_format="array_record",
        )
    folder = pathlib.Path(builder.data_dir)
    for notes in folder.glob("*.shard_infos.json"):  # left over from Beam
        notes.unlink()
    return folder


@functools.cache
def _builder_class():
    """The TFDS builder, made at its first use: importing TFDS takes half a second.

    It is a shard-based builder, because TFDS's generator-based ones shuffle: a split of
    1 GB or more by means of files that only TensorFlow writes, and on Beam differently.
    """
    import tensorflow_datasets as tfds

    class InOneOrder(tfds.core.writer.ExampleWriter):
        """Writes fields in a fixed order; that of TFDS varies between processes."""

        def write(self, path, examples):
            return super().write(path, ((k, _in_order(v)) for k, v in examples))

    class AtvgClips(tfds.core.ShardBasedBuilder):
        """Aligned talking faces with their landmarks and MFCC."""

        VERSION = tfds.core.Version(VERSION)
        BUILDER_CONFIGS = [  # noqa: RUF012, TFDS wants a list
            tfds.core.BuilderConfig(name=name, description=about)
            for name, about in CORPORA.items()
        ]

        def __init__(self, *, shards, **kwargs):
            super().__init__(**kwargs)
            self._shards = shards

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"Aligned talking faces: {self.builder_config.description}",
                features=_stored_features(),
                disable_shuffling=True,
            )

        def _example_writer(self):
            return InOneOrder(self.info.file_format)

        def _download_and_prepare(self, dl_manager, download_config):
            """Writes one split after the other: given all at once, TFDS runs the
            first split's pipeline again with each further one."""
            infos = []
            for split in self._shards:
                self._split = split
                super()._download_and_prepare(dl_manager, download_config)
                infos += self.info.splits.values()
            self.info.set_splits(tfds.core.splits.SplitDict(infos))

        def _shard_iterators_per_split(self, dl_manager):
            shards = self._shards[self._split]
            return {self._split: [functools.partial(_examples, one) for one in shards]}

    return AtvgClips


def _examples(shard: Callable[[], Iterator[Clip]]) -> Iterator[tuple[str, dict]]:
    return ((clip.clip_id, to_example(clip)) for clip in shard())


def _in_order(record: bytes) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example.FromString(record)
    return example.SerializeToString(deterministic=True)


def _open_source(folder: pathlib.Path, split: str) -> Sequence[bytes]:
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder).as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )


def parse(record: bytes) -> Clip:
    """A record of the shards -> the clip, its frames still JPEG bytes."""
    example = _raw_features().deserialize_example_np(record)
    words = example["words"]
    spans = zip(words["word"], words["start"], words["end"], strict=True)
    return Clip(
        frames=list(example["frames"]),
        landmarks=example["landmarks"],
        mfcc=example["mfcc"],
        transforms=example["transforms"],
        corpus=example["corpus"].decode(),
        speaker=example["speaker"].decode(),
        clip_id=example["clip_id"].decode(),
        words=tuple((w.decode(), float(start), float(end)) for w, start, end in spans),
    )


def to_example(clip: Clip) -> dict[str, Any]:
    """The inverse of `parse`: a clip -> the fields that the builder writes."""
    word, start, end = zip(*clip.words, strict=True) if clip.words else ((), (), ())
    return {
        "frames": list(clip.frames),
        "landmarks": clip.landmarks,
        "mfcc": clip.mfcc,
        "transforms": clip.transforms,
        "fps": np.float32(FRAME_RATE),
        "corpus": clip.corpus,
        "speaker": clip.speaker,
        "clip_id": clip.clip_id,
        "words": {
            "word": list(word),
            "start": np.array(start, np.float32),
            "end": np.array(end, np.float32),
        },
    }


def _features(frames):
    """The fields of a record, with `frames` (a TFDS feature) for the pictures."""
    from tensorflow_datasets import features as f

    def block(*shape: int):  # as bytes: read a hundred times faster than as floats
        return f.Tensor(shape=(None, *shape), dtype=np.float32, encoding="bytes")

    return f.FeaturesDict(
        {
            "frames": frames,
            "landmarks": block(NUM_POINTS, 2),
            "mfcc": block(MFCC_SIZE),
            "transforms": block(2, 3),
            "fps": f.Scalar(np.float32),
            "corpus": f.Text(),
            "speaker": f.Text(),
            "clip_id": f.Text(),
            "words": f.Sequence(
                {
                    "word": f.Text(),
                    "start": f.Scalar(np.float32),
                    "end": f.Scalar(np.float32),
                }
            ),
        }
    )


def _stored_features():
    """The fields as other users of the dataset see them: frames are pictures."""
    from tensorflow_datasets import features as f

    shape = (CROP_SIZE, CROP_SIZE, 3)
    return _features(f.Sequence(f.Image(shape=shape, encoding_format="jpeg")))


@functools.cache
def _raw_features():
    """The fields as we read them: frames stay JPEG, and only those used are decoded."""
    from tensorflow_datasets import features as f

    return _features(f.Tensor(shape=(None,), dtype=np.object_))
