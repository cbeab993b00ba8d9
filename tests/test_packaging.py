"""The wheel that users install: both packages, their type markers, and ordinary requirements."""

import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    # The build backend itself, as `pip install .` calls it, without an environment of its own to download.
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    (path,) = folder.glob("latent_geodesics-*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def about(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(wheel.read(name))


def test_holds_every_source_file_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    paths = [path for package in ("geodesics", "vae") for path in ROOT.glob(f"{package}/**/*.py")]
    sources = {path.relative_to(ROOT).as_posix() for path in paths}
    assert sources | {"geodesics/py.typed", "vae/py.typed"} == packed


def test_requires_an_ordinary_torch(about: Message) -> None:
    """No local version such as 2.13.0+cpu, no link and no upper bound: users keep the torch they have."""
    requirements = [r for r in about.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert [r for r in requirements if r.startswith("torch>")] == ["torch>=2.4"]
    assert not any("+" in r or "@" in r for r in requirements)


def test_the_core_needs_neither_pictures_nor_data_sets(about: Message) -> None:
    requirements = " ".join(r for r in about.get_all("Requires-Dist", []) if "extra ==" not in r)
    assert "matplotlib" not in requirements
    assert "torchvision" not in requirements


def test_the_version_has_one_source(about: Message) -> None:
    assert f'\nversion = "{about["Version"]}"\n' in (ROOT / "pyproject.toml").read_text("utf-8")
    try:
        installed = metadata.version("latent-geodesics")
    except metadata.PackageNotFoundError:
        pytest.skip("run from the sources, without an installation")
    assert installed == about["Version"]
