"""The rules of the architecture, read off the sources: who may import whom, and what the code never does."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("geodesics", "vae", "bench")

# The layers of the core, lowest first: a module imports only from layers below its own. A name stands for the
# module or for all modules of the folder, which may import one another. Each module is in exactly one layer.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("geodesics.generators", "geodesics.formulas", "geodesics.elements", "geodesics.options", "geodesics.rows"),
    ("geodesics.memory", "geodesics.small_matrices"),
    ("geodesics.calculus", "geodesics.reduction", "geodesics.curves"),
    ("geodesics.block_cholesky", "geodesics.block_bidiagonal"),
    ("geodesics.connection", "geodesics.path_energy", "geodesics.initial", "geodesics.solution"),
    ("geodesics.path_energy_pullback", "geodesics.path_energy_general", "geodesics.mesh"),
    ("geodesics.detours", "geodesics.shared_trees"),
    ("geodesics.cover", "geodesics.streamlines"),
    ("geodesics.runge_kutta", "geodesics.quintics"),
    ("geodesics.metrics", "geodesics.newton"),
    ("geodesics.forms", "geodesics.curvature", "geodesics.quadrature", "geodesics.latent_graph"),
    ("geodesics.energy_levels", "geodesics.recombine"),
    ("geodesics.flow", "geodesics.graph_paths", "geodesics.checks", "geodesics.shooting_newton"),
    ("geodesics.resampling", "geodesics.exponential", "geodesics.shooting"),
    ("geodesics.certify", "geodesics.exploration"),
    ("geodesics.descent",),
    (
        "geodesics.energy_solver",
        "geodesics.georce_solver",
        "geodesics.lbfgs_solver",
        "geodesics.adam_solver",
        "geodesics.collocation_solver",
    ),
    ("geodesics.shooting_solver", "geodesics.solve"),
    ("geodesics.distances", "geodesics.logarithm", "geodesics.plots", "geodesics.random_walks"),
    ("geodesics.moving_ends",),
    ("geodesics.means", "geodesics.graph_trees", "geodesics.medoids"),
    ("geodesics.k_means", "geodesics.land_nodes", "geodesics.land_covariances"),
    ("geodesics.land_draws", "geodesics.land_logarithms"),
    ("geodesics.land", "geodesics.land_climb"),
    ("geodesics.land_fit",),
)

# Packages that may be missing, and so may be imported where they are used.
OPTIONAL = {"geomstats", "jax", "matplotlib", "stochman", "torchvision"}

# Calls that wait for a GPU, and the modules that may make them, outside of loops: they work on the CPU.
WAITS = {"cpu", "item", "numpy", "tolist"}
MAY_WAIT = {
    "geodesics.cover",  # neighbours and shortest paths are those of scikit-learn and SciPy
    "geodesics.latent_graph",
    "geodesics.graph_paths",
    "geodesics.checks",
    "geodesics.collocation_solver",  # SciPy's, one problem at a time
    "geodesics.plots.canvas",
    "geodesics.graph_trees",  # as the graph itself
    "geodesics.land_draws",  # balls around the nodes of that graph
    "geodesics.land_fit",  # scikit-learn's k-means, where no labels are given
}


def parse(package: str) -> dict[str, ast.Module]:
    """The syntax tree of every module of a package, by its dotted name."""
    trees = {}
    for path in sorted((ROOT / package).glob("**/*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text("utf-8"), filename=str(path))
    return trees


TREES = {package: parse(package) for package in PACKAGES}
CORE = TREES["geodesics"]
LIBRARY = CORE | TREES["vae"]
ALL = LIBRARY | TREES["bench"]


def imported(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every import statement with each name it may load (`from a import b`: `a.b`); relative ones fail."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def module_of(name: str) -> str | None:
    """The module of the core that an imported name lies in."""
    while name and name not in CORE:
        name = name.rpartition(".")[0]
    return name or None


def import_graph() -> dict[str, set[str]]:
    """The modules of the core that each of them imports."""
    homes = {module: {module_of(name) for _, name in imported(tree)} for module, tree in CORE.items()}
    return {module: {home for home in found if home} for module, found in homes.items()}


def layer_of(module: str) -> int:
    found = [
        level
        for level, names in enumerate(LAYERS)
        if any(module == name or module.startswith(name + ".") for name in names)
    ]
    assert len(found) == 1, f"{module} must stand in exactly one of LAYERS, found in {len(found)}"
    return found[0]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def public_objects() -> Iterator[tuple[str, object]]:
    """Every public name of both packages, and every public method and property of the classes among them."""
    for package in ("geodesics", "vae"):
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{package}.{name}", value
            if inspect.isclass(value):
                for attribute, member in vars(value).items():
                    described = inspect.isroutine(member) or isinstance(member, property)
                    if described and not attribute.startswith("_"):
                        yield f"{package}.{name}.{attribute}", getattr(value, attribute)


@pytest.mark.parametrize(
    ("package", "others"), [("geodesics", {"vae", "bench", "tests"}), ("vae", {"bench", "tests"})]
)
def test_packages_do_not_look_up(package: str, others: set[str]) -> None:
    found = [
        f"{module}: {name}"
        for module, tree in TREES[package].items()
        for _, name in imported(tree)
        if name.partition(".")[0] in others
    ]
    assert not found


@pytest.mark.parametrize("package", ["vae", "bench"])
def test_only_public_names_of_the_core_are_used(package: str) -> None:
    public = {"geodesics"} | {f"geodesics.{name}" for name in importlib.import_module("geodesics").__all__}
    found = [
        f"{module}: {name}"
        for module, tree in TREES[package].items()
        for _, name in imported(tree)
        if name.partition(".")[0] == "geodesics" and name not in public
        if module != "bench.bench_core"  # it times the small pieces
    ]
    assert not found


def test_core_imports_have_no_cycle() -> None:
    # The package itself only names its modules and loads them when asked (PEP 562): it stands above them all.
    try:
        list(TopologicalSorter(import_graph()).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.skipif(not LAYERS, reason="no layers are set down yet")
def test_core_imports_go_down() -> None:
    graph = {module: found for module, found in import_graph().items() if module != "geodesics"}
    level = {module: layer_of(module) for module in graph}
    room = {m: next(n for n in LAYERS[level[m]] if f"{m}.".startswith(f"{n}.")) for m in graph}
    upward = [
        f"{module} imports {other}"
        for module, found in graph.items()
        for other in found
        if other not in room or not (level[other] < level[module] or room[other] == room[module])
    ]
    assert not upward


def test_imports_stand_at_the_top() -> None:
    found = [
        f"{module}:{node.lineno} {name}"
        for module, tree in ALL.items()
        for function in functions(tree)
        for node, name in imported(function)
        if name.partition(".")[0] not in OPTIONAL
    ]
    assert not found


def test_no_pass_through_keywords() -> None:
    found = [f"{m}:{f.lineno} {f.name}" for m, tree in ALL.items() for f in functions(tree) if f.args.kwarg]
    assert not found


def test_shape_annotations_are_not_postponed() -> None:
    """`from __future__ import annotations` would turn them into text, and the run-time checks off."""
    postponed = "__future__.annotations"
    found = [m for m, tree in LIBRARY.items() if postponed in {name for _, name in imported(tree)}]
    assert not found


def test_core_names_no_device() -> None:
    found = []
    for module, tree in CORE.items():
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if text.partition(":")[0] in {"cpu", "cuda", "mps"}:
                found.append(f"{module}:{node.lineno} {text!r}")
            if isinstance(node, ast.Attribute) and node.attr in {"cuda", "mps", "xpu"}:
                found.append(f"{module}:{node.lineno} .{node.attr}")
    assert not found


def waits(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITS:
            yield node


def test_core_loops_do_not_wait_for_the_device() -> None:
    found = {
        f"{module}:{call.lineno} .{call.func.attr}()"
        for module, tree in CORE.items()
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For | ast.While)
        for call in waits(loop)
    }
    assert not found


def test_core_moves_nothing_to_the_cpu() -> None:
    found = [
        f"{module}:{call.lineno} .{call.func.attr}()"
        for module, tree in CORE.items()
        if module not in MAY_WAIT
        for call in waits(tree)
    ]
    assert not found


@pytest.mark.parametrize("module", sorted(ALL))
def test_modules_say_what_they_are(module: str) -> None:
    assert ast.get_docstring(ALL[module])


def test_public_names_have_docstrings() -> None:
    bare = []
    for name, value in public_objects():
        text = inspect.getdoc(value) or ""
        # A dataclass without a docstring is given its own signature as one.
        if not text or text.startswith(name.rpartition(".")[2] + "("):
            bare.append(name)
    assert not bare


def test_importing_the_core_is_light() -> None:
    """Names are loaded when they are asked for: the bare import brings neither torch nor scikit-learn."""
    code = "import sys, geodesics; print(sorted({'torch', 'sklearn', 'matplotlib'} & {*sys.modules}))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
