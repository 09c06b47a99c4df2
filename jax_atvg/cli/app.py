"""The command line: `python main.py VERB --flags`, installed as `jax-atvg`.

Bad input ends with one line on standard error and exit code 2; the loss of another
process of the run with 75: start all of them again.
"""

import difflib
import errno
import os
import pathlib
import sys
import warnings

from absl import flags as absl_flags

import jax_atvg
from input_pipeline.clip import InputError
from jax_atvg.cli import (
    animate,
    compile_step,
    dub,
    evaluate,
    export,
    import_torch,
    inspect_data,
    prepare,
    serve,
    train,
)
from jax_atvg.cli.console import complain
from jax_atvg.cli.flags import Flags, UsageError
from jax_atvg.training import distributed

VERBS = {  # in the order in which a project uses them
    "animate": animate,
    "dub": dub,
    "serve": serve,
    "prepare": prepare,
    "inspect": inspect_data,
    "train": train,
    "compile": compile_step,
    "export": export,
    "evaluate": evaluate,
    "import_torch": import_torch,
}
HELP = ("--help", "-h", "-help", "help")
INTERRUPTED = 130
# What a disk says that is full, read-only or gone, to whichever part was writing.
DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE, errno.ENOTDIR),
}
NO_DEVICE_MEMORY = "RESOURCE_EXHAUSTED"  # as XLA says it


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, 2 for bad input, 75 for a lost process, 130 when interrupted.

    arguments: the program's name and what follows it; the process's own unless given.
    """
    name, *words = sys.argv if arguments is None else arguments
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        return run(program(name), words)
    except (InputError, absl_flags.Error) as error:
        complain(error)
        return 2
    except distributed.PeerLost as error:
        complain(error)
        return os.EX_TEMPFAIL
    except BrokenPipeError:  # whoever read the output, as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in DISK:
            raise
        complain(
            f"{error.filename or 'a file'}: {error.strerror}; make room, or choose a "
            "folder that can be written"
        )
        return 2
    except MemoryError as error:
        reason = str(error) or "none is left"
        complain(
            f"not enough memory ({reason}); close other programs, or make the input or "
            "the batch smaller"
        )
        return 2
    except RuntimeError as error:  # among others, all of XLA's
        if not str(error).startswith(NO_DEVICE_MEMORY):
            raise
        reason = str(error).splitlines()[0]
        complain(
            f"the device has not enough memory ({reason}); make the batch smaller, or "
            "compute in bfloat16"
        )
        return 2
    except KeyboardInterrupt:
        complain("interrupted; what was unfinished is removed")
        return INTERRUPTED


def start() -> None:
    """Runs the command line and ends the process."""
    distributed.leave(main())


def run(name: str, words: list[str]) -> int:
    if not words or words[0] in HELP:
        print(overview(name))
        return 0 if words else 2
    if words[0] == "--version":
        print(f"jax_atvg {jax_atvg.__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        alike = difflib.get_close_matches(verb, VERBS, 1)
        meant = f"; {alike[0]} meant?" if alike else ""
        raise InputError(
            f"{verb} asked for{meant}; say first what to do, one of "
            f"{', '.join(VERBS)}; `{name} --help` explains them"
        )
    flags = Flags(rest)
    VERBS[verb].flags(flags)
    if set(HELP[:3]) & set(rest):
        print(manual(name, verb, flags))
        return 0
    try:
        given = flags.parse()
    except absl_flags.UnrecognizedFlagError as error:
        raise InputError(unknown_flag(error.flagname, name, verb)) from error
    except (UsageError, absl_flags.Error) as error:
        hint = f"`{name} {verb} --help` explains the flags"
        raise InputError(f"{verb}: {error}; {hint}") from error
    return VERBS[verb].run(given)


def program(path: str) -> str:
    """How the user calls this program."""
    name = pathlib.PurePath(path).name
    return f"python {name}" if name.endswith(".py") else name


def overview(name: str) -> str:
    """The verbs, a line each."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {summary(module)}" for verb, module in VERBS.items()]
    return "\n".join(
        [
            "A face photo and a speech recording become a talking-face video.",
            "",
            f"  {name} VERB --flag=value ...",
            f"  {name} VERB --help",
            "",
            *lines,
        ]
    )


def summary(module) -> str:
    return module.__doc__.strip().splitlines()[0].rstrip(".")


def manual(name: str, verb: str, flags: Flags) -> str:
    """What a verb does, an example, and its flags."""
    text = VERBS[verb].__doc__.strip().replace("python main.py", name)
    return f"{name} {verb}: {text}\n\n{flags.help()}"


def unknown_flag(flag: str, name: str, verb: str) -> str:
    """Names the verbs that have the flag, or flags of this verb that are spelt
    alike."""
    having = {}
    for other, module in VERBS.items():
        flags = Flags()
        module.flags(flags)
        having[other] = [one.name for one in flags.declared]
    others = [other for other, names in having.items() if flag in names]
    if others:
        return (
            f"--{flag} is a flag of {' and '.join(others)}, {verb} has none of that "
            f"name; `{name} {verb} --help` lists its own"
        )
    alike = difflib.get_close_matches(flag, having[verb], 1)
    meant = f"; --{alike[0]} meant?" if alike else ""
    return f"--{flag}: {verb} has no such flag{meant}; see `{name} {verb} --help`"
