"""Converts and runs the models of true shapes, beside PyTorch, and prints what that took as the tables of docs/large-models.md.

    python measure.py [--out DIR] [--decode N] [--runs N] [--write]

DIR (out/large in the repository) is where make.py writes; what is not there is made first. Every step is a process of its own,
whose time and largest resident set are the system's account of it; the two libraries are timed one right after the other, on
one thread each. ranklet is built twice: as it comes, and for the vector instructions of this machine (`-C target-cpu=native`), whose
output has to be the same to the bit. `--write` puts the tables into the document. Linux.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCUMENT = ROOT / "docs" / "large-models.md"
MARKS = ("<!-- measured -->\n", "<!-- /measured -->\n")
NAMES = {"t5-small": "T5-small, classifier", "bert-base": "BERT-base, classifier", "llama-15m": "Llama, 15 M"}
# One thread for whatever counts threads in the environment.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def measured(*command):
    """Seconds, largest resident set in bytes, and what it printed, of a process."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=out, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"{' '.join(map(str, command))}: failed")
        out.seek(0)
        # Linux counts it in KiB.
        return seconds, usage.ru_maxrss * 1024, out.read().decode()


def largest_matrix(file):
    """Elements of the largest tensor, from the header."""
    with open(file, "rb") as checkpoint:
        header = json.loads(checkpoint.read(int.from_bytes(checkpoint.read(8), "little")))
    header.pop("__metadata__", None)
    count = 0
    for tensor in header.values():
        size = 1
        for dimension in tensor["shape"]:
            size *= dimension
        count = max(count, size)
    return count


def error(found, expected):
    """Relative L2."""
    from safetensors.numpy import load_file

    (a,), (b,) = load_file(found).values(), load_file(expected).values()
    a, b = a.ravel().astype("float64"), b.ravel().astype("float64")
    return ((a - b) ** 2).sum() ** 0.5 / (b**2).sum() ** 0.5


def build(native):
    """Where the release build is."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    environment = os.environ.copy()
    if native:
        target /= "native"
        environment |= {"RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--release", "--quiet", "-p", "ranklet-cli", "--bins", "--example", "time"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return target / "release"


def measure(name, out, tools, native, runs, decode):
    directory, image = out / name, out / f"{name}.rkl"
    base, inputs = directory / "base", directory / "input.safetensors"
    row = {"name": NAMES[name], "largest": 4 * largest_matrix(base / "model.safetensors")}
    row["checkpoint"] = (base / "model.safetensors").stat().st_size
    row["convert"], row["convert_peak"], _ = measured(tools / "ranklet", "convert", "base", base, "-o", image)
    row["image"] = image.stat().st_size
    ours, theirs = out / f"{name}.out", out / f"{name}.torch"
    command = ["run", "--base", image, "--input", inputs, "--output"]
    row["run"], row["run_peak"], _ = measured(tools / "ranklet", *command, ours)
    same = out / f"{name}.native"
    measured(native / "ranklet", *command, same)
    if same.read_bytes() != ours.read_bytes():
        sys.exit(f"{name}: {same} is not {ours}, though only the compiler's target differs")
    count = decode if name == "llama-15m" else 0
    for key, tool in (("ours", tools), ("native", native)):
        row[key] = json.loads(measured(tool / "examples" / "time", image, inputs, runs, count)[2])
    script = [sys.executable, HERE / "time_torch.py", directory, "--runs", runs, "--decode", count, "--output", theirs]
    seconds, _, report = measured(*script)
    row["theirs"] = json.loads(report) | {"process": seconds}
    row["error"] = error(ours, theirs)
    return row


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def mb(size):
    return f"{size / 1e6:,.0f} MB"


def seconds(value):
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1e3:.2f} ms"


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def report(rows):
    first = rows[0]["theirs"]
    text = f"Measured on one thread of `{processor()}`, PyTorch {first['torch']}, transformers {first['transformers']}.\n\n"
    text += "**`ranklet convert base --weights i8`**\n\n"
    text += table(
        ["model", "checkpoint, f32", "image, i8", "time", "peak memory", "largest matrix, f32"],
        [
            [r["name"], mb(r["checkpoint"]), mb(r["image"]), seconds(r["convert"]), mb(r["convert_peak"]), mb(r["largest"])]
            for r in rows
        ],
    )
    text += "\n**One pass over the input**\n\n"
    text += table(
        ["model", "tokens", "ranklet", "`native`", "PyTorch, f32", "ratio", "ratio, `native`", "relative L2 error"],
        [
            [
                r["name"],
                str(r["ours"]["tokens"]),
                seconds(r["ours"]["seconds"]),
                seconds(r["native"]["seconds"]),
                seconds(r["theirs"]["seconds"]),
                f"{r['ours']['seconds'] / r['theirs']['seconds']:.1f}",
                f"{r['native']['seconds'] / r['theirs']['seconds']:.1f}",
                f"{r['error']:.1e}",
            ]
            for r in rows
        ],
    )
    text += "\n**The whole process: load, one pass, write**\n\n"
    text += table(
        ["model", "`ranklet run`", "its peak", "PyTorch: load and first pass", "its peak", "of that, Python's libraries"],
        [
            [
                r["name"],
                seconds(r["run"]),
                mb(r["run_peak"]),
                seconds(r["theirs"]["load_seconds"] + r["theirs"]["first_seconds"]),
                mb(r["theirs"]["peak_bytes"]),
                mb(r["theirs"]["libraries_bytes"]),
            ]
            for r in rows
        ],
    )
    for r in rows:
        if "decode_tokens" not in r["ours"]:
            continue
        text += f"\n**{r['name']}: {r['ours']['decode_tokens']} tokens behind a prompt of {r['ours']['tokens']}**\n\n"
        sides = (r["ours"], r["native"], r["theirs"])
        text += table(
            ["", "ranklet", "`native`", "PyTorch, f32"],
            [
                ["prompt", *(seconds(side["prompt_seconds"]) for side in sides)],
                ["decoding", *(f"{1 / side['decode_seconds_a_token']:.0f} tokens/s" for side in sides)],
            ],
        )
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "large")
    parser.add_argument("--decode", type=int, default=64, metavar="N")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.relative_to(ROOT)}")
    arguments = parser.parse_args()
    missing = [name for name in NAMES if not (arguments.out / name / "input.safetensors").exists()]
    if missing:
        measured(sys.executable, HERE / "make.py", "--out", arguments.out, *missing)
    tools, native = build(False), build(True)
    rows = [measure(name, arguments.out, tools, native, arguments.runs, arguments.decode) for name in NAMES]
    text = report(rows)
    print(text)
    if arguments.write:
        before, rest = DOCUMENT.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        DOCUMENT.write_text(before + MARKS[0] + "\n" + text + "\n" + MARKS[1] + after)


if __name__ == "__main__":
    main()
