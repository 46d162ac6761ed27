"""Every command a contributor runs. `nox --list` shows them; `nox -s demo` and `nox -s tests` are the two to know."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_external_run = True

HERE = Path(__file__).parent
PLUGINS = sorted(path.parent for path in HERE.glob("plugins/*/pyproject.toml"))
TUTORIAL = HERE / "docs" / "tutorial" / "d4k-sana"
SHARED = HERE / ".nox" / "shared"
DOCS_OUT = HERE / "docs" / "_build" / "html"


def binaries(venv: Path) -> Path:
    """Folder of the programs of a virtual environment."""
    return venv / ("Scripts" if sys.platform == "win32" else "bin")


def make_venv(session: nox.Session, venv: Path, *packages: str) -> Path:
    """Make a fresh virtual environment with some packages, in one pip command so that torch is resolved once."""
    session.log(f"Installing torch, diffusers and the rest into {venv}: a few minutes, 6 GB.")
    shutil.rmtree(venv, ignore_errors=True)
    session.run(sys.executable, "-m", "venv", str(venv), external=True)
    python = binaries(venv) / "python"
    session.run(str(python), "-m", "pip", "install", "--quiet", *packages, external=True)
    return python


def shared(session: nox.Session) -> Path:
    """The environment of all sessions but `build`: core and plugins editable, with the development tools.

    Made once, and again when a pyproject.toml changes. Returns its Python.
    """
    described = b"".join(
        path.read_bytes() for path in (HERE / "pyproject.toml", *(p / "pyproject.toml" for p in PLUGINS))
    )
    wanted = hashlib.sha256(described + sys.version.encode()).hexdigest()
    stamp, python = SHARED / "made-from", binaries(SHARED) / "python"
    if not stamp.is_file() or stamp.read_text() != wanted:
        editable = [argument for plugin in PLUGINS for argument in ("-e", str(plugin))]
        make_venv(session, SHARED, "-e", f"{HERE}[dev]", *editable)
        stamp.write_text(wanted)
    return python


# glibc hands every large tensor back to the system and asks for it again, which costs CPU training a third of its speed
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "40000000000"}


def run(session: nox.Session, *command: str) -> None:
    """Run a Python module in the shared environment, offline."""
    session.run(str(shared(session)), "-m", *command, external=True, env={"HF_HUB_OFFLINE": "1", **KEEP_MEMORY})


@nox.session(python=False)
def demo(session: nox.Session) -> None:
    """Fine-tune a tiny model beyond its size, draw before and after, score both: pictures and a table in demo/."""
    run(session, "d4k", "demo", *session.posargs)


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the tests of core, plugins, docs and examples, with the coverage of the core."""
    halves = ["-n", "2", "--dist", "loadfile"]  # two processes; the tests of a file share what they set up
    run(session, "pytest", *(session.posargs or [*halves, "--cov", "--cov-report=term", "--cov-fail-under=90"]))


@nox.session(python=False)
def soak(session: nox.Session) -> None:
    """Kill real runs of `d4k train` at fifty random moments, go on with each, and compare the ends: minutes."""
    run(session, "pytest", "tests/soak", "-s", *session.posargs)


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check style and format with ruff, and the layers with import-linter."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    session.run(str(binaries(SHARED) / "lint-imports"), external=True)


@nox.session(python=False)
def types(session: nox.Session) -> None:
    """Check types with mypy, strict."""
    run(
        session,
        "mypy",
        "src",
        *(str(p.relative_to(HERE) / "src") for p in (*PLUGINS, TUTORIAL)),
        "noxfile.py",
        "benchmarks",
        "examples",
    )


@nox.session(python=False)
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build/html; a warning is an error."""
    run(session, "sphinx", "-W", "--keep-going", "-b", "html", "docs", str(DOCS_OUT))


@nox.session(python=False)
def benchmarks(session: nox.Session) -> None:
    """Print speed ratios against named peers."""
    for script in sorted((HERE / "benchmarks").glob("*.py")):
        session.run(str(shared(session)), str(script), external=True)


@nox.session(python=False)
def ablation(session: nox.Session) -> None:
    """Compare the losses from one softened model into ablation/: about twenty minutes; started again, it goes on."""
    session.run(str(shared(session)), "examples/ablation.py", *session.posargs, external=True, env=KEEP_MEMORY)


@nox.session(python=False)
def stages(session: nox.Session) -> None:
    """Compare ways to a large picture that need no training, into stages/: an hour; started again, it goes on."""
    environment = {"HF_HUB_OFFLINE": "1", **KEEP_MEMORY}
    session.run(str(shared(session)), "examples/stages.py", *session.posargs, external=True, env=environment)


@nox.session(python=False)
def build(session: nox.Session) -> None:
    """Build all wheels, install them together in a clean environment, and list the plugins far from the sources."""
    python, wheels = shared(session), HERE / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for package in (HERE, *PLUGINS, TUTORIAL):
        session.run(str(python), "-m", "build", "--wheel", "--outdir", str(wheels), str(package), external=True)
    clean = HERE / ".nox" / "wheels-only"
    make_venv(session, clean, *(str(wheel) for wheel in sorted(wheels.glob("*.whl"))))
    with session.chdir(session.create_tmp()):
        command = str(binaries(clean) / "d4k")
        environment = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
        session.run(command, "plugins", external=True, env=environment)
        session.run(
            command, "generate", "a tabby cat", "--steps", "4", "--output", "cat.png", external=True, env=environment
        )
        Path("cat.png").unlink()
