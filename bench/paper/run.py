"""Running experiments: each result stored whole when it is done, finished ones skipped."""

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

from bench.paper.config import PaperConfig
from bench.paper.experiment import Experiment
from bench.paper.lab import Lab

FORMAT = 1


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
        results.append(stored(experiment, config, output) or _run(experiment, lab))
    return results


def stored(experiment: Experiment, config: PaperConfig, output: Path) -> dict[str, Any] | None:
    """The result in the folder, where there is one of this configuration with all its figures."""
    path = output / f"{experiment.name}.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text("utf-8"))
    same = result["format"] == FORMAT and result["config"] == described(config)
    whole = all((output / name).exists() for name in result["figures"])
    return result if same and whole else None


def _run(experiment: Experiment, lab: Lab) -> dict[str, Any]:
    lab.figures.clear()
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
        "figures": list(lab.figures),
        "claims": [claim._asdict() for claim in outcome.claims],
        "numbers": jsonable(outcome.numbers),
    }
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
