"""The package as it is installed: its requirements, its files, its command."""

import pathlib
import subprocess
import sys
import tomllib
import zipfile

import cv2
import pytest
import soundfile

import jax_atvg
from tests.conftest import ROOT
from tests.small_bundle import photo, speech

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("gpu", "tpu", "torch", "beam", "web", "heic", "dev")


def requirements(path: str) -> list[str]:
    """The lines of a requirements file, without comments and references to others."""
    lines = (
        line.split("#")[0].strip() for line in (ROOT / path).read_text().split("\n")
    )
    return [line for line in lines if line and not line.startswith("-r")]


def test_the_package_and_the_requirements_say_the_same():
    assert PROJECT["dependencies"] == requirements("requirements.txt")
    extras = PROJECT["optional-dependencies"]
    for name in EXTRAS:
        assert extras[name] == requirements(f"requirements/{name}.txt"), name
    assert set(extras) == {*EXTRAS, "wandb"} and set(extras["wandb"]) < set(
        extras["dev"]
    )
    named = {path.stem for path in (ROOT / "requirements").glob("*.txt")}
    assert named == set(EXTRAS)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """A folder with what `pip install .` puts into site-packages."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    build += ["--no-build-isolation", "--disable-pip-version-check", "-w", folder, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    assert jax_atvg.__version__ in wheel.name
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder / "site")
    return folder / "site"


def test_the_installed_package_has_what_it_needs_and_no_tests(installed):
    tops = {path.name for path in installed.iterdir()}
    assert {"jax_atvg", "input_pipeline"} == {x for x in tops if "dist-info" not in x}
    for name in ("py.typed", "configs/vg_small.py", "default_model/bundle/bundle.json"):
        assert (installed / "jax_atvg" / name).is_file(), name
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "jax-atvg = jax_atvg.cli.app:start" in entry_points.read_text()


@pytest.mark.slow
def test_the_installed_command_animates_and_knows_its_configs(installed, tmp_path):
    """From another folder, with the bundle that comes along."""
    cv2.imwrite(str(tmp_path / "face.png"), photo()[..., ::-1])
    soundfile.write(tmp_path / "speech.wav", speech(0.5), 16000)
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'jax-atvg'\n"
        "import jax_atvg; assert jax_atvg.__file__.startswith(sys.path[0])\n"
        "from jax_atvg.training.config_files import load_config\n"
        "assert load_config('vg_small').vg_net.width == 16\n"
        "from jax_atvg.cli.app import start; start()\n"
    )
    words = ["animate", "--image=face.png", "--audio=speech.wav", "--out=x.mp4"]
    done = subprocess.run(
        [sys.executable, "-c", program, str(installed), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "wrote x.mp4\n"), done.stderr
    assert (tmp_path / "x.mp4").stat().st_size > 1000
