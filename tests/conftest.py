"""Set-up shared by all tests: shape checks, eight simulated devices, reference data."""

import contextlib
import importlib.util
import mmap
import os
import pathlib

import jax
import jaxtyping
import numpy as np
import pytest

jaxtyping.install_import_hook(["jax_atvg", "input_pipeline"], "beartype.beartype")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The same small programs are compiled by many tests, here and in their processes, to
# which the environment is handed on.
CACHE = os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla")
)
LEAST = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", float(LEAST))
# Small networks take longer to compile than to run: with most of XLA's optimisations
# left out, and with its older code for fused loops, a GAN step compiles in a fifth of
# the time.  `make smoke` and `make demo` run what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", True)
XLA_FLAGS = {
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}


def known(flag: str) -> bool:
    """Whether this version of XLA has the flag; it ends the process for others.  (Those
    that it no longer has may be in its tables, but not as texts of their own.)"""
    package = pathlib.Path(importlib.util.find_spec("jaxlib").origin).parent
    for path in package.glob("libjax_common.*"):  # .so, on macOS .dylib
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
        ):
            return library.find(b"\0" + flag.encode() + b"\0") >= 0
    return False


# Read when the first program is compiled.
os.environ["XLA_FLAGS"] = " ".join(
    [f"--{name}={value}" for name, value in XLA_FLAGS.items() if known(name)]
    + [os.environ.get("XLA_FLAGS", "")]
).strip()

SHARED = pathlib.Path(os.environ.get("ATVG_SHARED", ROOT.parent / "shared"))


def shared_path(*parts: str) -> pathlib.Path:
    """A path in the shared folder; skips the test where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference data {'/'.join(parts)} not found; set ATVG_SHARED")
    return path


@pytest.fixture(scope="session")
def reference():
    """reference("units.npz") -> its arrays; skips without the shared folder."""
    return lambda name: np.load(shared_path("reference", name))


@pytest.fixture(scope="session")
def shared():
    """shared("data", "grid") -> path; skips without the shared folder."""
    return shared_path


@contextlib.contextmanager
def optimised():
    """What is compiled in the block is optimised as for users: sums are more exact, and
    what takes seconds to run takes less."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", params=["cpu", "native"])
def convolution_form(request):
    """Runs what uses it with both forms of the convolutions, as XLA optimises them."""
    from jax_atvg.models import convolutions

    jax.clear_caches()  # what was traced before holds the other form
    with optimised(), convolutions.form(request.param):
        yield request.param
    jax.clear_caches()


# Seconds of a core that each takes; the longest are begun first, so that both workers
# end together.  What is not in this list, nor marked slow, is quick.
SECONDS = {
    "test_hostile": 80,
    "test_reference_steps": 65,
    "test_train_processes": 60,
    "test_loop": 50,
    "test_parity": 45,
    "test_tour": 45,
    "test_accelerator": 40,
    "test_train_step": 40,
    "test_dub": 40,
    "test_redraw": 15,
    "test_painting": 12,
    "test_kills": 35,
    "test_prepare": 30,
    "test_on_beam": 30,
    "test_cost": 28,
    "test_stablehlo": 28,
    "test_listening": 28,
    "test_serve": 25,
    "test_validation": 26,
    "test_convolutions": 25,
    "test_demo": 22,
    "test_page": 28,
    "test_live_page": 15,
    "test_main": 16,
    "test_reference_networks": 16,
    "test_steps": 16,
    "test_options": 15,
    "test_default_model": 14,
    "test_precision": 14,
    "test_restore": 13,
    "test_speed": 13,
    "test_batches": 12,
    "test_mouth_terms": 12,
    "test_ablation": 11,
    "test_fine_tuning": 11,
    "test_recording": 9,
    "test_evaluate": 9,
    "test_networks": 9,
    "test_batch": 8,
    "test_stills": 8,
    "test_lips": 8,
    "test_workdir": 8,
    "test_sync": 8,
    "test_several_clips": 8,
    "test_loader": 8,
    "test_recognition": 8,
    "test_animate": 8,
    "test_http_api": 8,
    "test_uploads": 8,
}


@pytest.hookimpl(tryfirst=True)  # before -m chooses among the marks
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem not in SECONDS and not item.get_closest_marker("slow"):
            item.add_marker("quick")
    items.sort(key=lambda item: -SECONDS.get(item.path.stem, 0))
