"""Measures `main.py animate`: time of every stage, share of the networks, memory.

    python benchmarks/animate.py                  # the original's width: minutes
    python benchmarks/animate.py --small --image=face.jpg --audio=speech.wav

Every run makes two videos of the same photo and sound in a process of its own: the
first run with an empty compilation cache (cold), the others with a filled one (warm).

at: seconds from the start of the process to the beginning of a stage.  lasts: seconds
that the stage takes, waiting included.  CPU: processor seconds of the stage's thread.
Another process finds the face and reads the sound; here only waiting for it appears.
first frame: seconds until it is passed to the encoder, imports included.
networks: the share of a video's wall time in which a chunk of frames was being
computed: for the first video, from the beginning of its preparation to the finished
file; for the second, from there to its own; and for the first counted from the start of
the process.
fetched: bytes of a chunk that cross from the device to the host.
alone: the share that the same chunks would have if nothing ran beside them.
MiB: peak resident memory of the process, and of the one that finds the face.
others: the share of processor time that other programs used; it should be near 0.
"""

import argparse
import builtins
import csv
import functools
import json
import os
import pathlib
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from statistics import median

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LEAST_SECONDS = 0.01  # shorter stages are not shown
IMPORTS = ["jax", "flax", "orbax", "tensorstore", "cv2", "av", "dlib", "scipy"]
PREPARE = "prepare a video"
STAGES = {  # (module, function): name in the table
    ("jax_atvg.inference.bundle", "load_bundle"): "bundle",
    ("jax_atvg.inference.bundle", "begin_reading"): "ask for its arrays",
    ("jax_atvg.inference.bundle", "expected_arrays"): "trace the shapes they must have",
    ("jax_atvg.inference.bundle", "finish_reading"): "wait for them",
    ("input_pipeline.media.audio", "hear_file"): "hear",
    ("jax_atvg.inference.animate", "read_subject"): "photo",
    ("input_pipeline.media.image", "read_image"): "decode",
    ("input_pipeline.faces.detection", "_detector"): "dlib's detector",
    ("input_pipeline.faces.detection", "_detect_gray"): "detect",
    ("input_pipeline.faces.detection", "_predictor"): "dlib's model of 68 points",
}
JAX_STAGES = {  # event of jax.monitoring: name in the table
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile, or read from the cache",
}


# --- the child: one process, two videos ---


class Watch:
    """Records when each stage happens, in seconds since `start` (time.monotonic)."""

    def __init__(self, start: float):
        self.start = start
        self.stages = []  # dicts of name, depth, at, lasts, cpu
        self.busy = []  # (begin, end) of chunks
        self.frames = []  # when each frame went to the encoder
        self.prepared = []  # when the preparation of each video began
        self.finished = []  # when each file had its name
        self.fetched = 0  # bytes of a chunk
        self.chunks = queue.Queue()
        self.depth = threading.local()
        self.seen = set()

    def now(self) -> float:
        return time.monotonic() - self.start

    def note(self, name: str, at: float, cpu: float | None = None, depth: int = 0):
        stage = {"name": name, "depth": depth, "at": at, "lasts": self.now() - at}
        self.stages.append(stage | {"cpu": cpu})

    def timed(self, name: str, function):
        """The function, wrapped so that every call is recorded as a stage."""

        @functools.wraps(function)
        def wrapper(*arguments, **options):
            depth = getattr(self.depth, "now", 0)
            at, cpu, self.depth.now = self.now(), time.thread_time(), depth + 1
            try:
                return function(*arguments, **options)
            finally:
                self.depth.now = depth
                self.note(name, at, time.thread_time() - cpu, depth)

        return wrapper

    def install(self) -> None:
        """Records imports, and the calls of STAGES as soon as their modules exist."""
        plain = builtins.__import__

        def watched(name, *arguments, **options):
            top = name.partition(".")[0]
            new = top in IMPORTS and top not in sys.modules
            what = self.timed(f"import {top}", plain) if new else plain
            module = what(name, *arguments, **options)
            self.wrap()
            return module

        builtins.__import__ = watched
        threading.Thread(target=self.follow, daemon=True).start()

    def wrap(self) -> None:
        for (module, function), name in STAGES.items():
            found = getattr(sys.modules.get(module), function, None)
            if found is not None and (module, function) not in self.seen:
                self.seen.add((module, function))
                setattr(sys.modules[module], function, self.timed(name, found))
        batch = sys.modules.get("jax_atvg.inference.batch")
        if hasattr(batch, "Batch") and "rest" not in self.seen:
            self.seen.add("rest")
            self.watch_networks(batch)

    def watch_networks(self, batch) -> None:
        import jax

        from input_pipeline.media.video import VideoWriter

        networks = sys.modules["jax_atvg.inference.networks"]
        networks, write = networks.Networks, VideoWriter.write
        speak_program, draw_program = networks.speak_program, networks.draw_program
        prepare, close = batch.Batch.prepare, batch.Batch.close

        def prepared(one, job):
            self.prepared.append(self.now())
            wait = self.timed("wait for the other process", job.perceived)
            return timed_prepare(one, job._replace(perceived=wait))

        def closed(*arguments):
            close(*arguments)
            self.finished.append(self.now())

        def watched_speak_program(one):
            program = speak_program(one)

            def speak(*inputs):  # the last is the state, which is donated
                self.speak = functools.partial(program, *inputs[:-1])
                self.requested = self.now()
                landmarks, self.spoken = program(*inputs)
                return landmarks, self.spoken

            return speak

        def watched_draw_program(one, maps=()):
            program = draw_program(one, maps)

            def draw(*inputs):  # the last but one are the landmarks
                self.draw = functools.partial(program, *inputs[:-2])
                made, self.drawn = program(*inputs)  # returns when it is under way
                self.chunks.put((self.requested, made["frames"]))
                shown = jax.tree.leaves((made, inputs[-2]))
                self.fetched = sum(x.nbytes for x in shown)
                return made, self.drawn

            return draw

        def counted(writer, frame):
            self.frames.append(self.now())
            write(writer, frame)

        def jax_stage(event: str, seconds: float, **_):
            if event in JAX_STAGES:
                self.note(JAX_STAGES[event], self.now() - seconds, depth=1)

        timed_prepare = self.timed(PREPARE, prepare)
        batch.Batch.prepare, batch.Batch.close = prepared, closed
        networks.speak_program, networks.draw_program = (
            watched_speak_program,
            watched_draw_program,
        )
        VideoWriter.write = counted
        jax.monitoring.register_event_duration_secs_listener(jax_stage)

    def follow(self) -> None:
        """Records when chunks are computed: each begins when it has been requested and
        the one before it, whose state it needs, is done."""
        end = 0.0
        while True:
            begin, frames = self.chunks.get()
            frames.block_until_ready()
            begin, end = max(begin, end), self.now()
            self.busy.append((begin, end))
            del frames
            self.chunks.task_done()

    def alone(self, count: int) -> float:
        """Seconds that `count` chunks take when nothing else runs."""
        import jax

        begin = self.now()
        for _ in range(count):
            landmarks, self.spoken = self.speak(self.spoken)
            made, self.drawn = self.draw(landmarks, self.drawn)
            jax.block_until_ready(made)
        return self.now() - begin


def child(start: float, words: list[str]) -> dict:
    """The measurements of one process.  words: flags of animate, with two jobs."""
    from benchmarks.measuring import others_seconds

    others = others_seconds()
    watch = Watch(start)
    watch.note("Python", 0.0, time.thread_time())
    watch.install()
    from jax_atvg.cli import app

    if code := app.main(["main.py", "animate", *words]):
        raise SystemExit(code)
    watch.chunks.join()
    ended = watch.now()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN)
    others = others_seconds() - others - child.ru_utime - child.ru_stime
    (end, last), begin = watch.finished, watch.prepared[0]
    first, second = (begin, end), (end, last)
    alone = watch.alone(len(watch.busy) // 2)

    def busy(begin: float, end: float) -> float:
        inside = (min(b, end) - max(a, begin) for a, b in watch.busy)
        return sum(max(x, 0) for x in inside)

    def share(begin: float, end: float) -> float:
        return busy(begin, end) / (end - begin)

    return {
        "first frame": watch.frames[0],
        "first video": first[1],
        "networks": share(*first),
        "networks, second video": share(*second),
        "networks, since start": share(0, first[1]),
        "alone": alone / (first[1] - first[0]),
        "alone, second video": alone / (second[1] - second[0]),
        "alone, since start": alone / first[1],
        "KiB fetched for a chunk": watch.fetched / 1024,
        "alone, frames a second": len(watch.frames) / 2 / alone,
        "MiB": peak / 1024,
        "MiB, the other process": child.ru_maxrss / 1024,
        "others": max(others, 0) / ended / os.cpu_count(),
        "stages": [s for s in watch.stages if s["lasts"] >= LEAST_SECONDS],
    }


# --- the parent: inputs, runs, tables ---


def make_inputs(folder: pathlib.Path, small: bool, seconds: float) -> None:
    """Writes a bundle, face.png and speech.wav into the folder."""
    import soundfile

    from input_pipeline.media.image import write_image
    from jax_atvg.inference.bundle import save_bundle
    from tests.small_bundle import full_bundle, photo, small_bundle, speech

    save_bundle(small_bundle(128) if small else full_bundle(), folder / "bundle")
    write_image(folder / "face.png", photo())
    soundfile.write(folder / "speech.wav", speech(seconds), 16000)


def run_child(folder: pathlib.Path, given: argparse.Namespace) -> dict:
    jobs = [[given.image, given.audio, folder / f"{i}.mp4"] for i in range(2)]
    with open(folder / "jobs.csv", "w", newline="") as file:
        csv.writer(file).writerows(jobs)
    words = [f"--bundle={given.bundle}", f"--batch={folder / 'jobs.csv'}"]
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, __file__, f"--child={time.monotonic()}", *words]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment,
    )
    return json.loads(done.stdout.splitlines()[-1])


def stage_table(stages: list[dict]) -> str:
    lines = ["     at   lasts     CPU"]
    for stage in sorted(stages, key=lambda stage: (stage["at"], stage["depth"])):
        cpu = "" if stage["cpu"] is None else f"{stage['cpu']:.2f}"
        name = "  " * stage["depth"] + stage["name"]
        lines.append(f"{stage['at']:7.2f} {stage['lasts']:7.2f} {cpu:>7}  {name}")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1].startswith("--child="):
        start = float(sys.argv[1].partition("=")[2])
        print(json.dumps(child(start, sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--small", action="store_true", help="use a bundle of small networks"
    )
    parser.add_argument("--seconds", type=float, default=10, help="length of the sound")
    parser.add_argument("--repeats", type=int, default=3, help="number of warm runs")
    for name in ("bundle", "image", "audio"):
        parser.add_argument(f"--{name}", help="used in place of a generated one")
    given = parser.parse_args()
    from benchmarks.measuring import machine

    print(*(f"{key}: {value}" for key, value in machine().items()), sep="\n")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # Inputs are made in another process, because the peak memory of a child also
        # counts what its parent held when the child was started.
        program = (
            f"import pathlib, sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from benchmarks.animate import make_inputs\n"
            f"make_inputs(pathlib.Path({name!r}), {given.small}, {given.seconds})"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
        given.bundle = given.bundle or folder / "bundle"
        given.image = given.image or folder / "face.png"
        given.audio = given.audio or folder / "speech.wav"
        cold, *warm = (run_child(folder, given) for _ in range(1 + given.repeats))
    quietest = min(warm, key=lambda run: run["others"])
    for kind, run in (("cold", cold), ("warm, the quietest run", quietest)):
        print(f"\n{kind}\n{stage_table(run['stages'])}")
    print(f"\n{'':24}{'cold':>8}{'warm':>8}   every warm run")
    for key in (key for key in cold if key != "stages"):
        values = [run[key] for run in warm]
        how = "8.0f" if "iB" in key else "8.2f"
        every = " ".join(format(value, how).strip() for value in values)
        print(f"{key:24}{cold[key]:{how}}{median(values):{how}}   {every}")


if __name__ == "__main__":
    main()
