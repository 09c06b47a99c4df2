"""The records in which clips are stored: a TFDS dataset in ArrayRecord, no TensorFlow.

`write_shards` writes them, `open_records` and `parse` read them.
"""

import contextlib
import functools
import io
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.clip import CROP_SIZE, FRAME_RATE, MFCC_SIZE, NUM_POINTS, Clip

NAME = "atvg_clips"
VERSION = "1.0.0"  # of the records; raise it when what a clip holds changes
CORPORA = {
    "grid": "GRID: sentences of fixed form (Cooke et al., JASA 120(5), 2006)",
    "lrw": "LRW: single words from television (Chung and Zisserman, ACCV 2016)",
    "folder": "a folder of talking-face videos",
    "portraits": "photos whose lips are moved by geometry, as other clips' lips move",
}
STILLS = ("portraits",)  # corpora of photos: their lips never moved by themselves


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


def get_ready() -> None:
    """Imports what reading needs, before several threads read at once: each would
    import it, and modules that TFDS imports lazily can then wait for each other for
    ever (etils' lock against Python's)."""
    import tensorflow_datasets.core.data_sources.array_record  # noqa: F401

    _raw_features()


def open_records(folder: pathlib.Path, split: str) -> Sequence[bytes]:
    """The records of a split.  ValueError: dataset_info.json has none, or not the
    split; TFDS and ArrayRecord raise many other kinds."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    if not builder.info.splits[split].num_examples:  # of which TFDS would only warn
        raise ValueError(f"dataset_info.json: no examples of the split {split}")
    return builder.as_data_source(
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
