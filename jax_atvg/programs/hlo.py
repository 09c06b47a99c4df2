"""Analyses a program's HLO text: arithmetic, memory traffic, collectives.

XLA's own analysis counts the body of a loop once; here it counts as often as it runs.
"""

import collections
import functools
import json
import math
import re
from typing import Any, NamedTuple

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# These operations neither read nor write memory.
FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "while",
    "conditional",
    "call",
    "async-start",
    "opt-barrier",
)
# The names of all other types tell how many bits they have.
BYTES = {"pred": 1, "bf16": 2, "token": 0, "opaque": 0}

ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
CALLED = re.compile(
    r"(?:calls|body|condition|to_apply)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}"
)
NAME = re.compile(r"%([\w.\-]+)")
BARE_NAME = re.compile(r"[A-Za-z_][\w.\-]*")  # in programs not compiled yet


def flops_of(lowered: Any) -> int:
    """The multiplications and additions of a program that jax has lowered and XLA not
    yet changed: see Program.flops.  On all of its devices together."""
    return Program(lowered.compiler_ir("hlo").as_hlo_text()).flops()


class Array(NamedTuple):
    """An array in a program.

    kind: "f32", "bf16" ...  fast: it is kept in the chip's own memory, not in HBM.
    """

    kind: str
    dims: tuple[int, ...]
    fast: bool

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = re.search(r"\d+", self.kind)
        each = BYTES.get(self.kind, int(bits[0]) / 8 if bits else 4)
        return int(self.size * each)


class Instruction(NamedTuple):
    """An instruction of a program.

    op: the operation.  out: the results, those of a tuple in order.  operands: their
    names.  text: the line from the operation on.
    """

    name: str
    op: str
    out: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str


class Program:
    """A program, compiled or not, read from its text.

    parts: {name of a computation: {name: Instruction}}.  entry: the name of the
    computation with which the program begins.
    """

    def __init__(self, text: str):
        self.parts, self.entry = {}, ""
        for line in text.splitlines():
            if head := HEAD.match(line):
                self.parts[head[2]] = part = {}
                self.entry = head[2] if head[1] else self.entry
            elif found := LINE.match(line):
                part[found[1]] = instruction(found[1], found[2])

    @functools.cached_property
    def times(self) -> dict[str, int]:
        """How often each computation runs in one run of the program; fused ones, which
        belong to an instruction, are left out."""
        runs = collections.Counter()

        def visit(name: str, times: int) -> None:
            runs[name] += times
            for one in self.parts[name].values():
                if one.op in ("while", "call", "conditional", "async-start"):
                    for called in called_by(one):
                        visit(called, times * self._trips(one))

        visit(self.entry, 1)
        return runs

    def _trips(self, one: Instruction) -> int:
        """How often an instruction runs its computations: for a loop, XLA's note of it
        or else (on TPUs) the constant with which its counter is compared; 1 where there
        is neither, and for all other instructions."""
        if one.op != "while":
            return 1
        if noted := re.search(r'"known_trip_count":(\{[^}]*\})', one.text):
            return int(json.loads(noted[1])["n"])
        condition = self.parts[re.search(r"condition=%?([\w.\-]+)", one.text)[1]]
        for test in condition.values():
            if test.op == "compare" and "direction=LT" in test.text:
                bound = condition.get(test.operands[1])
                if bound and bound.op == "constant":
                    return int(re.search(r"constant\((\d+)\)", bound.text)[1])
        return 1

    def instructions(self):
        """(instruction, all instructions of its computation, how often it runs)."""
        for name, times in self.times.items():
            for one in self.parts[name].values():
                yield one, self.parts[name], times

    def collectives(self) -> dict[str, tuple[int, int]]:
        """kind -> (count, bytes of the results), per run of the program and device."""
        found, channels = collections.defaultdict(lambda: (0, 0)), set()
        for outer, part, times in self.instructions():
            for one, _ in self._within(outer, part):
                kind = one.op.removesuffix("-start")
                if kind not in COLLECTIVES:
                    continue
                # On a TPU one collective may occur in several fusions, with what runs
                # at the same time: each channel counts once.
                if channel := re.search(r"channel_id=(\d+)", one.text):
                    if channel[1] in channels:
                        continue
                    channels.add(channel[1])
                arrays = one.out
                if one.op == "all-gather-start":  # operands, then as many results
                    arrays = one.out[len(one.out) // 2 :]
                elif one.op == "collective-permute-start":  # operand, result, others
                    arrays = one.out[1:2]
                size = sum(array.bytes for array in arrays)
                count, total = found[kind]
                found[kind] = count + times, total + times * size
        return dict(found)

    def cycles(self) -> int:
        """The compiler's own estimate of the time, the sum over all instructions; 0 on
        platforms other than TPUs, where the compiler notes none."""
        return sum(
            times * int(noted[1])
            for one, _, times in self.instructions()
            if (noted := re.search(r'"estimated_cycles":"(\d+)"', one.text))
        )

    def operations(self) -> int:
        """How many instructions run that do something: on a GPU each is the start of a
        kernel, and takes a few microseconds at least."""
        return sum(
            times
            for one, _, times in self.instructions()
            if one.op not in FREE and not one.op.endswith("-done")
        )

    def flops(self) -> int:
        """The multiplications and additions of convolutions and matrix products.

        Products with the zeros of padding count like any other; those with the zeros
        between the pixels of a dilated picture do not count, because XLA's estimates of
        such convolutions show that a TPU leaves them out.
        """
        total = 0
        for one, part, times in self.instructions():
            total += times * sum(
                products(inner, inside) for inner, inside in self._within(one, part)
            )
        return 2 * total

    def _within(self, one: Instruction, part: dict):
        """The instruction itself, or those that were fused into it, at any depth."""
        if one.op != "fusion":
            yield one, part
            return
        for called in called_by(one):
            for inner in self.parts[called].values():
                yield from self._within(inner, self.parts[called])

    def memory_bytes(self) -> int:
        """The bytes read from and written to HBM: the operands and results of every
        instruction that is not fused into another; of a slice, only the slice."""
        total = 0
        for one, part, times in self.instructions():
            if one.op not in FREE and not one.op.endswith("-done"):
                total += times * self._traffic(one, part)
        return total

    def _traffic(self, one: Instruction, part: dict) -> int:
        """The bytes that one run of an instruction reads from and writes to HBM."""
        if one.op == "copy-start":  # results: destination, source
            return in_hbm(one.out[:2])
        if one.op == "slice-start":  # results: source, slice, others
            read = 0 if one.out[0].fast else one.out[1].bytes
            return read + in_hbm(one.out[1:2])
        if one.op == "dynamic-slice":
            return 2 * in_hbm(one.out)
        if one.op == "dynamic-update-slice":
            return 2 * in_hbm(part[one.operands[1]].out)
        read = [part[name].out for name in one.operands if name in part]
        if one.op != "fusion":
            return sum(map(in_hbm, read)) + in_hbm(one.out)
        (name,) = called_by(one)
        fused = self.parts[name]
        written = in_hbm(one.out)
        root = list(fused.values())[-1]
        passed_on = root.operands if root.op == "tuple" else ()
        for name in passed_on:  # not read or written unless otherwise used
            if fused[name].op == "parameter":
                written -= in_hbm(fused[name].out)
        parameters = sorted(
            (int(re.search(r"parameter\((\d+)\)", p.text)[1]), p.name)
            for p in fused.values()
            if p.op == "parameter"
        )
        total = 0
        for arrays, (_, parameter) in zip(read, parameters, strict=False):
            users = [
                u
                for u in fused.values()
                if parameter in u.operands and not (u is root and passed_on)
            ]
            if not users and parameter in passed_on:
                continue
            if users and all(
                u.op == "dynamic-slice" and u.operands[0] == parameter for u in users
            ):
                total += sum(map(in_hbm, (u.out for u in users)))
            elif users and all(
                u.op == "dynamic-update-slice" and u.operands[0] == parameter
                for u in users
            ):  # in place: only the new slice is written
                for u in users:
                    written -= in_hbm(u.out) - in_hbm(fused[u.operands[1]].out)
            else:
                total += in_hbm(arrays)
        return total + max(written, 0)


def instruction(name: str, rest: str) -> Instruction:
    """Parses an instruction.  rest: "f32[2,3]{1,0} add(%a, %b), metadata=..." """
    end = matching(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    op = rest[: rest.index("(")]
    close = matching(rest, len(op))
    given = rest[len(op) : close]
    operands = tuple(NAME.findall(given) or BARE_NAME.findall(given))
    return Instruction(name, op, arrays(shape), operands, rest)


def matching(text: str, start: int) -> int:
    """The position of the parenthesis that closes the one at start."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    raise ValueError(f"unbalanced: {text[start : start + 60]}")


def arrays(shape: str) -> tuple[Array, ...]:
    """Parses a shape: "f32[2,3]{1,0}", or a tuple of such in parentheses."""
    return tuple(
        Array(kind, tuple(map(int, filter(None, dims.split(",")))), "S(1)" in layout)
        for kind, dims, layout in ARRAY.findall(shape)
    )


def in_hbm(arrays: tuple[Array, ...]) -> int:
    """The bytes of those arrays that are in HBM."""
    return sum(array.bytes for array in arrays if not array.fast)


def called_by(one: Instruction) -> list[str]:
    """The names of the computations that an instruction runs."""
    return [
        name.strip().lstrip("%")
        for alone, several in CALLED.findall(one.text)
        for name in (alone or several).split(",")
    ]


def products(one: Instruction, part: dict) -> int:
    """The multiplications of a convolution or matrix product; 0 of other operations."""
    if one.op == "convolution":
        labels = re.search(r"dim_labels=\w+_(\w+)->", one.text)[1]
        kernel = part[one.operands[1]].out[0]
        apart = re.search(r"lhs_dilate=([\dx]+)", one.text)
        zeros = math.prod(map(int, apart[1].split("x"))) if apart else 1
        taps = kernel.size // kernel.dims[labels.index("o")]
        return one.out[0].size * taps // zeros
    if one.op == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.text)
        left = part[one.operands[0]].out[0]
        over = [left.dims[int(i)] for i in found[1].split(",")] if found else []
        return one.out[0].size * math.prod(over)
    return 0
