"""What numbers were measured on and with."""

import hashlib
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.problems.problem_set import ROOT

# What the numbers of the solvers depend on, of this folder; the two packages come on top.
_FOLDERS = ("contest", "models", "peers", "problems")
_PACKAGES = ("torch", "numpy", "scipy", "stochman", "jax", "geomstats")


def environment(threads: int, dtype: str = "float64") -> dict[str, object]:
    """Device, number type, threads, date, versions and commit of a run."""
    return {
        "device": processor(),
        "dtype": dtype,
        "threads": threads,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "commit": _commit(),
    }


def processor() -> str:
    """The processor's name and its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit of the checkout, with + where files differ from it."""
    packages = ["geodesics", "vae", "bench"]
    commands = ["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", *packages]
    try:
        commit, changed = (
            subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def source_digest() -> str:
    """Digest of the sources and models that the answers and times of solvers depend on."""
    paths = [path for package in ("geodesics", "vae") for path in (ROOT / package).glob("**/*.py")]
    paths += [path for folder in _FOLDERS for path in (ROOT / "bench" / folder).glob("*.*")]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]
