"""The rules of the architecture, read off the sources: who may import whom, and what the code never does."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("geodesics", "vae", "bench")

# The floors of the core, lowest first. A folder imports only from folders on floors below its own, and its files may
# import one another. The package's own face stands above them all.
FLOORS = (
    ("batches",),
    ("generators", "curves"),
    ("metrics",),
    ("graphs", "minimization", "matrix_free", "ode", "plots"),
    ("solvers",),
    ("connecting",),
    ("statistics",),
    ("land",),
)
FLOOR_OF = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
# A folder is one concept, small enough to be read at a glance.
MOST_FILES = 10
MOST_LINES = 300

# Packages that may be missing, and so may be imported where they are used.
OPTIONAL = {"geomstats", "jax", "matplotlib", "stochman", "torchvision"}

# Calls that wait for a GPU, and the modules that may make them, outside of loops: they work on the CPU.
WAITS = {"cpu", "item", "numpy", "tolist"}
MAY_WAIT = {
    "geodesics.graphs.cover",  # neighbors and shortest paths are those of scikit-learn and SciPy
    "geodesics.graphs.latent_graph",
    "geodesics.graphs.graph_paths",
    "geodesics.generators.checks",
    "geodesics.solvers.collocation",  # SciPy's, one problem at a time
    "geodesics.plots.canvas",
    "geodesics.graphs.tree_logarithms",  # as the graph itself
    "geodesics.land.draws",  # balls around the nodes of that graph
    "geodesics.land.labels",  # scikit-learn's k-means, where no labels are given
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


def folder_of(module: str) -> str:
    return module.split(".")[1]


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


@pytest.mark.parametrize(("package", "others"), [("geodesics", {"vae", "bench", "tests"}), ("vae", {"bench", "tests"})])
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
        if module != "bench.core.bench_pieces"  # it times the small pieces
    ]
    assert not found


def test_core_imports_have_no_cycle() -> None:
    # The package itself only names its modules and loads them when asked (PEP 562): it stands above them all.
    try:
        list(TopologicalSorter(import_graph()).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_core_imports_go_down() -> None:
    upward = [
        f"{module} imports {other}"
        for module, found in import_graph().items()
        for other in found
        if "geodesics" not in (module, other) and folder_of(module) != folder_of(other)
        if FLOOR_OF[folder_of(module)] <= FLOOR_OF[folder_of(other)]
    ]
    assert not upward


def test_folders_are_the_floors_and_stay_small() -> None:
    core = ROOT / "geodesics"
    assert {path.name for path in core.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(FLOOR_OF)
    assert [path.name for path in core.glob("*.py")] == ["__init__.py"]
    assert not list(core.glob("*/*/*.py"))
    for folder in FLOOR_OF:
        files = [path for path in (core / folder).glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, folder
        assert all(path.read_text("utf-8").count("\n") <= MOST_LINES for path in files), folder


def test_core_tests_stand_in_the_same_folders() -> None:
    tests = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert tests == set(FLOOR_OF) | {"vae", "bench"}


def test_the_page_on_the_architecture_is_right() -> None:
    """It has a section a folder, which names each of the folder's files and what it imports from."""
    page = (ROOT / "docs/explanation/architecture.md").read_text("utf-8")
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == [folder for folders in FLOORS for folder in folders]
    graph = import_graph()
    for folder, section in sections.items():
        own = [module for module in graph if module.startswith(f"geodesics.{folder}.")]
        named = set(re.findall(r"`(\w+)\.py`", section))
        assert named == {module.rpartition(".")[2] for module in own}, folder
        used = {folder_of(other) for module in own for other in graph[module]} - {folder}
        assert set(re.findall(r"`(\w+)`", section.partition("Imports from: ")[2])) == used, folder
    for file in re.findall(r"`((?:tests|bench|vae|geodesics)/[\w/]+\.py)`", page):
        assert (ROOT / file).exists(), file
    for file in re.findall(r"`(\w+/\w+\.py)`", page):
        assert (ROOT / file).exists() or (ROOT / "geodesics" / file).exists(), file


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
