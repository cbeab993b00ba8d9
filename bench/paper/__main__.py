"""`python -m bench.paper`: every experiment of the paper, figures and numbers."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.paper.catalog import EXPERIMENTS
from bench.paper.config import PaperConfig, configured
from bench.paper.report import report
from bench.paper.run import draw_again, run_experiments


@dataclass(frozen=True)
class Options:
    """Arguments of the run.

    Attributes:
        config: of all experiments.
        output: folder for figures, numbers and models.
        only: names of the experiments to do.
        threads: of torch; None for torch's own choice.
        draw: whether to draw the figures of stored results again, and to compute nothing.
    """

    config: PaperConfig
    output: Path
    only: tuple[str, ...]
    threads: int | None
    draw: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, go on with, or only draw the experiments, and print what became of the claims; returns the exit code."""
    options = parse(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    chosen = [experiment for experiment in EXPERIMENTS if experiment.name in options.only]
    try:
        if options.draw:
            results = draw_again(chosen, options.output)
        else:
            results = run_experiments(chosen, options.config, options.output)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = report(results)
    (options.output / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {options.output}: {sum(len(r['figures']) for r in results)} figures")
    return 0


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options from the command line; exits with a sentence on a wrong one."""
    names = [experiment.name for experiment in EXPERIMENTS]
    parser = argparse.ArgumentParser(
        prog="python -m bench.paper", description="The experiments of Latent Space Oddity."
    )
    parser.add_argument("--data-root", type=Path, help="folder with FashionMNIST/raw and MNIST/raw; digits without it")
    parser.add_argument("--output", type=Path, default=Path("paper_output"), help="output folder (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=f"among {', '.join(names)}")
    parser.add_argument("--epochs", type=int, help="of training (800)")
    parser.add_argument("--quick", action="store_true", help="few of everything, to see that it runs")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--draw", action="store_true", help="draw stored results again, compute nothing")
    given = parser.parse_args(arguments)
    for name in ("epochs", "threads"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1; got {getattr(given, name)}")
    if given.data_root is not None and not given.data_root.is_dir():
        parser.error(f"--data-root must be a folder; got {given.data_root}")
    config = configured(given.data_root, given.epochs, given.quick)
    return Options(config, given.output, tuple(given.only or names), given.threads, given.draw)


if __name__ == "__main__":
    sys.exit(main())
