"""The house: which file may import which, and what may happen at import.

Every rule is a function (module name, source) -> complaints, applied to every file, and
to a bad snippet that shows that it bites.
"""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A file imports only from lower floors of its own tower.
FLOORS = {
    "input_pipeline": [
        "clip",
        "image video audio faces landmarks corpora dataset workers cartoon augment",
        "align scenes sampling batches perception",
        "recording loader inspection authors synthetic",
        "finished summary",
        "on_beam",
        "prepare",
    ],
    "jax_atvg": [
        "arrays config rng chips hlo processes",
        "models.winograd optim sharding reporting statistics",
        "models.convolutions losses metrics report",
        "models.layers",
        "models.conv_gru",
        "models.at_net models.vg_net models.discriminator scores",
        "state torch_import",
        "at_step gan_step checkpoint predict bundle",
        "train_step synthesis runs animate",
        "evaluate train compile export",
    ],
}
FLOOR = {
    f"{tower}.{name}": floor
    for tower, floors in FLOORS.items()
    for floor, names in enumerate(floors)
    for name in names.split()
}
CONTRACT = "input_pipeline.clip"
DOORS = {  # between the towers; some share more with preparation
    "jax_atvg.inference.animate": "image video audio faces landmarks align perception",
    "jax_atvg.evaluation.scores": "faces",
    "jax_atvg.evaluation.synthesis": "align sampling",
    "jax_atvg.evaluation.evaluate": "align landmarks sampling",
}

# They import the towers, never the reverse.
OUTSIDE = {"main", "command_line", "configs", "tests"}
JAX_FAMILY = {"jax", "jaxlib", "flax", "optax", "orbax", "chex", "jax_atvg"}
HEAVY = {"cv2", "dlib", "av", "librosa", "torch"}  # imported where they are used
MAX_LINES = 400


def modules(*folders: str) -> dict[str, pathlib.Path]:
    """{dotted name: path} of the Python files in these folders, but for __init__.py."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted(paths)
        if path.name != "__init__.py"
    }


TOWERS = modules(*FLOORS)
EVERYTHING = {**TOWERS, **modules("configs", "tests")}
EVERYTHING |= {name: ROOT / f"{name}.py" for name in ("main", "command_line")}
# These may set flags and devices: they are where a program starts.
STARTS = {"main", "command_line", "tests.conftest"}


# --- reading a file ---


def imported(module: str, nodes) -> set[str]:
    """Dotted names that the import statements among `nodes` mention."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = module.split(".")[: -node.level] if node.level else []
            base = [*here, node.module] if node.module else here
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def in_the_house(name: str) -> str:
    """jax_atvg.training.losses.landmark_loss -> jax_atvg.training.losses; unknown names stay."""
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in FLOOR), name)


def run_at_import(node: ast.AST):
    """The nodes evaluated when a module is imported: no bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            defaults = [*child.args.defaults, *filter(None, child.args.kw_defaults)]
            for early in [*getattr(child, "decorator_list", ()), *defaults]:
                yield early
                yield from run_at_import(early)
        else:
            yield child
            yield from run_at_import(child)


def dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    """The full name of `jnp.zeros` or `flags.DEFINE_string`; "" for anything else."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (base := dotted(node.value, aliases)):
        return f"{base}.{node.attr}"
    return ""


# --- the rules ---


def floor_complaints(module: str, source: str) -> list[str]:
    """Imports from the same or a higher floor, or through any but the one door."""
    if module not in FLOOR:
        return [f"{module}: on no floor; add it to FLOORS in tests/test_house.py"]
    tower = module.split(".")[0]
    complaints = []
    for name in sorted(imported(module, ast.walk(ast.parse(source)))):
        top, target = name.split(".")[0], in_the_house(name)
        if top in OUTSIDE:
            complaints.append(f"{module} imports {name}: towers know nothing of {top}")
        elif tower == "input_pipeline" and top in JAX_FAMILY:
            complaints.append(f"{module} imports {name}: input_pipeline is numpy only")
        elif top not in FLOORS:
            continue
        elif top == tower and target not in FLOOR:
            complaints.append(f"{module} imports {name}, which is on no floor")
        elif top == tower and FLOOR[target] >= FLOOR[module]:
            floors = f"floor {FLOOR[target]} from floor {FLOOR[module]}"
            complaints.append(f"{module} imports {target}: {floors}")
        elif top != tower and target != CONTRACT:
            if module not in DOORS:
                complaints.append(f"{module} imports {target}: only {CONTRACT} is open")
            elif target.split(".")[-1] not in DOORS[module].split():
                complaints.append(f"{module} imports {target}: not a feature file")
    return complaints


def heavy_complaints(module: str, source: str) -> list[str]:
    """Libraries that cost seconds or may be absent, imported at module level."""
    at_import = imported(module, run_at_import(ast.parse(source)))
    heavy = sorted(name for name in at_import if name.split(".")[0] in HEAVY)
    return [f"{module} imports {name} at module level" for name in heavy]


TOUCHES_DEVICES = (
    "jax.config",
    "jax.default_backend",
    "jax.device_count",
    "jax.device_put",
    "jax.devices",
    "jax.distributed",
    "jax.eval_shape",
    "jax.local_device",
    "jax.make_mesh",
    "jax.numpy.",
    "jax.process_",
    "jax.random.",
    "absl.flags.DEFINE",
    "absl.app.run",
)
TOUCHES_NOTHING = {"jax.numpy.dtype", "jax.numpy.finfo", "jax.numpy.iinfo"}


def import_time_complaints(module: str, source: str) -> list[str]:
    """Devices asked for, arrays made, flags or configuration set, at module level."""
    if module in STARTS:
        return []
    nodes = list(run_at_import(ast.parse(source)))
    aliases = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            aliases |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {
                a.asname or a.name: f"{node.module}.{a.name}" for a in node.names
            }
    done = [n.func for n in nodes if isinstance(n, ast.Call)]
    done += [t for n in nodes if isinstance(n, ast.Assign) for t in n.targets]
    names = (dotted(node, aliases) for node in done)
    return [
        f"{module} runs {name} at import"
        for name in names
        if name.startswith(TOUCHES_DEVICES) and name not in TOUCHES_NOTHING
    ]


def future_complaints(module: str, source: str) -> list[str]:
    """Postponed annotations, which hide the shapes from the checker."""
    if "__future__.annotations" in imported(module, ast.walk(ast.parse(source))):
        return [f"{module}: no `from __future__ import annotations` in the towers"]
    return []


def length_complaints(module: str, source: str) -> list[str]:
    """Files that hold more than one concept."""
    lines = len(source.splitlines())
    return [f"{module}: {lines} lines; split it"] if lines > MAX_LINES else []


# --- applied to every file ---


@pytest.mark.parametrize("module", TOWERS)
@pytest.mark.parametrize(
    "rule", [floor_complaints, heavy_complaints, future_complaints]
)
def test_a_file_of_the_towers_keeps_the_rule(module, rule):
    assert rule(module, TOWERS[module].read_text()) == []


@pytest.mark.parametrize("module", EVERYTHING)
@pytest.mark.parametrize("rule", [import_time_complaints, length_complaints])
def test_a_file_keeps_the_rule(module, rule):
    assert rule(module, EVERYTHING[module].read_text()) == []


@pytest.mark.parametrize("tower", FLOORS)
def test_packages_import_nothing(tower):
    for path in (ROOT / tower).rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Expr) for node in body), path


def order(graph: dict[str, set[str]]) -> list[str]:
    """The modules, each after those it imports; CycleError where that is impossible."""
    return list(graphlib.TopologicalSorter(graph).static_order())


def test_there_are_no_circles():
    order(
        {
            module: {in_the_house(name) for name in imported(module, ast.walk(tree))}
            for module, path in EVERYTHING.items()
            for tree in [ast.parse(path.read_text())]
        }
    )


def run_python(program: str) -> str:
    """The error output of a fresh interpreter; "" where all went well."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
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


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("jax_atvg.nowhere", "", "add it to FLOORS in tests/test_house.py"),
        (
            "jax_atvg.training.losses",
            "import jax_atvg.training.loop",
            "floor 9 from floor 2",
        ),
        (
            "jax_atvg.training.losses",
            "from jax_atvg import metrics",
            "floor 2 from floor 2",
        ),
        (
            "jax_atvg.training.losses",
            "from jax_atvg.training.state import f",
            "jax_atvg.training.state: floor 6",
        ),
        ("jax_atvg.training.losses", "from . import train", "floor 9"),
        ("jax_atvg.models.layers", "from ..state import f", "floor 6 from floor 3"),
        (
            "jax_atvg.training.losses",
            "def f():\n    import jax_atvg.training.loop",
            "floor 9",
        ),
        ("jax_atvg.training.losses", "from jax_atvg.nowhere import f", "on no floor"),
        ("jax_atvg.training.losses", "import main", "know nothing of main"),
        (
            "input_pipeline.media.audio",
            "import configs.vg_grid",
            "know nothing of configs",
        ),
        (
            "jax_atvg.training.loop",
            "import input_pipeline.training_data.loader",
            "only input_pipeline.clip",
        ),
        (
            "jax_atvg.training.loop",
            "from input_pipeline import video",
            "only input_pipeline",
        ),
        (
            "jax_atvg.inference.animate",
            "from input_pipeline import loader",
            "not a feature file",
        ),
        (
            "jax_atvg.evaluation.scores",
            "import input_pipeline.training_data.sampling",
            "not a feature file",
        ),
        ("input_pipeline.training_data.loader", "import jax", "numpy only"),
        (
            "input_pipeline.training_data.loader",
            "def f():\n    from jax import numpy",
            "numpy only",
        ),
        (
            "input_pipeline.training_data.loader",
            "import orbax.checkpoint as ocp",
            "numpy only",
        ),
        (
            "input_pipeline.training_data.loader",
            "from jax_atvg import rng",
            "numpy only",
        ),
        (
            "input_pipeline.media.audio",
            "import input_pipeline.faces.align",
            "floor 2 from floor 1",
        ),
    ],
)
def test_a_wrong_import_is_found(module, source, complaint):
    (found,) = floor_complaints(module, source)
    assert complaint in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jax_atvg.training.losses", "from jax_atvg.arrays import Video"),
        (
            "jax_atvg.training.losses",
            "import jax\nfrom input_pipeline.clip import MOUTH",
        ),
        ("jax_atvg.training.losses", "from input_pipeline import clip"),
        ("jax_atvg.models.vg_net", "from . import layers"),
        (
            "jax_atvg.inference.animate",
            "from input_pipeline import align, audio, faces",
        ),
        (
            "input_pipeline.training_data.loader",
            "import jaxtyping, grain\nfrom . import sampling",
        ),
    ],
)
def test_a_right_import_is_left_alone(module, source):
    assert floor_complaints(module, source) == []


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
    (found,) = import_time_complaints("jax_atvg.training.losses", source)
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
    assert import_time_complaints("jax_atvg.training.losses", source) == []


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
    assert "jax" in import_without({"jax"}, ["jax_atvg.training.losses"])
