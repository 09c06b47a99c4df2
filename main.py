"""A face photo and a speech recording become a talking-face video.

    python main.py prepare --corpus=grid --source=VIDEOS --data_dir=DATA
    python main.py inspect --data_dir=DATA --out=FOLDER
    python main.py import_torch --at_net=atnet.pth --vg_net=generator.pth \\
        --basics=ATVGnet/basics --out=bundles/authors
    python main.py animate --bundle=bundles/authors --image=face.jpg \\
        --audio=speech.wav --out=talking.mp4

Bad input ends with one line on standard error and exit code 2.
"""

import csv
import os
import pathlib
import sys
import warnings

from absl import flags
from ml_collections import config_flags

from input_pipeline.clip import InputError

OUT = flags.DEFINE_string("out", None, "what to write: a bundle's folder, an .mp4")
AT_NET = flags.DEFINE_string("at_net", None, "import_torch: AT-net's .pth or .npz")
VG_NET = flags.DEFINE_string("vg_net", None, "import_torch: VG-net's .pth or .npz")
BASICS = flags.DEFINE_string("basics", None, "import_torch: the folder ATVGnet/basics")
BUNDLE = flags.DEFINE_string("bundle", None, "animate: the bundle's folder")
IMAGE = flags.DEFINE_string("image", None, "animate: a photo with a face")
AUDIO = flags.DEFINE_string("audio", None, "animate: a recording of speech")
FACE = flags.DEFINE_string(
    "face", "largest", "animate: which face: largest, or 0, 1, ... from the left"
)
FULL_FRAME = flags.DEFINE_bool(
    "full_frame", False, "animate: put the face back into the whole picture"
)
PANELS = flags.DEFINE_bool(
    "panels",
    False,
    "animate: also write OUT_panels.mp4: landmarks, attention, colour, result",
)
LANDMARKS_OUT = flags.DEFINE_string(
    "landmarks_out", None, "animate: also write the landmarks, f32[T,68,2], to an .npy"
)
BATCH = flags.DEFINE_string(
    "batch", None, "animate: a CSV of image,audio,out rows instead of the three flags"
)


CORPUS = flags.DEFINE_enum("corpus", None, ["grid", "lrw", "folder"], "prepare: what")
SOURCE = flags.DEFINE_string("source", None, "prepare: the folder with the videos")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "prepare, inspect, train: where datasets are kept"
)
WORKERS = flags.DEFINE_integer("workers", 0, "prepare: processes; 0 for one a core")
SPLIT_RULE = flags.DEFINE_string(
    "split_rule", "", "prepare: by_speaker, by_sentence (GRID), by_clip (folder)"
)
TEST_SPEAKERS = flags.DEFINE_list(
    "test_speakers", [], "prepare: held out by split_rule=by_speaker, as s3,s20"
)
MAX_SECONDS = flags.DEFINE_float(
    "max_seconds", 10.0, "prepare: a folder's longer videos are cut", lower_bound=1.0
)
SEVERAL_FACES = flags.DEFINE_enum(
    "several_faces", "reject", ["reject", "largest"], "prepare: which to follow"
)
TEMPLATE = flags.DEFINE_enum(
    "template",
    "default",
    ["default", "authors"],
    "prepare: where the face lies in the crop; the authors' tighter one with --basics",
)
LIMIT = flags.DEFINE_integer("limit", 0, "prepare: only the first files, for a trial")
SPLIT = flags.DEFINE_string("split", "train", "inspect: which clips")
INDEX = flags.DEFINE_integer("index", 0, "inspect: which of them to plot")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "train: an experiment, such as configs/vg_small.py"
)
WORKDIR = flags.DEFINE_string("workdir", None, "train: the run's folder; resumes there")
PROFILE = flags.DEFINE_string("profile", "", "train: trace these steps, as 10:15")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "train: host:port of the first of several processes"
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "train: with --coordinator")
PROCESS_ID = flags.DEFINE_integer("process_id", 0, "train: with --coordinator")
RUNNER = flags.DEFINE_enum(
    "runner", "local", ["local", "beam"], "prepare: processes here, or Apache Beam"
)
BEAM_OPTIONS = flags.DEFINE_list(
    "beam_options", [], "prepare: Beam's own, as runner=FlinkRunner,parallelism=64"
)


def prepare() -> int:
    """A folder of talking-face videos becomes a dataset."""
    require(CORPUS, SOURCE, DATA_DIR)
    from input_pipeline import align, authors, recording
    from input_pipeline.prepare import prepare

    template = align.DEFAULT_TEMPLATE
    if TEMPLATE.value == "authors":
        require(BASICS)
        basics = authors.read_basics(BASICS.value)
        template = align.authors_template(basics["base_68"])
    prepare(
        *flag_values(CORPUS, SOURCE, DATA_DIR),
        recording.Options(MAX_SECONDS.value, SEVERAL_FACES.value, template),
        split_rule=SPLIT_RULE.value,
        test_speakers=TEST_SPEAKERS.value,
        limit=LIMIT.value,
        num_workers=WORKERS.value,
        runner=RUNNER.value,
        beam_options=BEAM_OPTIONS.value,
    )
    return 0


def train() -> int:
    """An experiment of configs/, from where its workdir has got to."""
    require(WORKDIR)
    if CONFIG.value is None:
        raise InputError("--config missing; give one of configs/*.py")
    first, last = profile_steps(PROFILE.value)
    connect_processes()
    cache_compilations()
    import jax

    from input_pipeline import dataset, loader, synthetic
    from jax_atvg import config, train

    experiment = CONFIG.value
    if not isinstance(experiment, config.Experiment):  # a file that failed
        raise InputError(f"--config: {config_error(experiment)}; see configs/")
    config.validate(experiment)
    data = experiment.data
    if data.synthetic:
        clips = held_out = synthetic.SyntheticClips(data.synthetic, 32)
        pca = clips.pca(data.num_coefficients)
    else:
        require(DATA_DIR)
        clips, held_out = (
            dataset.open_clips(DATA_DIR.value, split)
            for split in ("train", "validation")
        )
        pca = dataset.open_pca(DATA_DIR.value, data.num_coefficients)
    at = experiment.network == "at"
    place = {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
        "num_threads": data.num_threads,
    }
    batches = loader.training_batches(
        clips,
        "at" if at else "vg",
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        pca=pca,
        num_frames=data.num_frames,
        balance=data.balance,
        augment=data.augment,
        num_workers=data.num_workers,
        **place,
    )

    def validation():
        return loader.evaluation_batches(
            held_out,
            batch_size=jax.device_count(),
            pca=pca if at else None,
            frames=not at,
            limit=data.validation_clips,
            **place,
        )

    train.train(
        experiment,
        WORKDIR.value,
        batches,
        pca=pca,
        validation=validation,
        profile=(first, last) if last else None,
    )
    return 0


def import_torch() -> int:
    """The authors' checkpoints become a bundle."""
    require(AT_NET, VG_NET, BASICS, OUT)
    from input_pipeline import authors
    from jax_atvg.bundle import Bundle, save_bundle
    from jax_atvg.models.at_net import ATNet
    from jax_atvg.models.vg_net import VGNet
    from jax_atvg.torch_import import convert, read_state_dict

    settings = authors.bundle_settings(authors.read_basics(BASICS.value))
    variables = {
        flag.name: convert(flag.name, read_state_dict(flag.value))
        for flag in (AT_NET, VG_NET)
    }
    # Their recurrence runs over the batch; the demo has one clip in it.
    networks = ATNet(), VGNet(recurrence="batch")
    save_bundle(Bundle(*networks, variables, **settings), OUT.value)
    print(f"wrote {OUT.value}")
    return 0


def animate() -> int:
    """A photo and a recording, or a list of them, become videos."""
    require(BUNDLE, BATCH) if BATCH.value else require(BUNDLE, IMAGE, AUDIO, OUT)
    if BATCH.value:
        refuse_beside_batch(IMAGE, AUDIO, OUT, LANDMARKS_OUT)
    jobs = read_jobs(BATCH.value) if BATCH.value else [flag_values(IMAGE, AUDIO, OUT)]
    cache_compilations()
    from jax_atvg.animate import animate_file
    from jax_atvg.bundle import load_bundle

    bundle, failed, outs = load_bundle(BUNDLE.value), 0, set()
    for number, job in enumerate(jobs, 1):
        try:
            image, audio, out = check_job(job, f"{BATCH.value}: job {number}", outs)
            written = animate_file(
                image,
                audio,
                out,
                bundle,
                face=FACE.value,
                full_frame=FULL_FRAME.value,
                panels=PANELS.value,
                landmarks_out=LANDMARKS_OUT.value,
                progress=True,
            )
            print("wrote", *written)
        except InputError as error:
            complain(error)
            failed += 1
    if BATCH.value:
        print(f"{len(jobs) - failed} of {len(jobs)} videos written")
    return 2 if failed else 0


def inspect() -> int:
    """What a prepared dataset holds: a table, a contact sheet, an example's plot."""
    require(DATA_DIR)
    from input_pipeline import inspection

    out = OUT.value or inspection.default_folder(DATA_DIR.value)
    print(inspection.inspect(DATA_DIR.value, SPLIT.value, INDEX.value, out))
    print(f"wrote {out}/contact_sheet.png {out}/example.png")
    return 0


VERBS = {
    "train": train,
    "prepare": prepare,
    "inspect": inspect,
    "import_torch": import_torch,
    "animate": animate,
}


def read_jobs(path: str) -> list[list[str]]:
    """Rows image,audio,out of a CSV file; a first row of just these words is a header.

    InputError: no such file, no rows.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # Excel's mark
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a readable list ({error}); give a CSV"
        ) from error
    rows = [[field.strip() for field in row] for row in rows]
    rows = rows[1:] if rows[:1] == [["image", "audio", "out"]] else rows
    if not rows:
        raise InputError(f"{path}: no rows; give image,audio,out, one video a row")
    return rows


def check_job(job: list[str], name: str, outs: set[str]) -> list[str]:
    """image, audio, out; adds out to those taken.  InputError: not these three."""
    if len(job) != 3 or not all(job):
        raise InputError(f"{name} is {','.join(job)}; give image,audio,out")
    if os.path.abspath(job[2]) in outs:
        raise InputError(f"{name} writes {job[2]} again; give every job its own")
    outs.add(os.path.abspath(job[2]))
    return job


def flag_values(*holders: flags.FlagHolder) -> list[str]:
    return [holder.value for holder in holders]


def refuse_beside_batch(*holders: flags.FlagHolder) -> None:
    """InputError that names flags of a single video."""
    given = [f"--{holder.name}" for holder in holders if holder.value]
    if given:
        raise InputError(
            f"{' '.join(given)} beside --batch: the list says it; leave one of them out"
        )


def require(*holders: flags.FlagHolder) -> None:
    """InputError that names the flags left out."""
    missing = [f"--{holder.name}" for holder in holders if not holder.value]
    if missing:
        raise InputError(
            f"{' '.join(missing)} missing; see `python main.py --help` for all flags"
        )


def config_error(failed) -> str:
    """What ml_collections kept to raise when the config is used."""
    try:
        failed.network  # noqa: B018
    except Exception as error:
        return " ".join(str(error).split())
    return "get_config() returned no Experiment"


def profile_steps(text: str) -> tuple[int, int]:
    """ "10:15" -> (10, 15); "" -> (0, 0).  InputError: anything else."""
    if not text:
        return 0, 0
    try:
        first, last = map(int, text.split(":"))
    except ValueError:
        first = last = -1
    if not 0 <= first < last:
        raise InputError(f"--profile={text}: give the first and last step, as 10:15")
    return first, last


def connect_processes() -> None:
    """Joins the other processes of the run, where there are any."""
    if not COORDINATOR.value:
        return
    import jax

    jax.distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)


def cache_compilations() -> None:
    """A second start takes compiled programs from the user's cache folder."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home) / "jax_atvg"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # no home that can be written: every start compiles
        jax.config.update("jax_compilation_cache_dir", str(folder))


def complain(error: Exception | str) -> None:
    print("error:", " ".join(str(error).split("\n")), file=sys.stderr)


def main(arguments: list[str]) -> int:
    """The exit code: 0, 2 for bad input, 130 when interrupted."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    if {"--help", "-h"} & set(arguments):
        module = flags.FLAGS.find_module_defining_flag(OUT.name)
        print(__doc__, flags.FLAGS.module_help(module), sep="\n")
        return 0
    try:
        try:
            words = flags.FLAGS(arguments)[1:]
        except KeyError as error:  # of --config.NAME
            raise InputError(f"{error.args[0]}; see jax_atvg/config.py") from error
        if len(words) != 1 or words[0] not in VERBS:
            raise InputError(
                f"{' '.join(words) or 'nothing'} asked for; say one of "
                f"{' '.join(VERBS)}, or --help"
            )
        return VERBS[words[0]]()
    except (InputError, flags.Error) as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        complain("interrupted; what was unfinished is removed")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv))
