"""Running experiments: each result stored whole when it is done, finished ones skipped, figures drawn from files."""

import json
import math
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime, timezone
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bench.paper.arrays import load_arrays, save_arrays
from bench.paper.config import PaperConfig
from bench.paper.experiment import Experiment, Stored
from bench.paper.figures import write_png
from bench.paper.lab import Lab

FORMAT = 2


def run_experiments(
    experiments: Sequence[Experiment], config: PaperConfig, output: Path, progress: bool = True
) -> list[dict[str, Any]]:
    """Do the experiments that are not done yet; returns the stored results of all.

    Args:
        experiments: in the order in which they are done.
        config: of all of them. Results of another configuration in the folder are done again.
        output: folder for results, figures and models.
        progress: whether to show progress bars.
    """
    lab = Lab(config, output, progress)
    results = []
    bar = tqdm(experiments, unit="experiment", disable=not progress)
    for experiment in bar:
        bar.set_postfix_str(experiment.name)
        result = stored(experiment, config, output) or _run(experiment, lab)
        results.append(result if _is_drawn(result, output) else draw(experiment, output))
    return results


def draw_again(experiments: Sequence[Experiment], output: Path) -> list[dict[str, Any]]:
    """Draw the figures of all experiments whose results are in a folder; nothing is computed. Returns the results.

    Raises:
        FileNotFoundError: there is no result of any of them.
    """
    done = [experiment for experiment in experiments if (output / f"{experiment.name}.json").exists()]
    if not done:
        raise FileNotFoundError(f"{output} must hold results to draw; it holds none of the experiments asked for")
    return [draw(experiment, output) for experiment in done]


def draw(experiment: Experiment, output: Path) -> dict[str, Any]:
    """Draw an experiment's figures from its stored numbers and arrays; returns the result that names them."""
    path = output / f"{experiment.name}.json"
    result: dict[str, Any] = json.loads(path.read_text("utf-8"))
    figures = {}
    if experiment.draw is not None:
        arrays = path.with_suffix(".npz")
        figures = experiment.draw(Stored(result["numbers"], load_arrays(arrays) if arrays.exists() else {}))
    for name, figure in figures.items():
        write_png(figure, output / name)
    if result["figures"] != list(figures):
        result["figures"] = list(figures)
        write_json(result, path)
    return result


def _is_drawn(result: Mapping[str, Any], output: Path) -> bool:
    return bool(result["figures"]) and all((output / name).exists() for name in result["figures"])


def stored(experiment: Experiment, config: PaperConfig, output: Path) -> dict[str, Any] | None:
    """The result in the folder, where there is one of this configuration, drawn or not."""
    path = output / f"{experiment.name}.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text("utf-8"))
    same = result["format"] == FORMAT and result["config"] == described(config)
    return result if same else None


def _run(experiment: Experiment, lab: Lab) -> dict[str, Any]:
    lab.earlier_seconds = 0.0
    start, cpu_start = time.perf_counter(), time.process_time()
    outcome = experiment.run(lab)
    result = {
        "format": FORMAT,
        "experiment": experiment.name,
        "title": experiment.title,
        "data": lab.data.name,
        "config": described(lab.config),
        "environment": environment(),
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu_start + lab.earlier_seconds, 3),
        "figures": [],  # named when they are drawn
        "claims": [claim._asdict() for claim in outcome.claims],
        "numbers": jsonable(outcome.numbers),
    }
    if outcome.arrays is not None:
        save_arrays(outcome.arrays, lab.output / f"{experiment.name}.npz")
    # The result comes last: where it is, all of it is.
    write_json(result, lab.output / f"{experiment.name}.json")
    return result


def described(config: PaperConfig) -> dict[str, Any]:
    """The configuration as JSON; of the data root it says only that there is one, for it may lie anywhere."""
    values: dict[str, Any] = jsonable(config)
    return {**values, "data_root": None if config.data_root is None else "given"}


def environment() -> dict[str, Any]:
    """What the numbers were measured on and with."""
    return {
        "device": "cpu",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "dtype": "float64 (training: float32)",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def jsonable(value: Any) -> Any:
    """Values as JSON knows them: tensors become lists, named tuples mappings, numbers that are not finite None."""
    if isinstance(value, Tensor):
        return jsonable(value.tolist())
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): jsonable(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"a result must be made of numbers, text, lists and mappings; got {type(value).__name__}")


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """Write a file, or leave the old one: a kill never leaves half of it."""
    text = json.dumps(value, indent=1, allow_nan=False)
    # Lists of numbers on one line each.
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
