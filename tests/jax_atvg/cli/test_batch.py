"""animate --batch: bad rows, jobs that need each other, several videos at a time."""

import shutil
import types

import pytest

import jax_atvg.sharding
from input_pipeline.clip import InputError
from jax_atvg.cli import animate
from jax_atvg.inference import networks
from jax_atvg.inference.animate import Film
from tests.jax_atvg.cli.test_main import GOOD, call, files  # noqa: F401, fixtures

# ruff: noqa: F811


@pytest.fixture(params=[1, 3])
def at_once(monkeypatch, request):
    """As many videos at a time."""

    def some(bundle, count, precision):
        return networks.Networks(bundle, request.param)

    monkeypatch.setattr(animate, "networks_for", some)


@pytest.mark.parametrize("text", ["", "\n\n", "image,audio,out\n"])
def test_a_list_without_rows_is_refused(call, files, text):
    (files / "list.csv").write_text(text)
    code, _, errors = call("animate", "--bundle=bundle", "--batch=list.csv")
    assert code == 2 and "list.csv: no rows" in errors[0]


def test_bad_rows_do_not_stop_the_others(call, files, at_once):
    (files / "list.csv").write_text(
        "image,audio,out\n"
        "a face.png, räde.wav, 1.mp4\n"
        "flat.png,räde.wav,2.mp4\n"
        "a face.png,räde.wav\n"
        "a face.png,räde.wav,./1.mp4\n"
        "\n"
        '"a face.png","räde.wav","5, last.mp4"\n',
        encoding="utf-8-sig",
    )
    code, output, errors = call("animate", "--bundle=bundle", "--batch=list.csv")
    assert code == 2
    assert output == ["wrote 1.mp4", "wrote 5, last.mp4", "2 of 5 videos written"]
    assert [line for line in errors if line.startswith("error: ")] == [
        "error: list.csv: job 3 is a face.png,räde.wav; give image,audio,out",
        "error: list.csv: job 4 writes ./1.mp4 again; give every job its own",
        "error: flat.png: no face found in the 90x90 picture; use a frontal face at "
        "least 80 pixels wide, and turn the picture upright",
    ]
    made = {path.name for path in files.glob("*.mp4")}
    assert made == {"1.mp4", "5, last.mp4"}


@pytest.mark.parametrize("again", ["link/a.mp4", "out/A.mp4", "link/../out/a.MP4"])
def test_jobs_that_may_write_the_same_file_are_refused(tmp_path, again):
    """Through a link to its folder, or where capitals make no other name."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    given, outs = types.SimpleNamespace(landmarks_out=None, panels=False), set()
    for fine in ("out/a.mp4", "out/b.mp4", "a.mp4"):
        job = ["x.png", "x.wav", str(tmp_path / fine)]
        assert animate.check_job(job, "job", outs, given) == job
    with pytest.raises(InputError, match=r"again; give every job its own$"):
        animate.check_job(["x.png", "x.wav", str(tmp_path / again)], "", outs, given)


def test_a_job_may_take_up_the_video_of_the_one_before(call, files, at_once):
    (files / "list.csv").write_text(
        "a face.png,räde.wav,1.mp4\na face.png,1.mp4,2.mp4\n", encoding="utf-8"
    )
    code, output, _ = call("animate", "--bundle=bundle", "--batch=list.csv")
    assert (code, output[-1]) == (0, "2 of 2 videos written")


def test_paths_of_a_list_of_jobs_have_their_tilde_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "list.csv").write_text("~/a.png, ~/b.wav, c~.mp4\n")
    (job,) = animate.read_jobs(tmp_path / "list.csv")
    assert job == ["/home/somebody/a.png", "/home/somebody/b.wav", "c~.mp4"]


def test_any_exception_of_one_row_leaves_the_others_alone(
    call, files, at_once, monkeypatch
):
    read = Film.read

    def sometimes(self, bundle):
        if self.out.name == "1.mp4":
            raise IndexError("list index out of range")
        return read(self, bundle)

    monkeypatch.setattr(Film, "read", sometimes)
    rows = "a face.png,räde.wav,1.mp4\na face.png,räde.wav,2.mp4\n"
    (files / "list.csv").write_text(rows, encoding="utf-8")
    code, output, errors = call("animate", "--bundle=bundle", "--batch=list.csv")
    assert (code, output) == (2, ["wrote 2.mp4", "1 of 2 videos written"])
    said = "error: list.csv: job 1: IndexError: list index out of range; please report"
    assert any(line.startswith(said) for line in errors)
    with pytest.raises(IndexError):  # alone, its traceback is wanted
        call("animate", *GOOD[:3], "--out=1.mp4")


@pytest.mark.parametrize(
    ("platform", "devices", "jobs", "taken", "rows"),
    [
        ("cpu", 8, 20, None, 1),
        ("gpu", 1, 1, 1, 8),
        ("gpu", 4, 17, 3, 24),
        ("tpu", 4, 1000, 4, 32),
    ],
)
def test_a_gpu_plays_eight_videos_at_a_time(
    monkeypatch, platform, devices, jobs, taken, rows
):
    """On as many devices as that takes; a CPU is kept busy by one."""
    found = [types.SimpleNamespace(platform=platform)] * devices
    monkeypatch.setattr("jax.local_devices", lambda: found)
    monkeypatch.setattr(jax_atvg.sharding, "data_mesh", lambda devices: devices)

    def made(bundle, batch_size=1, mesh=None, precision="default"):
        return batch_size, mesh and len(mesh)

    monkeypatch.setattr(networks, "Networks", made)
    assert animate.networks_for(None, jobs, "default") == (rows, taken)


def test_a_folder_pairs_photos_and_recordings_by_name(call, files, at_once, tmp_path):
    for name in ("ann.png", "bob.PNG", "cid.png"):
        shutil.copy(files / "a face.png", tmp_path / name)
    for name in ("ann.wav", "bob.wav", "dan.wav"):
        shutil.copy(files / "räde.wav", tmp_path / name)
    code, output, _ = call("animate", "--bundle=bundle", f"--batch={tmp_path}")
    made = [str(tmp_path / f"{name}_talking.mp4") for name in ("ann", "bob")]
    wrote = [line.removeprefix("wrote ") for line in output if "wrote" in line]
    assert code == 0 and wrote == made
    code, _, _ = call("animate", "--bundle=bundle", f"--batch={tmp_path}")
    assert code == 0  # again: what was made is no recording of ann


def test_other_files_of_the_name_are_no_recordings(tmp_path):
    for suffix in (".jpg", ".txt", ".srt", ".json", ".WAV", ".wav.bak", ""):
        (tmp_path / f"ann{suffix}").touch()
    for name in ("bob.png", "bob.mov", "cid.png", "cid.vtt"):
        (tmp_path / name).touch()
    rows = [
        [str(tmp_path / name) for name in row]
        for row in (
            ("ann.jpg", "ann.WAV", "ann_talking.mp4"),
            ("bob.png", "bob.mov", "bob_talking.mp4"),
        )
    ]
    assert animate.read_jobs(tmp_path) == rows


def test_two_recordings_of_a_name_are_told(call, files, at_once, tmp_path):
    shutil.copy(files / "a face.png", tmp_path / "ann.png")
    for name in ("ann.wav", "ann.flac"):
        shutil.copy(files / "räde.wav", tmp_path / name)
    code, _, errors = call("animate", "--bundle=bundle", f"--batch={tmp_path}")
    told = "".join(errors)
    assert code == 2 and "ann_talking.mp4 again; give every job its own" in told


def test_a_folder_without_pairs_is_refused(call, files, tmp_path):
    code, _, errors = call("animate", "--bundle=bundle", f"--batch={tmp_path}")
    assert code == 2 and "no photo and recording of the same name" in errors[0]
