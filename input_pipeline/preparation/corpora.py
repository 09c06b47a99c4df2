"""Lists the files of a corpus, with their speakers, splits and word timings.

The order and the splits depend on the files' names, and on GRID's .align files, but
never on the order in which the file system lists them.
"""

import fnmatch
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from input_pipeline.clip import FRAME_RATE, InputError
from input_pipeline.preparation import listing
from input_pipeline.preparation.listing import PHOTOS, VIDEOS, with_suffix

Word = tuple[str, float, float]  # the word, and the seconds of its start and end


class Source(NamedTuple):
    """A video file to prepare.

    path: of the file.  name: the path within the corpus, with slashes.
    clip_id: unique in the corpus.  split: "train", "validation" or "test".
    words: if the corpus has word timings, in seconds from the file's start.
    """

    path: str
    name: str
    corpus: str
    clip_id: str
    speaker: str
    split: str
    words: tuple[Word, ...] = ()


def walk(
    corpus: str,
    source: str | os.PathLike,
    split_rule: str = "",
    test_speakers: Sequence[str] = (),
    validation_clips: Sequence[str] = (),
) -> list[Source]:
    """Finds all files of the corpus in the folder `source`, sorted by clip_id.

    See survey, which also tells what was left out.
    """
    return survey(corpus, source, split_rule, test_speakers, validation_clips)[0]


def survey(
    corpus: str,
    source: str | os.PathLike,
    split_rule: str = "",
    test_speakers: Sequence[str] = (),
    validation_clips: Sequence[str] = (),
) -> tuple[list[Source], dict[str, int]]:
    """All files of the corpus in the folder `source`, sorted by clip_id, and how many
    other files it has, by suffix.

    corpus: "grid", "lrw", "folder" or "portraits".  split_rule: one of the corpus's
    RULES; "" means the first.  For by_speaker: test_speakers, the speakers that are
    held out; validation_clips, patterns of clip_ids such as s1/p*.
    InputError: an unknown corpus, rule or speaker; a pattern that fits no clip; no such
    folder; no files in it.
    """
    if corpus not in CORPORA:
        raise InputError(f"corpus={corpus!r}; choose one of {', '.join(CORPORA)}")
    folder = pathlib.Path(source).expanduser()
    if not folder.is_dir():
        raise InputError(f"source={source}: no such folder; give the corpus's folder")
    rules, read, layout = RULES[corpus], CORPORA[corpus], LAYOUT[corpus]
    rule = split_rule or rules[0]
    if rule not in rules:
        raise InputError(
            f"split_rule={rule}: {corpus} has {', '.join(rules)}; choose one of them"
        )
    for name, given in (
        ("test_speakers", test_speakers),
        ("validation_clips", validation_clips),
    ):
        if given and rule != "by_speaker":
            raise InputError(
                f"{name}={','.join(given)} with split_rule={rule}: only by_speaker "
                "holds them out; leave out one of the flags"
            )
    names = listing.files(folder.resolve())
    found = read(folder.resolve(), names)
    if not found:
        raise InputError(f"source={source}: nothing found; looked for {layout}")
    found = sorted(found, key=lambda one: one.clip_id)
    held_out = HeldOut(test_speakers, validation_clips)
    return SPLITTERS[rule](found, held_out), listing.others(names, USED[corpus])


class HeldOut(NamedTuple):
    """What by_speaker does not train on, see survey."""

    test_speakers: Sequence[str] = ()
    validation_clips: Sequence[str] = ()


# --- GRID ---


def _grid(folder: pathlib.Path, names: list[str]) -> list[Source]:
    """The speaker is the innermost folder named s1, s2, ... that the file is in.

    Of the same clip in two places (GRID offers two qualities) the larger file is taken.
    """
    aligned = {
        (_grid_speaker(folder, path), path.stem): path
        for path in map(pathlib.PurePosixPath, names)
        if path.suffix == ".align"
    }
    found = {}
    for path in with_suffix(names, VIDEOS):
        speaker = _grid_speaker(folder, path)
        clip_id = f"{speaker}/{path.stem}"
        align = aligned.get((speaker, path.stem))
        words = read_align(folder / align) if align else ()
        one = Source(str(folder / path), str(path), "grid", clip_id, speaker, "", words)
        before = found.get(clip_id)
        if before is None or size(before) < size(one):
            found[clip_id] = one
    return list(found.values())


def _grid_speaker(folder: pathlib.Path, path: pathlib.PurePosixPath) -> str:
    parts = [folder.name, *path.parts[:-1]]
    speakers = [part for part in parts if re.fullmatch(r"s\d+", part)]
    return speakers[-1] if speakers else parts[-1]


def size(source: Source) -> int:
    """The file's size in bytes; -1 for a broken link."""
    try:
        return os.path.getsize(source.path)
    except OSError:
        return -1


def read_align(path: str | os.PathLike) -> tuple[Word, ...]:
    """Reads GRID's word timings: lines "first last word", in 1/25000 s; no silences.

    InputError: a line does not have this form.
    """
    words = []
    text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            first, last, word = line.split()
            span = int(first) / 25_000, int(last) / 25_000
        except ValueError as error:
            raise InputError(
                f"{path}: line {number} is {line.strip()!r}, must be FIRST LAST WORD; "
                "correct it, or remove the file to do without word timings"
            ) from error
        if word not in ("sil", "sp"):
            words.append((word, *span))
    return tuple(words)


# --- LRW ---

LRW_TRAINING_CLIPS = 488_766
LRW_SPLITS = {"train": "train", "val": "validation", "test": "test"}
LRW_MIDDLE = 29 / FRAME_RATE / 2  # seconds: the word is in the middle of the 29 frames


def _lrw(folder: pathlib.Path, names: list[str]) -> list[Source]:
    """WORD/{train,val,test}/WORD_00001.mp4; the speakers are not known."""
    found = []
    for path in with_suffix(names, VIDEOS):
        if len(path.parts) < 3 or path.parts[-2] not in LRW_SPLITS:
            continue
        word, split = path.parts[-3], LRW_SPLITS[path.parts[-2]]
        clip_id = f"{word}/{path.parts[-2]}/{path.stem}"
        half = _lrw_seconds(folder / path.with_suffix(".txt")) / 2
        words = ((word, LRW_MIDDLE - half, LRW_MIDDLE + half),)
        found.append(
            Source(
                str(folder / path), str(path), "lrw", clip_id, "unknown", split, words
            )
        )
    return found


def _lrw_seconds(path: pathlib.Path) -> float:
    """The word's duration from its .txt; without one, the whole clip's."""
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        match = re.search(r"Duration:\s*([0-9.]+)", text)
        if match:
            return min(float(match[1]), 2 * LRW_MIDDLE)
    return 2 * LRW_MIDDLE


# --- any folder ---


def _folder(folder: pathlib.Path, names: list[str]) -> list[Source]:
    """Any nesting; the speaker is the name of the folder that the file is in."""
    return [
        Source(
            path=str(folder / path),
            name=str(path),
            corpus="folder",
            clip_id=str(path),
            speaker=path.parts[-2] if len(path.parts) > 1 else folder.name,
            split="",
        )
        for path in with_suffix(names, VIDEOS)
    ]


# --- photos ---


def _portraits(folder: pathlib.Path, names: list[str]) -> list[Source]:
    """Any nesting; the person is the folder that the photo is in, or, for a photo that
    is in none, the photo's name."""
    return [
        Source(
            path=str(folder / path),
            name=str(path),
            corpus="portraits",
            clip_id=str(path),
            speaker=path.parts[-2] if len(path.parts) > 1 else path.stem,
            split="",
        )
        for path in with_suffix(names, PHOTOS)
    ]


# --- splits ---

GRID_TEST_SPEAKERS = ("s20", "s23", "s32", "s3")
MANY = 6  # a speaker with this many clips, or more, gives the last two to validation


def _by_speaker(found: list[Source], held_out: HeldOut) -> list[Source]:
    """Test speakers are never trained on; the others give a few clips to validation.

    Test: the speakers listed; else GRID_TEST_SPEAKERS, as far as they exist; else the
    last tenth of the speakers, at least one if there are several.  Validation: the
    clips that fit one of the patterns, and the last two clips, by name, of every other
    speaker with six or more.
    """
    speakers = sorted({one.speaker for one in found})
    unknown = sorted(set(held_out.test_speakers) - set(speakers))
    if unknown:
        raise InputError(
            f"test_speakers: no clips of {', '.join(unknown)}; "
            f"choose from {', '.join(speakers)}"
        )
    test = set(held_out.test_speakers)
    if not test and found[0].corpus == "grid":
        test = set(GRID_TEST_SPEAKERS) & set(speakers)
    if not test and len(speakers) > 1:
        test = set(speakers[-max(len(speakers) // 10, 1) :])
    clips = {speaker: [] for speaker in speakers}
    for one in found:
        clips[one.speaker].append(one.clip_id)
    chosen = _fitting(found, held_out.validation_clips)
    validation = set(chosen)
    for ids in clips.values():
        if len(ids) >= MANY and not chosen.intersection(ids):
            validation |= set(ids[-2:])

    def split(one: Source) -> str:
        if one.speaker in test:
            return "test"
        return "validation" if one.clip_id in validation else "train"

    return [one._replace(split=split(one)) for one in found]


def _fitting(found: list[Source], patterns: Sequence[str]) -> set[str]:
    """The clip_ids that fit a pattern.  InputError: a pattern fits none."""
    ids = [one.clip_id for one in found]
    fitting = set()
    for pattern in patterns:
        some = fnmatch.filter(ids, pattern)
        if not some:
            raise InputError(
                f"validation_clips: no clip is called {pattern}; they are called as "
                f"{ids[0]}"
            )
        fitting |= set(some)
    return fitting


def _by_sentence(found: list[Source], _: HeldOut) -> list[Source]:
    """No sentence is in two splits; speakers may be in all of them.

    A clip's sentence is that of its .align file, else what its name encodes, else its
    name.
    """

    def sentence(one: Source) -> str:
        return " ".join(w for w, _, _ in one.words) or spoken(one.clip_id)

    return _by_hash(found, sentence)


GRID_WORDS = (
    dict(b="bin", l="lay", p="place", s="set"),
    dict(b="blue", g="green", r="red", w="white"),
    dict(a="at", b="by", i="in", w="with"),
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},  # GRID has no w
    {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four"}
    | {"5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine"},
    dict(a="again", n="now", p="please", s="soon"),
)


def spoken(clip_id: str) -> str:
    """The sentence that a name of GRID's form, such as bbaf2n, stands for."""
    name = clip_id.split("/")[-1]
    if len(name) != 6 or any(
        c not in words for c, words in zip(name, GRID_WORDS, strict=True)
    ):
        return name
    return " ".join(words[c] for c, words in zip(name, GRID_WORDS, strict=True))


def _by_clip(found: list[Source], _: HeldOut) -> list[Source]:
    """A tenth of the files is for validation, a tenth for test; of three, one each."""
    return _by_hash(found, lambda one: one.name)


def _by_hash(found: list[Source], group: Callable[[Source], str]) -> list[Source]:
    """Sorts groups of files by a hash of their names; the first tenths are held out."""
    groups = sorted(
        {group(one) for one in found},
        key=lambda name: hashlib.sha256(name.encode()).hexdigest(),
    )
    tenth = max(len(groups) // 10, 1) if len(groups) >= 3 else 0
    split = dict.fromkeys(groups, "train")
    split |= dict.fromkeys(groups[:tenth], "validation")
    split |= dict.fromkeys(groups[tenth : 2 * tenth], "test")
    return [one._replace(split=split[group(one)]) for one in found]


def _by_name(found: list[Source], _: HeldOut) -> list[Source]:
    """Whose name hashes into a fixed tenth is for validation: in every folder the same
    people, whoever else is in it."""

    def split(one: Source) -> str:
        number = int(hashlib.sha256(one.speaker.encode()).hexdigest(), 16)
        return "train" if number % 10 else "validation"

    return [one._replace(split=split(one)) for one in found]


def _own(found: list[Source], _: HeldOut) -> list[Source]:
    """The splits that the corpus itself defines."""
    return found


CORPORA = {"grid": _grid, "lrw": _lrw, "folder": _folder, "portraits": _portraits}
LAYOUT = {
    "grid": f"*{' *'.join(VIDEOS)} in folders s1, s2, ...",
    "lrw": "WORD/train, WORD/val, WORD/test with WORD_00001.mp4 ... in them",
    "folder": f"*{' *'.join(VIDEOS)} at any depth",
    "portraits": f"*{' *'.join(PHOTOS)} at any depth",
}
USED = {
    "grid": (*VIDEOS, ".align"),
    "lrw": (*VIDEOS, ".txt"),
    "folder": VIDEOS,
    "portraits": PHOTOS,
}
RULES = {
    "grid": ("by_speaker", "by_sentence"),
    "lrw": ("own",),
    "folder": ("by_clip", "by_speaker"),
    "portraits": ("by_name", "by_speaker"),
}
SPLITTERS: dict[str, Callable[[list[Source], HeldOut], list[Source]]] = {
    "by_speaker": _by_speaker,
    "by_sentence": _by_sentence,
    "by_clip": _by_clip,
    "by_name": _by_name,
    "own": _own,
}
