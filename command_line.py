"""The flags of main.py, and what its verbs share: lists, checks, complaints."""

import csv
import ctypes
import os
import pathlib
import resource
import sys

from absl import flags
from ml_collections import config_flags

from input_pipeline.clip import InputError

OUT = flags.DEFINE_string("out", None, "what to write: a bundle's folder, an .mp4")
AT_NET = flags.DEFINE_string("at_net", None, "import_torch: AT-net's .pth or .npz")
VG_NET = flags.DEFINE_string("vg_net", None, "import_torch: VG-net's .pth or .npz")
BASICS = flags.DEFINE_string("basics", None, "import_torch: the folder ATVGnet/basics")
DEFAULT_BUNDLE = pathlib.Path(__file__).resolve().parent / "default_model" / "bundle"
BUNDLE = flags.DEFINE_string(
    "bundle",
    str(DEFAULT_BUNDLE),
    "animate, evaluate: the bundle's folder; unless given, the one in default_model/",
)
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
    "data_dir",
    None,
    "prepare, inspect, train, export, evaluate: where datasets are kept",
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
    "prepare, export: where the face lies in the crop; the authors' with --basics",
)
LIMIT = flags.DEFINE_integer(
    "limit", 0, "prepare: only the first files; evaluate: so many clips"
)
SPLIT = flags.DEFINE_string(
    "split", None, "which clips; inspect: train, evaluate: validation unless given"
)
SPEAKERS = flags.DEFINE_list("speakers", [], "evaluate: only their clips, as s1,s2")
LANDMARKS_ONLY = flags.DEFINE_bool(
    "landmarks_only", False, "evaluate: AT-net alone, no frames: seconds, not minutes"
)
INDEX = flags.DEFINE_integer("index", 0, "inspect: which of them to plot")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "train, compile: an experiment, such as configs/vg_small.py"
)
TOPOLOGY = flags.DEFINE_string(
    "topology", "", "compile: a TPU slice, as v5e:16x16; the devices here unless given"
)
BATCH_PER_DEVICE = flags.DEFINE_integer(
    "batch_per_device",
    0,
    "compile: clips a step and device; the config's batch_size unless given",
    lower_bound=0,
)
FIT = flags.DEFINE_bool("fit", False, "compile: find the largest batch that fits")
WORKDIR = flags.DEFINE_string("workdir", None, "train: the run's folder; resumes there")
PROFILE = flags.DEFINE_string("profile", "", "train: trace these steps, as 10:15")
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    "auto",
    "train: host:port of the first of several processes; auto: as a TPU pod or SLURM "
    "says; none: this process is alone",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "train: with --coordinator")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "train: with --coordinator")
PEER_TIMEOUT = flags.DEFINE_integer(
    "peer_timeout",
    100,
    "train: seconds after which a process that is silent, or does not come, is lost",
    lower_bound=1,
)
AT = flags.DEFINE_list(
    "at", None, "export: the workdir that AT-net was trained in; the mean of several"
)
VG = flags.DEFINE_string("vg", None, "export: the workdir of VG-net")
CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["best", "newest"], "export: of both runs; best: validation"
)
FORMAT = flags.DEFINE_enum(
    "format",
    "bundle",
    ["bundle", "stablehlo"],
    "export: stablehlo adds programs that need jax alone",
)
HALF = flags.DEFINE_bool("half", False, "export: weights in float16")
PROTOCOL = flags.DEFINE_string(
    "protocol", "true", "evaluate: atvg-compat adds the authors' definitions"
)
RUNNER = flags.DEFINE_enum(
    "runner", "local", ["local", "beam"], "prepare: processes here, or Apache Beam"
)
BEAM_OPTIONS = flags.DEFINE_list(
    "beam_options", [], "prepare: Beam's own, as runner=FlinkRunner,parallelism=64"
)


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


def chosen_experiment():
    """--config's.  InputError: a file that failed, a value out of its range."""
    from jax_atvg.training import config

    experiment = CONFIG.value
    if not isinstance(experiment, config.Experiment):
        raise InputError(f"--config: {config_error(experiment)}; see configs/")
    config.validate(experiment)
    return experiment


def chosen_template():
    """Where --template puts the face in the crop."""
    from input_pipeline.faces import align, authors

    if TEMPLATE.value == "default":
        return align.DEFAULT_TEMPLATE
    require(BASICS)
    return align.authors_template(authors.read_basics(BASICS.value)["base_68"])


def calibrated_boost(at):
    """w of AT-net's run on the validation clips, printed; None (w = 1) without clips,
    or where that puts the mouth nearer to the truth."""
    from input_pipeline.training_data import dataset, loader, synthetic
    from jax_atvg.training import export

    if DATA_DIR.value:
        clips = dataset.open_clips(DATA_DIR.value, "validation")
    elif at.experiment.data.synthetic:
        clips = synthetic.SyntheticClips(at.experiment.data.synthetic, 32)
    else:
        print("boost w: 1, not calibrated; give --data_dir to calibrate it")
        return None
    batches = loader.evaluation_batches(clips, batch_size=4, pca=at.pca, frames=False)
    predicted, true = export.coefficients(at, batches)
    w = export.calibrate(predicted, true)
    print(f"boost w: {' '.join(f'{x:.2f}' for x in w)}, on {len(clips)} clips")
    print(f"the original's: {' '.join(f'{x:.2f}' for x in export.AUTHORS_BOOST)}")
    with_it, without = (export.mouth_error(at.pca, b * predicted, true) for b in (w, 1))
    print(f"mouth error: {with_it:.2f} px with it, {without:.2f} px with w = 1")
    if without <= with_it:
        print("w = 1 is taken")
        return None
    return w


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


def keep_freed_memory(one_heap: bool) -> None:
    """Large arrays that a program frees stay with the process, for the next.

    glibc would hand them back to the system and ask again at every step, and the system
    clears them each time: a fifth of a training step (docs/performance.md).  To be
    called before jax starts its threads.  Elsewhere than on glibc: nothing.

    one_heap: also the largest ones, which come from threads.  glibc before 2.38 then
    often finds a freed array a few bytes too small for the next of the same size: the
    process grows to two or three times of what it needs.
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)
    if one_heap:
        mallopt(arena_max, 1)


def pretend_tpu_host() -> None:
    """Lets libtpu compile where there is no TPU: it would look for one, and wait.  To
    be called before jax is imported."""
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-16",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_WORKER_ID="0",
        JAX_PLATFORMS="cpu",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )


def enlarge_stack() -> None:
    """Starts this program anew with as large a stack as the system grants: libtpu's
    compiler overflows the usual 8 MB on large networks.  To be called before jax is
    imported; afterwards it does nothing."""
    stack = resource.RLIMIT_STACK
    granted, most = resource.getrlimit(stack)
    if granted == most or "jax" in sys.modules:
        return
    try:
        resource.setrlimit(stack, (most, most))
    except (OSError, ValueError):  # macOS: the kernel's limit is lower than it says
        return
    os.execv(sys.executable, sys.orig_argv)


def set_up_jax() -> None:
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
