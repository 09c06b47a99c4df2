"""How a process of the command line is set up, before and after jax is imported."""

import ctypes
import logging
import os
import pathlib
import sys
from typing import Any

from input_pipeline.files import in_store


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
    except (OSError, AttributeError, TypeError):
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
    try:
        import resource
    except ImportError:  # Windows
        return
    stack = resource.RLIMIT_STACK
    granted, most = resource.getrlimit(stack)
    if granted == most or "jax" in sys.modules:
        return
    try:
        resource.setrlimit(stack, (most, most))
    except (OSError, ValueError):  # macOS: the kernel's limit is lower than it says
        return
    os.execv(sys.executable, sys.orig_argv)


def set_up_jax(workdir: str | None = None) -> None:
    """A second start takes compiled programs from the user's cache folder, or from that
    which $JAX_COMPILATION_CACHE_DIR names; and an error while arrays are read is told
    once.

    workdir: of a run, whose processes have been connected.  Where there are several,
    the programs are kept in workdir/compiled, or not at all if it is in a store: the
    first process alone writes them, and on GPUs the processes compile together.  With
    a folder of each host's own the first one would find its program at the second
    start, and the others would wait for it for ever.
    """
    import jax

    tell_errors_of_reading_once()
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    if workdir and jax.process_count() > 1:
        if not in_store(workdir):
            folder = pathlib.Path(workdir).absolute() / "compiled"
            jax.config.update("jax_compilation_cache_dir", str(folder))
    else:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home) / "jax_atvg"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # no home that can be written: every start compiles
        jax.config.update("jax_compilation_cache_dir", str(folder))


def tell_errors_of_reading_once() -> None:
    """Many arrays are read at a time.  Where one is damaged, its error ends all of it,
    and the others fail when nobody waits for them any more: asyncio and Python would
    tell of each of them, in a traceback."""
    logging.getLogger("asyncio").addFilter(was_awaited)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = unless_late


def was_awaited(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


def unless_late(event: Any) -> None:
    """Python's own report of an exception that nobody can catch, unless a reading came
    to its end when its event loop was closed."""
    late = isinstance(event.exc_value, RuntimeError)
    if not (late and str(event.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(event)
