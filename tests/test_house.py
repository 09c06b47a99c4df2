"""The structure: which folder may import which, and what may happen at import.

Every rule of structure_rules.py is applied to every file, and to a bad snippet that
shows that it is found.
"""

import ast
import graphlib
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, SECONDS
from tests.structure_rules import (
    ALLOWED,
    EVERYTHING,
    HEAVY,
    JAX_FAMILY,
    MAX_LINES,
    PACKAGES,
    SOURCES,
    arrow_complaints,
    future_complaints,
    heavy_complaints,
    import_time_complaints,
    imported,
    length_complaints,
    module_of,
    modules,
    name_complaints,
)

# --- applied to every file ---


@pytest.mark.parametrize(
    "rule",
    [arrow_complaints, heavy_complaints, future_complaints, name_complaints],
)
def test_every_file_of_the_packages_keeps_the_rule(rule):
    found = [rule(module, path.read_text()) for module, path in SOURCES.items()]
    assert [one for complaints in found for one in complaints] == []


@pytest.mark.parametrize("rule", [import_time_complaints, length_complaints])
def test_every_file_keeps_the_rule(rule):
    # benchmarks are programs: flags are set where they are imported.
    kept = {m: p for m, p in EVERYTHING.items() if not m.startswith("benchmarks")}
    found = [rule(module, path.read_text()) for module, path in kept.items()]
    assert [one for complaints in found for one in complaints] == []


def test_folders_import_nothing():
    """But for the public names of jax_atvg, which are imported when they are used."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("__init__.py"):
            if path.parent.name != "jax_atvg":
                body = ast.parse(path.read_text()).body
                assert all(isinstance(node, ast.Expr) for node in body), path


def order(graph: dict[str, set[str]]) -> list[str]:
    """The modules, each after those it imports; CycleError where that is impossible."""
    return list(graphlib.TopologicalSorter(graph).static_order())


def test_there_are_no_circles_of_folders_or_of_files():
    order({folder: set(allowed) for folder, allowed in ALLOWED.items()})
    order(
        {
            module: {module_of(name) for name in imported(module, ast.walk(tree))}
            - {module}
            for module, path in EVERYTHING.items()
            for tree in [ast.parse(path.read_text())]
        }
    )


def test_tests_mirror_the_packages():
    """A file of tests is in the folder of what it tests, or tries the whole program."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        assert (ROOT / folder).is_dir() or str(folder) == "hostile", path


def test_the_list_of_files_that_are_not_quick_names_files():
    names = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(SECONDS) <= names


def test_the_package_is_imported_at_once_and_without_jax():
    """Time is processor time; of 50 ms a tenth is used where nothing else runs."""
    error = run_python(
        "import sys, time\n"
        "before = time.process_time()\n"
        "import jax_atvg\n"
        "took = time.process_time() - before\n"
        "assert took < 0.05, took\n"
        "assert not {'jax', 'flax', 'numpy', 'cv2'} & set(sys.modules)\n"
        "assert set(jax_atvg.HOMES) | {'__version__'} == set(jax_atvg.__all__)\n"
        "for name in jax_atvg.__all__: getattr(jax_atvg, name)\n"
    )
    assert error == ""


def test_a_config_is_read_without_jax():
    """`compile` sets up its process between reading the config and importing jax."""
    error = run_python(
        "import sys\n"
        "from jax_atvg.cli import app\n"
        "from jax_atvg.training.config_files import config_names, load_config\n"
        "for name in config_names(): load_config(name)\n"
        "assert 'jax' not in sys.modules\n"
    )
    assert error == ""


def run_python(program: str) -> str:
    """The error output of a fresh interpreter; "" where all went well."""
    command = [sys.executable, "-c", program]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return done.stderr if done.returncode else ""


def import_without(blocked: set[str], names) -> str:
    """Import the modules where the blocked ones cannot be."""
    return run_python(
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(blocked)}))\n"
        f"for name in {list(names)}: importlib.import_module(name)\n"
    )


def test_the_input_pipeline_can_be_imported_where_there_is_no_jax():
    """Blocked rather than looked for: grain takes jax along where it finds it."""
    assert import_without(JAX_FAMILY, modules("input_pipeline")) == ""


def test_importing_jax_atvg_leaves_the_devices_untouched():
    """The number of devices can only be chosen before the first is used."""
    error = run_python(
        "import importlib, jax\n"
        f"for name in {list(modules('jax_atvg'))}: importlib.import_module(name)\n"
        "jax.config.update('jax_num_cpu_devices', 3)\n"
        "assert jax.local_device_count('cpu') == 3\n"
    )
    assert error == ""


# --- every rule bites ---


LOSSES, LOADER = "jax_atvg.training.losses", "input_pipeline.training_data.loader"


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("jax_atvg.nowhere", "", "add it to ALLOWED in tests/test_house.py"),
        (LOSSES, "import jax_atvg.evaluation.metrics", "may not know jax_atvg.eval"),
        (LOSSES, "from jax_atvg.cli import app", "may not know jax_atvg.cli"),
        (LOSSES, "def f():\n    import jax_atvg.cli.app", "may not know jax_atvg.cli"),
        (LOSSES, "from ..evaluation import metrics", "may not know jax_atvg.evaluati"),
        (LOSSES, "import input_pipeline.preparation.prepare", "may not know input_pi"),
        (LOSSES, "import main", "know nothing of main"),
        (LOSSES, "from tests import formula", "know nothing of tests"),
        ("jax_atvg.models.layers", "from jax_atvg.inference import x", "may not know"),
        ("jax_atvg.models.cpu.winograd", "from jax_atvg.models import x", "may not kn"),
        ("jax_atvg.evaluation.scores", "import jax_atvg.training.rng", "may not know"),
        ("input_pipeline.media.audio", "import configs.vg_grid", "nothing of configs"),
        ("input_pipeline.media.audio", "import input_pipeline.faces.align", "may not"),
        (LOADER, "import input_pipeline.preparation.prepare", "may not know input_pi"),
        (LOADER, "import jax", "numpy only"),
        (LOADER, "def f():\n    from jax import numpy", "numpy only"),
        (LOADER, "import orbax.checkpoint as ocp", "numpy only"),
        (LOADER, "from jax_atvg import rng", "numpy only"),
    ],
)
def test_a_wrong_import_is_found(module, source, complaint):
    (found,) = arrow_complaints(module, source)
    assert complaint in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (LOSSES, "from jax_atvg.arrays import Video"),
        (LOSSES, "import jax\nfrom input_pipeline.clip import MOUTH"),
        (LOSSES, "from input_pipeline import clip"),
        (LOSSES, "from jax_atvg.training import rng"),
        ("jax_atvg.models.vg_net", "from . import layers"),
        ("jax_atvg.inference.animate", "from input_pipeline.faces import align"),
        ("jax_atvg.cli.train", "from jax_atvg.evaluation import report"),
        (LOADER, "import jaxtyping, grain\nfrom . import sampling"),
    ],
)
def test_a_right_import_is_left_alone(module, source):
    assert arrow_complaints(module, source) == []


def test_a_file_called_as_a_standard_module_is_found():
    assert len(name_complaints("jax_atvg.evaluation.statistics", "")) == 1
    assert name_complaints("jax_atvg.evaluation.scores", "") == []


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_a_heavy_import_at_module_level_is_found(library):
    for source in (
        f"import {library}",
        f"from {library} import x",
        f"try:\n    import {library}.x as y\nexcept ImportError:\n    pass",
        f"class C:\n    import {library}",
    ):
        assert len(heavy_complaints("m", source)) == 1
    assert heavy_complaints("m", f"def f():\n    import {library}") == []


@pytest.mark.parametrize(
    "source",
    [
        "import jax\njax.config.update('jax_enable_x64', True)",
        "from jax import config\nconfig.update('jax_enable_x64', True)",
        "import jax\njax.config.jax_enable_x64 = True",
        "import jax\nN = jax.device_count()",
        "import jax\nif jax.devices()[0].platform == 'tpu':\n    pass",
        "import jax.numpy as jnp\nMASK = jnp.ones(136)",
        "from jax import numpy as np\nMASK = [np.ones(n) for n in range(3)]",
        "import jax\nclass C:\n    key = jax.random.key(0)",
        "import jax\ndef f(key=jax.random.key(0)): pass",
        "import jax\nf = lambda *, n=jax.device_count(): n",
        "import jax\n@partial(jax.pmap, devices=jax.devices())\ndef f(): pass",
        "from absl import flags\nflags.DEFINE_string('a', '', '')",
    ],
)
def test_work_at_import_is_found(source):
    (found,) = import_time_complaints(LOSSES, source)
    assert "at import" in found
    assert import_time_complaints("main", source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import jax\ndef f():\n    return jax.devices()",
        "import jax\nf = jax.jit(lambda: jax.devices())",
        "import jax\n@jax.custom_vjp\ndef f(): pass",
        "import jax.numpy as jnp\nHALF = jnp.dtype('bfloat16')",
        "import jax.numpy as jnp\ndef f(t=jnp.float32): pass",
        "import numpy as jnp\nMASK = jnp.ones(136)",
    ],
)
def test_what_waits_until_it_is_called_is_left_alone(source):
    assert import_time_complaints(LOSSES, source) == []


def test_postponed_annotations_are_found():
    assert future_complaints("m", "from __future__ import annotations")
    assert future_complaints("m", "import annotations") == []


def test_a_long_file_is_found():
    assert length_complaints("m", "x = 1\n" * (MAX_LINES + 1))
    assert length_complaints("m", "x = 1\n" * MAX_LINES) == []


def test_a_circle_is_found():
    with pytest.raises(graphlib.CycleError):
        order({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_an_import_of_a_blocked_module_is_found():
    assert "jax" in import_without({"jax"}, [LOSSES])
