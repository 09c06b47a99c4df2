"""The rules of the structure, as functions (module name, source) -> complaints."""

import ast
import pathlib
import sys

from tests.conftest import ROOT

# What the files of a folder (or a single file) may import, beside their own folder.
# Both packages share `shared`; input_pipeline knows nothing of jax or jax_atvg.
SHARED = (
    *("input_pipeline.clip", "input_pipeline.files", "input_pipeline.progress"),
    "input_pipeline.workers",
)
FEATURES = ("input_pipeline.media", "input_pipeline.faces")
BASE = ("jax_atvg", "jax_atvg.arrays", "jax_atvg.sharding", "jax_atvg.resources")
ALLOWED = {
    "input_pipeline.clip": (),
    "input_pipeline.files": ("input_pipeline.clip",),
    "input_pipeline.progress": (),
    "input_pipeline.workers": (),
    "input_pipeline.media": SHARED,
    "input_pipeline.faces": (*SHARED, "input_pipeline.media"),
    "input_pipeline.training_data": (*SHARED, *FEATURES),
    "input_pipeline.preparation": (*SHARED, *FEATURES, "input_pipeline.training_data"),
    "jax_atvg.arrays": (),
    "jax_atvg.resources": (),
    "jax_atvg.machine": (),
    "jax_atvg.sharding": SHARED,
    "jax_atvg.programs": (),
    "jax_atvg.models.cpu": ("jax_atvg.arrays",),
    "jax_atvg.models": (*SHARED, "jax_atvg.arrays", "jax_atvg.models.cpu"),
    "jax_atvg.inference": (*SHARED, *FEATURES, *BASE, "jax_atvg.models"),
    "jax_atvg.training": (
        *(*SHARED, *FEATURES, *BASE, "input_pipeline.training_data"),
        *("jax_atvg.machine", "jax_atvg.models", "jax_atvg.inference"),
        "jax_atvg.programs",
    ),
    "jax_atvg.evaluation": (
        *(*SHARED, *FEATURES, *BASE, "input_pipeline.training_data"),
        *("jax_atvg.models", "jax_atvg.inference"),
    ),
    "jax_atvg.ahead_of_time": (
        *SHARED,
        *BASE,
        "jax_atvg.programs",
        "jax_atvg.training",
    ),
}
ALLOWED["jax_atvg.web"] = (*SHARED, *FEATURES, *BASE, "jax_atvg.inference")
ALLOWED["jax_atvg.cli"] = (*ALLOWED, "jax_atvg")
PACKAGES = ("input_pipeline", "jax_atvg")

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


SOURCES = modules(*PACKAGES)
EVERYTHING = {**SOURCES, **modules("configs", "tests", "benchmarks")}
EVERYTHING["main"] = ROOT / "main.py"
# These may set flags and devices: they are where a program starts.
STARTS = {"main", "tests.conftest"}


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


def folder_of(name: str) -> str:
    """jax_atvg.training.losses.landmark_loss -> jax_atvg.training; "" for names of
    neither package, the package itself for what is in no folder of it."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return ""
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in ALLOWED), parts[0])


def module_of(name: str) -> str:
    """jax_atvg.training.losses.landmark_loss -> jax_atvg.training.losses."""
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in EVERYTHING), name)


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


def arrow_complaints(module: str, source: str) -> list[str]:
    """Imports from a folder that this one may not know."""
    folder, complaints = folder_of(module), []
    if folder in PACKAGES:
        return [f"{module}: in no folder; add it to ALLOWED in tests/test_house.py"]
    for name in sorted(imported(module, ast.walk(ast.parse(source)))):
        top, target = name.split(".")[0], folder_of(name)
        if top in ("main", "configs", "tests", "benchmarks"):
            complaints.append(
                f"{module} imports {name}: packages know nothing of {top}"
            )
        elif top in JAX_FAMILY and module.startswith("input_pipeline"):
            complaints.append(f"{module} imports {name}: input_pipeline is numpy only")
        elif target and target not in (folder, *ALLOWED[folder]):
            complaints.append(
                f"{module} imports {name}: {folder} may not know {target}"
            )
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
        return [f"{module}: no `from __future__ import annotations` in the packages"]
    return []


def length_complaints(module: str, source: str) -> list[str]:
    """Files that hold more than one concept."""
    lines = len(source.splitlines())
    return [f"{module}: {lines} lines; split it"] if lines > MAX_LINES else []


def name_complaints(module: str, source: str) -> list[str]:
    """Files that are called as a standard module, which they would hide or be taken
    for."""
    name = module.split(".")[-1]
    known = name in sys.stdlib_module_names
    return [f"{module} is called as the standard {name}"] if known else []
