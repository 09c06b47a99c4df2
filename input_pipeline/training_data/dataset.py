"""Reads prepared clips, of one corpus or of several together.

    data_dir/atvg_clips/<corpus>/<version>/   what `prepare` makes of one corpus
        atvg_clips-train.array_record-00000-of-00002 ...   the clips, see records.py
        dataset_info.json, features.json
        index.npz                 speaker, name, length ... of every clip
        pca.npz                   mean, components, variance of the training landmarks
        statistics.json  rejects.jsonl  options.json  contact_sheet.png  README.md

Training needs `open_clips` and `open_pca`.  `open_template` says how a photo must be
aligned to look like the clips.  A data_dir may hold several corpora; unless some are
named, those of videos are read: photos that are made to talk are left out.
"""

import bisect
import contextlib
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64

from input_pipeline.clip import Clip, InputError, Pca, first_line
from input_pipeline.faces import landmarks
from input_pipeline.faces.align import indices_of
from input_pipeline.training_data import records
from input_pipeline.training_data.records import STILLS

MOST_COEFFICIENTS = 32  # of the PCA models that are kept
SPLITS = ("train", "validation", "test")
DataDir = str | pathlib.Path


def open_clips(
    data_dir: DataDir, split: str, corpora: Sequence[str] = ()
) -> "Clips | JoinedClips":
    """Opens the clips of a split: `len`, and `clips[i]` -> Clip, in any order.

    data_dir: the one given to `prepare`, or the folder of one of its datasets.
    corpora: whose clips, one after the other; (): of all corpora of videos.
    InputError: see find_datasets; none of them has such a split.
    """
    folders = list(find_datasets(data_dir, corpora).values())
    if len(folders) == 1:
        return Clips(folders[0], split)
    having = [folder for folder in folders if split in splits_of(folder)]
    if not having:
        raise _no_split(
            data_dir, split, {name for f in folders for name in splits_of(f)}
        )
    return JoinedClips([Clips(folder, split) for folder in having])


def open_pca(data_dir: DataDir, num_coefficients: int | None = None) -> Pca:
    """The PCA model of the training landmarks, with K components or all there are.

    Of several corpora of videos it is that of all their landmarks together.
    InputError: see pca_with_variance; or there are fewer components.
    """
    pca, _ = pca_with_variance(data_dir)
    most = pca.components.shape[1]
    if num_coefficients is not None and not 1 <= num_coefficients <= most:
        raise InputError(
            f"num_coefficients={num_coefficients}: the PCA of {data_dir} has {most}; "
            f"ask for 1..{most}"
        )
    return Pca(pca.mean, pca.components[:, :num_coefficients])


def pca_with_variance(data_dir: DataDir) -> tuple[Pca, Float64[np.ndarray, "136"]]:
    """The PCA model of data_dir, with all its components, and the variance along each
    of the 136 directions.

    InputError: see find_datasets; one of several was prepared by an earlier version.
    """
    folders = list(find_datasets(data_dir).values())
    if len(folders) == 1:
        arrays = read_arrays(folders[0], "pca.npz")
        with whole(folders[0]):
            pca = landmarks.checked_pca(arrays["mean"], arrays["components"])
            landmarks.check_array("variance", arrays["variance"], pca.mean.shape)
            return pca, arrays["variance"]
    together = sum_of_moments(folders)
    return landmarks.fit_pca(together, min(MOST_COEFFICIENTS, together.count - 1))


def sum_of_moments(folders: Sequence[pathlib.Path]) -> landmarks.Moments:
    """The moments of the training landmarks of several datasets together."""
    total = landmarks.moments([])
    for folder in folders:
        arrays = read_arrays(folder, "pca.npz")
        if "moments/scatter" not in arrays:
            raise InputError(
                f"{folder}: prepared by an earlier version, which did not keep "
                "what several corpora need to be trained on together; prepare it again"
            )
        with whole(folder):
            fields = landmarks.Moments._fields
            total += landmarks.checked_moments(
                *(arrays[f"moments/{x}"] for x in fields)
            )
    return total


def write_pca(
    path: pathlib.Path,
    batches: Iterable[Float[np.ndarray, "_ 136"]],
    num_coefficients: int,
) -> None:
    """Writes mean f32[L], components f32[L,K], variance f64[L] of landmarks, and their
    moments.  InputError: see landmarks.fit_pca."""
    known = landmarks.moments(batches)
    most = min(num_coefficients, max(known.count - 1, 1))
    pca, variance = landmarks.fit_pca(known, most)
    kept = {f"moments/{name}": x for name, x in known._asdict().items()}
    np.savez(path, variance=variance, **pca._asdict(), **kept)


def open_template(
    data_dir: DataDir, corpora: Sequence[str] = ()
) -> tuple[Float64[np.ndarray, "n 2"], tuple[int, ...]]:
    """The template to which faces were aligned: crop pixels, and indices of the points.

    A photo must be aligned to it (align.Template) to look like the clips.
    InputError: see find_datasets; corpora were aligned to different templates.
    """
    templates = {}
    for name, folder in find_datasets(data_dir, corpora).items():
        with whole(folder):
            found = read_options(folder)["options"]["template"]
            points = np.array(found["points"], np.float64).reshape(-1, 2).tolist()
            templates[name] = {
                "points": points,
                "indices": indices_of(found["indices"]),
            }
    (first, template), *others = templates.items()
    for name, other in others:
        if other != template:
            raise InputError(
                f"{data_dir}: {first} and {name} were aligned to different templates; "
                "prepare one of them again with the other's --template"
            )
    return np.array(template["points"], np.float64), template["indices"]


def read_options(folder: pathlib.Path) -> dict:
    """What a dataset was made with: its options.json.  InputError: it is damaged."""
    with whole(folder):
        options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
        if not isinstance(options, dict):
            raise ValueError("options.json")
        return options


def read_arrays(folder: pathlib.Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz of a dataset.  InputError: it is damaged."""
    with whole(folder), np.load(folder / name) as arrays:
        found = dict(arrays.items())
        if not all(isinstance(x, np.ndarray) for x in found.values()):
            raise ValueError(f"{name} has other things than arrays")
        return found


@contextlib.contextmanager
def whole(folder: pathlib.Path) -> Iterator[None]:
    """Turns whatever reading a dataset's files raises into an InputError: they are
    damaged."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # numpy, TFDS and ArrayRecord raise many kinds
        reason = first_line(error)
        raise InputError(
            f"{folder}: damaged dataset ({type(error).__name__}: {reason}); prepare it "
            "again, or copy it again"
        ) from error


# --- which datasets ---


def find_datasets(
    data_dir: DataDir, corpora: Sequence[str] = ()
) -> dict[str, pathlib.Path]:
    """{corpus: its dataset's folder}, sorted, of what data_dir is or holds.

    corpora: those that are wanted.  (): all of videos, or, where there is none, all.
    InputError: there is no dataset, none of a wanted corpus, or there are two of one.
    """
    found = all_datasets(data_dir)
    if missing := sorted(set(corpora) - set(found)):
        raise InputError(
            f"{data_dir}: no {', '.join(missing)}; it holds {', '.join(found)}; "
            "prepare the corpus first, or leave it out"
        )
    if corpora:
        return {name: found[name] for name in sorted(corpora)}
    videos = {name: path for name, path in found.items() if name not in STILLS}
    return videos or found


def all_datasets(data_dir: DataDir) -> dict[str, pathlib.Path]:
    """{corpus: folder} of every dataset that data_dir is or holds, sorted by name.

    InputError: there is none; see datasets_if_any.
    """
    found = datasets_if_any(data_dir)
    if not found:
        raise InputError(
            f"{data_dir}: no prepared dataset; run `python main.py prepare` first"
        )
    return found


def datasets_if_any(data_dir: DataDir) -> dict[str, pathlib.Path]:
    """As all_datasets, but empty where there is none.

    InputError: there are two of one corpus, or one is damaged.
    """
    data_dir = pathlib.Path(data_dir).expanduser()
    if (data_dir / "index.npz").is_file():
        return {corpus_of(data_dir): data_dir}
    found = {}
    for path in sorted(
        path.parent
        for depth in ("*", "*/*", "*/*/*")
        for path in data_dir.glob(f"{depth}/index.npz")
        if "work" not in path.relative_to(data_dir).parts
    ):
        name = corpus_of(path)
        if name in found:
            raise InputError(
                f"{data_dir}: two datasets of {name}, {found[name]} and {path}; "
                "give the folder of one of them"
            )
        found[name] = path
    return dict(sorted(found.items()))


def corpus_of(folder: pathlib.Path) -> str:
    """The corpus that a dataset was made of."""
    path = folder / "options.json"
    flags = read_options(folder).get("flags", {}) if path.is_file() else {}
    with whole(folder):
        return str(flags.get("corpus", folder.resolve().parent.name))


def splits_of(folder: pathlib.Path) -> list[str]:
    """The splits that a dataset has."""
    index = read_arrays(folder, "index.npz")
    return [name for name in SPLITS if f"{name}/lengths" in index]


def _no_split(place: DataDir, split: str, known) -> InputError:
    names = [name for name in SPLITS if name in known]
    return InputError(
        f"{place}: no split {split!r}; it has {', '.join(names)}; "
        "prepare more files, or with another --split_rule"
    )


# --- the clips ---


class Clips(Sequence):
    """The clips of one split of one corpus.  A clip is read when it is indexed.

    speakers, clip_ids, corpora: list[str], of all clips.  lengths: i64[n], their frames
    T.  columns: what else the index says of every clip, as sync's lags, by name.
    It can be pickled, for data workers; the copy opens the shards again.
    """

    def __init__(self, folder: pathlib.Path, split: str):
        self.folder, self.split = folder, split
        index = read_arrays(folder, "index.npz")
        if f"{split}/lengths" not in index:
            raise _no_split(folder, split, splits_of(folder))
        columns = {
            name.removeprefix(f"{split}/"): values
            for name, values in index.items()
            if name.startswith(f"{split}/")
        }
        with whole(folder):
            self.lengths = columns.pop("lengths")
            self.speakers = columns.pop("speakers").tolist()
            self.clip_ids = columns.pop("clip_ids").tolist()
            _check_index(self.lengths, self.speakers, self.clip_ids)
        self.corpora = [corpus_of(folder)] * len(self.lengths)
        self.columns: Mapping[str, np.ndarray] = columns
        self._opened = None
        records.get_ready()

    def __getstate__(self):
        return self.__dict__ | {"_opened": None}

    def __setstate__(self, state):
        self.__dict__ |= state
        records.get_ready()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int | np.integer) -> Clip:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        number = int(i) % len(self)
        try:
            if self._opened is None:
                self._opened = records.open_records(self.folder, self.split)
            return records.parse(self._opened[number])
        except Exception as error:  # TFDS and ArrayRecord raise many kinds
            reason = first_line(error)
            raise InputError(
                f"{self.folder}: {self.clip_ids[number]}, clip {number} of the split "
                f"{self.split}, cannot be read ({reason}); prepare it again"
            ) from error


def _check_index(lengths: np.ndarray, speakers: list, clip_ids: list) -> None:
    """ValueError: they are not what index.npz holds of a split."""
    if not lengths.ndim == 1 == len({len(x) for x in (lengths, speakers, clip_ids)}):
        raise ValueError("index.npz: columns of different lengths")
    if lengths.dtype.kind not in "iu" or (len(lengths) and lengths.min() < 1):
        raise ValueError("index.npz: lengths that are no numbers of frames")
    if not all(isinstance(name, str) for name in [*speakers, *clip_ids]):
        raise ValueError("index.npz: names that are no text")


class JoinedClips(Sequence):
    """The clips of several corpora, one after the other; like Clips otherwise."""

    def __init__(self, parts: Sequence[Clips]):
        self.parts = list(parts)
        self.lengths = np.concatenate([part.lengths for part in parts])
        self.speakers, self.clip_ids, self.corpora = (
            [name for part in parts for name in getattr(part, field)]
            for field in ("speakers", "clip_ids", "corpora")
        )
        self._starts = list(itertools.accumulate(map(len, parts), initial=0))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int | np.integer) -> Clip:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i = int(i) % len(self)
        which = bisect.bisect_right(self._starts, i) - 1
        return self.parts[which][i - self._starts[which]]
