"""Several processes of one run: how they connect, and how each ends when one is lost.

Every step needs all of them.  When one has died, JAX gives the others an error (CPU,
GPU) or aborts them (TPU, or while they wait for each other); a new start of all goes on
from the newest checkpoint.
"""

import atexit
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from input_pipeline.clip import InputError, first_line

AUTO, NONE = "auto", "none"
# How errors of JAX about a broken connection begin; they are RuntimeErrors or
# ValueErrors.
BROKEN = ("ABORTED: ", "CANCELLED: ", "DEADLINE_EXCEEDED: ", "UNAVAILABLE: ")
# So begin errors of collectives, too, and of a device's own libraries: only these words
# tell them apart.
UNCLEAR = ("INTERNAL: ", "UNKNOWN: ")
COLLECTIVE = re.compile(
    r"gloo|nccl|collective|all.?reduce|all.?gather|all.?to.?all|barrier|heartbeat|"
    r"coordination|connection|socket|peer|remote",
    re.IGNORECASE,
)
AGAIN = "start all processes again: the run goes on from its newest checkpoint"

withdrawals: list[Callable[[], None]] = []  # of this process, see last_words


class PeerLost(RuntimeError):
    """Another process of the run has ended or cannot be reached."""


def connect(
    coordinator: str = AUTO,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 100,
) -> None:
    """Joins the other processes of the run.  To be called before JAX sees its devices.

    coordinator: "host:port" of process 0, with the two numbers; "auto": where a TPU
    pod, SLURM or another cluster that JAX knows says who takes part, and nothing
    elsewhere; "none": this process is alone.  timeout: seconds to wait for the others
    at the start, and after which a silent one counts as lost.
    InputError: numbers missing, too many or out of range, no port.
    """
    given = num_processes is not None, process_id is not None
    if coordinator in (AUTO, NONE):
        if any(given):
            raise InputError(
                "--num_processes and --process_id need --coordinator=host:port, which "
                f"is {coordinator}; give it, or leave them out"
            )
        if coordinator == NONE or os.environ.get("SLURM_NTASKS") == "1":
            return
    elif not all(given):
        raise InputError(
            f"--coordinator={coordinator} needs --num_processes and --process_id, too"
        )
    elif not coordinator.rpartition(":")[2].isdecimal():
        raise InputError(
            f"--coordinator={coordinator}: give host:port, as 10.0.0.1:8476"
        )
    elif not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id={process_id}: with --num_processes={num_processes} it must "
            f"be one of 0 to {num_processes - 1}"
        )
    import jax

    withdraw = last_words(
        "error: this process was killed, or stopped because another one of the run "
        f"was lost or did not come within {timeout} s; see above, then {AGAIN}.  (Not "
        "part of a cluster?  --coordinator=none)"
    )
    try:
        with warnings.catch_warnings():
            # Kubernetes without its package: then it is not asked.
            warnings.simplefilter("ignore")
            jax.distributed.initialize(
                None if coordinator == AUTO else coordinator,
                num_processes,
                process_id,
                initialization_timeout=timeout,
                heartbeat_timeout_seconds=timeout,
                shutdown_timeout_seconds=timeout,
            )
    except ValueError as error:
        # That nobody says where process 0 is: there is no cluster.
        if coordinator != AUTO or "coordinator_address" not in str(error):
            raise
        withdraw()  # no cluster: alone
        return
    atexit.register(withdraw)
    withdrawals.append(withdraw)


def last_words(text: str) -> Callable[[], None]:
    """Has text printed on standard error when this process ends in any way, unless
    what is returned is called: JAX aborts processes without running any more Python.
    """
    watcher = subprocess.Popen(
        ["sh", "-c", 'read -r _ || printf "%s\n" "$0" >&2', text],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process
    )

    def withdraw() -> None:
        if watcher.poll() is None:
            watcher.communicate(b"\n")

    return withdraw


def peer_lost(error: Exception) -> PeerLost | None:
    """What an error of JAX or orbax means where there are several processes: most
    likely that one is gone.  None: any other error, or a single process."""
    import jax

    if isinstance(error, PeerLost):
        return error
    text = first_line(error)
    connection = (
        text.startswith(BROKEN)
        or isinstance(error, TimeoutError)
        or (text.startswith(UNCLEAR) and COLLECTIVE.search(text))
    )
    if jax.process_count() == 1 or not connection:
        return None
    return PeerLost(
        f"process {jax.process_index()} of {jax.process_count()}: another process of "
        f"the run has ended ({text}); look for the first error in the output of the "
        f"others, then {AGAIN}"
    )


def leave(code: int) -> NoReturn:
    """Ends this process with the exit code; after an error at once where there are
    others, which would wait for each other in vain."""
    if code and "jax" in sys.modules:
        import jax

        if jax.distributed.is_initialized():
            sys.stdout.flush()
            sys.stderr.flush()
            for withdraw in withdrawals:
                withdraw()
            os._exit(code)
    sys.exit(code)
