"""Time and peak memory of PyTorch for the forward pass that `ranklet run` does, as JSON.

    python time_torch.py DIR [--adapter] [--decode N] [--runs N] [--threads N] [--output OUT.safetensors]

DIR is what make.py wrote. f32 on one thread unless told; times are the median of the runs after a first one. `--decode` also
generates tokens one by one behind the input, with a cache. Memory is the process's largest resident set; that of
Python with its libraries before anything is loaded is given beside it.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
import mlp


def peak_bytes():
    # Linux counts it in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed(run):
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def load(directory, adapter):
    config = json.loads((directory / "base" / "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    model = kind.from_pretrained(directory / "base", dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, directory / "adapter")
    return model.eval()


def decode(model, ids, count):
    """Seconds for the prompt, and a token for `count` steps of one token each, with transformers' own cache."""

    def step(token, cache):
        result = model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return result.logits[:, -1:].argmax(-1), result.past_key_values

    prompt, (token, cache) = timed(lambda: step(ids, None))
    start = time.perf_counter()
    for _ in range(count):
        token, cache = step(token, cache)
    return prompt, (time.perf_counter() - start) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--adapter", action="store_true")
    parser.add_argument("--decode", type=int, default=0, metavar="N")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="where the output goes, under the name `ranklet run` gives it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

    report = {"model": arguments.directory.name, "adapter": arguments.adapter, "threads": arguments.threads}
    report |= {"torch": torch.__version__, "transformers": transformers.__version__, "libraries_bytes": peak_bytes()}
    report["load_seconds"], model = timed(lambda: load(arguments.directory, arguments.adapter))
    inputs = load_file(arguments.directory / "input.safetensors")
    with torch.no_grad():
        first, result = timed(lambda: model(**inputs))
        rest = [timed(lambda: model(**inputs))[0] for _ in range(arguments.runs)]
        report |= {"tokens": inputs["input_ids"].numel(), "first_seconds": first}
        report |= {"seconds": statistics.median(rest), "peak_bytes": peak_bytes()}
        if arguments.decode:
            report["decode_tokens"] = arguments.decode
            report["prompt_seconds"], report["decode_seconds_a_token"] = decode(
                model, inputs["input_ids"], arguments.decode
            )
    if arguments.output:
        name = "logits" if "logits" in result else "last_hidden_state"
        mlp.write(arguments.output, {name: result[name].contiguous()})
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
