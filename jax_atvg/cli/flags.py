"""The flags of one verb: how they are declared, parsed and explained.

A verb's file declares its flags in a function and gets their values as attributes:

    def flags(add: Flags) -> None:
        add.path("image", "A photo with a face.", required=True)

    def run(given: Given) -> int:
        print(given.image)
"""

import os
import textwrap
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags as absl_flags

from input_pipeline.clip import InputError
from input_pipeline.files import same_place
from jax_atvg.models.sizes import PRECISIONS
from jax_atvg.resources import DEFAULT_BUNDLE

WIDTH = 88  # columns of the help

REASONS = {  # a part of what absl or ml_collections say -> the rule
    "invalid literal for int": "must be a whole number",
    "could not convert string to float": "must be a number",
    "Non-boolean argument": "must be true or false",
    "as instance of": "is a group of fields; set one, as --config.GROUP.FIELD=VALUE",
}

Given = types.SimpleNamespace  # the values, by the flags' names


class UsageError(InputError):
    """Flags that do not make a command: the verb's help explains them."""


class Declared(NamedTuple):
    """A flag, for the help.  kind: "PATH", "N", ...  default: as it is shown."""

    name: str
    kind: str
    text: str
    default: str
    required: bool


class Flags:
    """The flags of one verb, in the order of their declaration."""

    def __init__(self, arguments: Sequence[str] = ()):
        self.values = absl_flags.FlagValues()
        self.arguments = list(arguments)
        self.declared: list[Declared] = []
        self.paths: list[str] = []
        self.replaced: dict[str, str] = {}  # a flag -> the one that replaces it

    def _declare(self, define, name, kind, text, default, required, shown, **how):
        how |= {"name": name, "default": default, "help": text}
        define(flag_values=self.values, **how)
        if shown is None:
            shown = "" if default in (None, "", []) else str(default)
        self.declared.append(Declared(name, kind, text, shown, required))

    def text(
        self,
        name: str,
        text: str,
        default: str | None = None,
        *,
        kind: str = "TEXT",
        required: bool = False,
    ) -> None:
        define = absl_flags.DEFINE_string
        self._declare(define, name, kind, text, default, required, None)

    def path(
        self,
        name: str,
        text: str,
        default: str | os.PathLike | None = None,
        *,
        kind: str = "PATH",
        required: bool = False,
        shown: str | None = None,
    ) -> None:
        """A file or folder; ~ is the home folder.  shown: the default, in words."""
        self.paths.append(name)
        value = None if default is None else str(default)
        define = absl_flags.DEFINE_string
        self._declare(define, name, kind, text, value, required, shown)

    def path_list(self, name: str, text: str, *, required: bool = False) -> None:
        """Paths with commas between them."""
        self.paths.append(name)
        define = absl_flags.DEFINE_list
        self._declare(define, name, "PATH[,PATH]", text, [], required, None)

    def word_list(self, name: str, text: str) -> None:
        """Words with commas between them."""
        define = absl_flags.DEFINE_list
        self._declare(define, name, "A,B", text, [], False, None)

    def choice(
        self,
        name: str,
        choices: Sequence[str],
        text: str,
        default: str | None = None,
        *,
        required: bool = False,
    ) -> None:
        define, kind = absl_flags.DEFINE_enum, "|".join(choices)
        self._declare(
            define, name, kind, text, default, required, None, enum_values=choices
        )

    def switch(self, name: str, text: str) -> None:
        """--name, off unless given."""
        define = absl_flags.DEFINE_bool
        self._declare(define, name, "", text, False, False, "")

    def number(
        self,
        name: str,
        text: str,
        default: int | None = None,
        *,
        least: int | None = None,
        most: int | None = None,
        shown: str | None = None,
    ) -> None:
        define = absl_flags.DEFINE_integer
        bounds = {"lower_bound": least, "upper_bound": most}
        self._declare(define, name, "N", text, default, False, shown, **bounds)

    def real(
        self, name: str, text: str, default: float, *, least: float, kind: str = "X"
    ) -> None:
        define = absl_flags.DEFINE_float
        self._declare(define, name, kind, text, default, False, None, lower_bound=least)

    def seconds(self, name: str, text: str, default: float, *, least: float) -> None:
        self.real(name, text, default, least=least, kind="S")

    def config(self, text: str, *, required: bool = True) -> None:
        """--config=NAME, and --config.FIELD=VALUE for every field of it."""
        from ml_collections import config_flags

        from jax_atvg.training.config import Experiment
        from jax_atvg.training.config_files import load_config

        config_flags.DEFINE_config_dataclass(
            "config",
            Experiment(),
            text,
            flag_values=self.values,
            sys_argv=self.arguments,
            parse_fn=load_config,
        )
        self.declared.append(Declared("config", "NAME", text, "", required))

    def parse(self) -> Given:
        """InputError: an unknown flag, a bad value, a required one missing, words."""
        try:
            words = self.values(["", *self.arguments])[1:]
        except (LookupError, TypeError, ValueError) as error:  # no such field
            raise InputError(self._unknown_field(str(error.args[0]))) from error
        except absl_flags.UnrecognizedFlagError:
            raise
        except absl_flags.Error as error:
            if isinstance(error.__context__, InputError):  # of a config's file
                raise error.__context__ from error
            raise UsageError(in_words(str(error))) from error
        if words:
            raise UsageError(f"{' '.join(words)}: not a flag; write --name=value")
        self._check_required()
        values = {one.name: self.values[one.name].value for one in self.declared}
        return Given(**values | {name: expanded(values[name]) for name in self.paths})

    def _unknown_field(self, reason: str) -> str:
        from jax_atvg.training.config import Experiment, flatten, no_such_field

        fields = flatten(Experiment())
        for argument in self.arguments:
            name = argument.lstrip("-").partition("=")[0].removeprefix("config.")
            if argument.lstrip("-").startswith("config.") and name not in fields:
                return no_such_field(name)
        return reason

    def replaces(self, name: str, others: Sequence[str]) -> None:
        """With the flag `name` the others are not required, and must not be given."""
        self.replaced |= dict.fromkeys(others, name)

    def _check_required(self) -> None:
        found = {one.name: self.values[one.name] for one in self.declared}
        given = {n for n, flag in found.items() if flag.present and flag.value != ""}
        beside = {f"--{x}": f"--{y}" for x, y in self.replaced.items() if y in given}
        both = [f"--{x}" for x, y in self.replaced.items() if {x, y} <= given]
        if both:
            raise UsageError(
                f"{' '.join(both)} beside {beside[both[0]]}, which replaces them; "
                "leave one of them out"
            )
        if empty := [n for n in sorted(given) if has_empty_part(found[n].value)]:
            raise UsageError(
                f"--{empty[0]}={','.join(found[empty[0]].value)}: an empty part; "
                "write A,B without a comma at the ends"
            )
        missing = [
            f"--{one.name}"
            for one in self.declared
            if one.required and one.name not in given and f"--{one.name}" not in beside
        ]
        if missing:
            raise UsageError(f"{' '.join(missing)} missing")

    def help(self) -> str:
        """Every flag with its default, required ones first."""
        parts = []
        instead = {f" (or --{name})" for name in self.replaced.values()}
        required = f"Required{''.join(sorted(instead))}:"
        for heading, wanted in ((required, True), ("Options:", False)):
            chosen = [one for one in self.declared if one.required == wanted]
            if chosen:
                parts.append("\n".join([heading, *map(explained, chosen)]))
        return "\n\n".join(parts)


def expanded(value: Any) -> Any:
    """~ becomes the home folder; addresses such as gs://bucket stay."""
    if isinstance(value, list):
        return [expanded(one) for one in value]
    return value and os.path.expanduser(value)


def has_empty_part(value: Any) -> bool:
    """Whether it is a list, as A,,B, in which something is missing."""
    return isinstance(value, list) and not all(value)


def in_words(reason: str) -> str:
    """absl's and ml_collections' reasons without the names of Python's types."""
    flag = reason.removeprefix("flag ").partition(": ")[0]
    for sign, rule in REASONS.items():
        if sign in reason:
            return f"{flag}: {rule}"
    return reason


def explained(one: Declared) -> str:
    """A flag's lines of the help."""
    head = f"  --{one.name}" + (f"={one.kind}" if one.kind else "")
    text = one.text + (f"  (default: {one.default})" if one.default else "")
    indent = " " * 6
    return f"{head}\n" + textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent
    )


# --- the networks: of animate and evaluate ---


def bundle_flag(add: Flags) -> None:
    add.path(
        "bundle",
        "The networks, a folder that `export` wrote.",
        DEFAULT_BUNDLE,
        shown="the one that comes along",
    )


def precision_flag(add: Flags) -> None:
    add.choice(
        "precision",
        PRECISIONS,
        "In which the networks multiply: highest, exact float32; default, what the "
        "platform makes of float32; bfloat16, for GPUs and TPUs.",
        "default",
    )


# --- what several verbs check ---


def refuse_out_as_input(given: Given, *inputs: str, out: str = "out") -> None:
    """InputError: --out is one of these inputs, which would be lost."""
    target = getattr(given, out)
    for name in inputs:
        values = getattr(given, name) or []
        for value in values if isinstance(values, list) else [values]:
            if target and same_place(value, target):
                raise InputError(
                    f"--{out}={target} is --{name}, too, which would be overwritten; "
                    "choose another --" + out
                )


# --- where the face lies in the crop: of prepare and export ---


def template_flags(add: Flags, default: str | None = "default") -> None:
    add.choice(
        "template",
        ("default", "authors"),
        "Where the face lies in the crop: default, or as in the authors' data, which "
        "needs --basics.",
        default,
    )
    add.path("basics", "The folder ATVGnet/basics, with --template=authors.")


def chosen_template(given: Given):
    """The align.Template that --template names; None: it was left out.  InputError:
    --basics is missing."""
    from input_pipeline.faces import align, authors

    if given.template is None:
        return None
    if given.template == "default":
        return align.DEFAULT_TEMPLATE
    if not given.basics:
        raise InputError("--basics missing; --template=authors needs it")
    return align.authors_template(authors.read_basics(given.basics)["base_68"])
