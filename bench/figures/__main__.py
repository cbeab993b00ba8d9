"""Draw the figures of the page *How it works*: ``python -m bench.figures``.

Writes one SVG each into docs/images/how-it-works, or into another folder. ``--quick`` takes a small graph and few
pixels: enough to see that everything runs, not for the page.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch

from bench.figures.drawing import LOOK, save
from bench.figures.elements import draw_elements, draw_order
from bench.figures.graph import draw_graph
from bench.figures.recombination import draw_recombination
from bench.figures.walls import draw_walls
from bench.problems.problem_set import ROOT

FOLDER = ROOT / "docs" / "images" / "how-it-works"
FIGURES = {
    "elements": draw_elements,
    "order": draw_order,
    "walls": draw_walls,
    "graph": draw_graph,
    "recombination": draw_recombination,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw all figures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the pictures")
    parser.add_argument("--only", nargs="+", choices=sorted(FIGURES), default=list(FIGURES), help="some of the figures")
    parser.add_argument("--quick", action="store_true", help="a small graph and few pixels")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        path = options.output / f"{name}.svg"
        with matplotlib.rc_context(LOOK):
            save(FIGURES[name](options.quick), path)
        print(path)


if __name__ == "__main__":
    main()
