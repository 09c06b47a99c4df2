"""The command line: one line and exit code 2 for bad input, and whole runs."""

import gzip
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import jax_atvg
from input_pipeline.media.image import write_image
from input_pipeline.preparation import corpora, sync
from input_pipeline.training_data import dataset
from jax_atvg.cli import animate, app, evaluate, machine, prepare
from jax_atvg.cli.flags import Flags
from jax_atvg.evaluation import metrics
from jax_atvg.inference.bundle import save_bundle
from tests.conftest import ROOT
from tests.small_bundle import photo, small_bundle, speech


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a bundle, photos and sounds; the commands run in it."""
    folder = tmp_path_factory.mktemp("files")
    save_bundle(small_bundle(), folder / "bundle")
    write_image(folder / "a face.png", photo())
    write_image(folder / "flat.png", np.full((90, 90, 3), 128, np.uint8))
    soundfile.write(folder / "räde.wav", speech(0.5), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(8000), 16000)
    return folder


GOOD = ("--bundle=bundle", "--image=a face.png", "--audio=räde.wav", "--out=out.mp4")


@pytest.fixture
def call(files, monkeypatch, capsys):
    """The command line in this process -> exit code, lines of output, of errors."""
    monkeypatch.chdir(files)
    monkeypatch.setattr(machine, "set_up_jax", lambda *_: None)
    # It would speak up in every later test of this process.
    monkeypatch.setattr(animate, "tell_compilations", lambda: None)
    before = {path.name for path in files.iterdir()}

    def run(*arguments):
        code = app.main(["main.py", *arguments])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    yield run
    for path in files.iterdir():
        if path.name not in before:
            path.unlink()


@pytest.fixture
def start(files, tmp_path):
    """python main.py in a fresh process, caches in `tmp_path` -> the same."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # the tests' own
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def run(*arguments, folder=files):
        done = subprocess.run(
            [sys.executable, ROOT / "main.py", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        lines = [line for line in done.stderr.splitlines() if line]  # \r of the bar
        return done.returncode, done.stdout.splitlines(), lines

    return run


def but(**changes):
    """The good arguments of animate, changed; None leaves one out."""
    given = dict(argument[2:].split("=") for argument in GOOD) | changes
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


WRONG = {
    "dance asked for; say first what to do, one of animate, dub, serve, ": ["dance"],
    "animat asked for; animate meant?; say first": ["animat", "--image=face.jpg"],
    "--full_frame asked for; say first": ["--full_frame", "animate"],
    "animate: animate: not a flag; write --name=value": ["animate", "animate"],
    "--xyz: animate has no such flag; see `python main.py animate --help`": [
        *("animate", "--xyz=3"),
    ],
    "--imagge: animate has no such flag; --image meant?": ["animate", "--imagge=3"],
    "--split is a flag of inspect and evaluate, animate has none": [
        *("animate", *GOOD, "--split=test"),
    ],
    "--limit is a flag of prepare and evaluate, train has none": [
        *("train", "--config=smoke", "--workdir=new", "--limit=3"),
    ],
    "--full_frame=maybe: must be true or false": [
        *("animate", *GOOD, "--full_frame=maybe"),
    ],
    "--limit=x: must be a whole number": [
        *("evaluate", "--data_dir=d", "--out=new", "--limit=x"),
    ],
    "--config.optimizer.b1=x: must be a number": [
        *("train", "--config=smoke", "--workdir=new", "--config.optimizer.b1=x"),
    ],
    "--config.optimizer=3: is a group of fields; set one": [
        *("train", "--config=smoke", "--workdir=new", "--config.optimizer=3"),
    ],
    "config=vg_small:foo: vg_small has no variants; leave out :foo": [
        *("train", "--config=vg_small:foo", "--workdir=new"),
    ],
    "--at=a,,b: an empty part": ["export", "--at=a,,b", "--vg=c", "--out=new"],
    "--image --audio --out missing; `python main.py animate --help`": ["animate"],
    "--audio missing": ["animate", *but(audio=None)],
    "--image missing": ["animate", *but(image="")],
    "--at_net --vg_net --basics missing": ["import_torch", "--out=new"],
    "--basics missing": ["import_torch", "--at_net=a", "--vg_net=b", "--out=new"],
    "--basics missing; --template=authors needs it": [
        *("prepare", "--corpus=grid", "--source=.", "--data_dir=new"),
        "--template=authors",
    ],
    "nowhere: no bundle there (a folder with bundle.json); make one with": [
        *("prepare", "--corpus=grid", "--source=.", "--data_dir=new"),
        *("--sync=check", "--bundle=nowhere"),
    ],
    "nowhere: does not exist": [
        *("import_torch", "--at_net=a", "--vg_net=b", "--out=new"),
        "--basics=nowhere",
    ],
    "files0: no bundle there": ["animate", *but(bundle=".")],
    "nowhere: no bundle there": ["animate", *but(bundle="nowhere")],
    "flat.png: no face found": ["animate", *but(image="flat.png")],
    "nowhere.wav: no such file": ["animate", *but(audio="nowhere.wav")],
    "its folder does not exist": ["animate", *but(out="nowhere/out.mp4")],
    "out.avi: the video is an MP4": ["animate", *but(out="out.avi")],
    "face=9 asked for, but 1 face found": ["animate", *GOOD, "--face=9"],
    "a b.png: no such file": ["animate", *but(image="a\nb.png")],
    "--image --audio --out beside --batch, which replaces them": [
        *("animate", *GOOD, "--batch=list.csv"),
    ],
    "--landmarks_out beside --batch": [
        *("animate", "--batch=list.csv", "--landmarks_out=x.npy"),
    ],
    "nowhere.csv: not a readable list": ["animate", "--batch=nowhere.csv"],
    "a face.png: not a readable list": ["animate", "--batch=a face.png"],
    "./räde.wav is --audio, too": ["animate", *but(out="./räde.wav")],
    "a_panels.mp4 is --audio, too": [
        *("animate", *but(audio="a_panels.mp4", out="a.mp4"), "--panels"),
    ],
    "x.npy is --audio, too": [
        *("animate", *but(audio="x.npy"), "--landmarks_out=./x.npy"),
    ],
    "--out=a is --at_net, too": [
        *("import_torch", "--at_net=a", "--vg_net=b", "--basics=c", "--out=a"),
    ],
    "--out=b is --at, too": ["export", "--at=a,b", "--vg=c", "--out=b"],
    "--out=bundle is --bundle, too": [
        *("evaluate", "--bundle=bundle", "--data_dir=d", "--out=bundle"),
    ],
    "--out=d/ is --data_dir, too": ["inspect", "--data_dir=d", "--out=d/"],
    "head_movement: the crop shows no more than the face": [
        *("animate", *GOOD, "--head_movement"),
    ],
    "expressiveness=3.5: must be 0 to 3.0": [
        *("animate", *GOOD, "--expressiveness=3.5"),
    ],
    "blinks=often: value should be one of <on|off>": [
        "animate",
        *GOOD,
        "--blinks=often",
    ],
    "dub: is of frames, of which --landmarks_only makes none": [
        *("evaluate", "--data_dir=d", "--out=new", "--dub", "--landmarks_only"),
    ],
    "end_to_end_only: is of frames, of which --landmarks_only makes none": [
        *("evaluate", "--data_dir=d", "--out=new", "--end_to_end_only"),
        "--landmarks_only",
    ],
    "--config missing": ["train", "--workdir=new"],
    "config=nothing: no such config; choose one of ablation, at_default": [
        *("train", "--config=nothing", "--workdir=new"),
    ],
    "config=my.py: no such file": ["train", "--config=my.py", "--workdir=new"],
    "smoke:x: choose at or vg": ["train", "--config=smoke:x", "--workdir=new"],
    "config.sed: no such field; config.seed meant?": [
        *("train", "--config=smoke", "--config.sed=1", "--workdir=new"),
    ],
    "config.: no such field": [
        *("train", "--config=smoke", "--config.=1", "--workdir=new"),
    ],
    "config.steps[0]: no such field": [
        *("train", "--config=smoke", "--config.steps[0]=1", "--workdir=new"),
    ],
    "config.0s\xe9ed: no such field": [
        *("train", "--config=smoke", "--config.0s\xe9ed=1", "--workdir=new"),
    ],
    "config.seed=3000000000: must be 2147483647 at most": [
        *("train", "--config=smoke", "--config.seed=3000000000", "--workdir=new"),
    ],
    "--config.seed=one": [
        *("train", "--config=smoke", "--config.seed=one", "--workdir=new"),
    ],
    "--data_dir missing; give the folder": [
        *("train", "--config=at_small", "--workdir=new"),
    ],
    "--profile=9:3: give the first and last step": [
        *("train", "--config=smoke", "--workdir=new", "--profile=9:3"),
    ],
    "--profile=x: give the first and last step": [
        *("train", "--config=smoke", "--workdir=new", "--profile=x"),
    ],
}


# What a verb says before it meets what is wrong.
TOLD = ("running on ", "compiling ", "data: ")


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said_in_one_line(call, files, message):
    before = sorted(files.rglob("*"))
    code, output, errors = call(*WRONG[message])
    *others, error = errors
    assert (code, output) == (2, []), errors
    assert all(line.startswith(TOLD) for line in others), errors
    assert error.startswith("error: ") and message.removeprefix("files0") in error
    assert sorted(files.rglob("*")) == before


def test_the_choices_that_help_lists_are_the_codes_own():
    assert tuple(corpora.CORPORA) == prepare.CORPORA
    assert sync.MODES == prepare.SYNC
    assert evaluate.SPLITS == dataset.SPLITS
    assert tuple(metrics.PROTOCOLS) == evaluate.PROTOCOLS


def test_an_interruption_is_one_line_and_code_130(call, monkeypatch):
    def interrupt(given):
        raise KeyboardInterrupt

    monkeypatch.setattr(app.VERBS["animate"], "run", interrupt)
    code, _, errors = call("animate", *GOOD)
    assert code == 130 and errors == [
        "error: interrupted; what was unfinished is removed"
    ]


def test_help_lists_the_verbs_a_line_each(call):
    code, output, errors = call("--help")
    assert (code, errors) == (0, [])
    lines = {line.split()[0]: line for line in output if line.startswith("  ")}
    assert set(app.VERBS) < set(lines)
    assert all(len(lines[verb]) < 100 for verb in app.VERBS)
    code, output, _ = call()
    assert code == 2 and "animate" in "".join(output)
    assert call("--version") == (0, [f"jax_atvg {jax_atvg.__version__}"], [])


@pytest.mark.parametrize("verb", app.VERBS)
def test_a_verbs_help_has_an_example_and_its_flags_alone(call, verb):
    """Required ones first; the example is one that the verb's own flags understand."""
    code, output, errors = call(verb, "--help")
    assert (code, errors) == (0, [])
    text = "\n".join(output)
    example = re.search(r"    python main.py (\w+) ((?:.*\\\n)*.*)", text)
    assert example[1] == verb
    declared = Flags(shlex.split(example[2].replace("\\\n", " ")))
    app.VERBS[verb].flags(declared)
    declared.parse()
    shown = re.findall(r"^  --(\w+)", text, re.MULTILINE)
    required = [one.name for one in declared.declared if one.required]
    assert shown[: len(required)] == required
    assert sorted(shown) == sorted(one.name for one in declared.declared)
    if required:  # serve has none
        assert text.index("Required") < text.index(f"\n  --{required[0]}=")


def test_every_path_of_every_verb_has_its_tilde_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for module in app.VERBS.values():
        flags = Flags()
        module.flags(flags)
        required = [f"--{x.name}={x.kind}" for x in flags.declared if x.required]
        paths = [f"--{name}=~/x" for name in flags.paths]
        chosen = [x.replace("=NAME", "=smoke").split("|")[0] for x in required]
        flags = Flags([*chosen, *paths])
        module.flags(flags)
        flags.replaced = {}
        given = flags.parse()
        for name in flags.paths:
            found = getattr(given, name)
            assert found in ("/home/somebody/x", ["/home/somebody/x"]), name


def test_a_capital_suffix_is_an_mp4(call, files):
    code, output, errors = call("animate", *but(out="loud.MP4"))
    assert (code, output) == (0, ["wrote loud.MP4"]), errors


def test_an_unknown_flag_ends_a_process_with_one_line_and_code_2(start):
    code, output, errors = start("animate", "--imagge=a")
    assert (code, output, len(errors)) == (2, [], 1)
    assert errors[0].startswith("error: --imagge: animate has no such flag")


def test_a_second_start_compiles_nothing(start, files, tmp_path):
    """And relative paths, spaces and umlauts are taken as they are."""

    def cached():
        names = (tmp_path / "jax_atvg").iterdir()
        return {path.name for path in names if not path.name.endswith("-atime")}

    (files / "my out").mkdir()
    command = ["animate", *but(out="my out/größe.mp4", audio="silent.wav")]
    for number in range(2):
        code, output, errors = start(*command)
        assert (code, output) == (0, ["wrote my out/größe.mp4"]), errors
        told = [line for line in errors if not line.startswith("compiling ")]
        runs, warning, line = told  # no library's noise, no bar in a file
        assert runs.startswith("running on 8 x CPU, float32; AT-net ") or (
            runs.startswith("running on 1 x CPU, float32; AT-net ")
        )
        assert warning == "warning: silent.wav: silent; the mouth will rest"
        assert line.startswith("größe.mp4: 12 of 12 frames, ")
        if not number:
            first = cached()
            for program in ("sound_to_landmarks", "landmarks_to_frames"):
                assert any(program in name for name in first)
    assert cached() == first


@pytest.mark.slow
def test_the_authors_weights_become_a_bundle_that_animates(start, shared, tmp_path):
    """From a legacy .pth, as the authors published, and from an .npz."""
    pytest.importorskip("torch")
    packed = shared("reference", "at_net_seed0_dataparallel_legacy.pth.gz")
    (tmp_path / "at_net.pth").write_bytes(gzip.decompress(packed.read_bytes()))
    vg_net = shared("reference", "vg_net_seed0_weights.npz")
    code, output, errors = start(
        "import_torch",
        "--at_net=at_net.pth",
        f"--vg_net={vg_net}",
        f"--basics={shared('reference', 'basics.npz')}",
        "--out=bundles/authors",
        folder=tmp_path,
    )
    assert (code, output, errors) == (0, ["wrote bundles/authors"], [])
    sound, rate = soundfile.read(shared("data", "speech", "jfk.flac"), frames=22050)
    soundfile.write(tmp_path / "speech.wav", sound, rate)
    code, output, errors = start(
        "animate",
        "--bundle=bundles/authors",
        f"--image={shared('data', 'portraits', 'obama.jpg')}",
        "--audio=speech.wav",
        "--out=talking.mp4",
        folder=tmp_path,
    )
    assert (code, output) == (0, ["wrote talking.mp4"]), errors
    assert any("frame" in line for line in errors)
    from input_pipeline.media.video import read_frames

    frames = list(read_frames(tmp_path / "talking.mp4"))
    assert len(frames) == round(25 * len(sound) / rate)
    assert frames[0].shape == (128, 128, 3)
