"""A new plugin from templates: a distribution of its own, whole or not at all."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from string import Template

from d4k.errors import ConfigError, OutputError, UnknownNameError
from d4k.files import atomic_folder
from d4k.plugins import Kind, registry

__all__ = ["KINDS", "PIPELINES", "write_plugin"]

KINDS: dict[Kind, str] = {
    "backbone": "a diffusion model",
    "loss": "a training objective",
    "metric": "a measurement of pictures",
    "dataset": "a source of captioned pictures",
}
HOOKS = {"backbone": "backbones", "loss": "losses", "metric": "metrics", "dataset": "datasets"}
PIPELINES = ("Lumina2Pipeline",)
"""The diffusers pipelines that there is a template for; the first is the one without a wish."""

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TEMPLATES = Path(__file__).parent / "templates"


def write_plugin(kind: Kind, name: str, output: Path, pipeline: str | None = None) -> Path:
    """Write a plugin that registers one component and passes its own tests.

    Args:
        kind: "backbone", "loss", "metric" or "dataset".
        name: what users will call it, in small letters and hyphens, such as "my-l1".
        output: the folder in which `d4k-NAME` is made.
        pipeline: of a backbone, the diffusers pipeline that it is for; None is the first of `PIPELINES`.

    Returns:
        The folder of the plugin.

    Raises:
        UnknownNameError: there is no template for the kind or the pipeline.
        ConfigError: the name is no name, or is taken.
        OutputError: the folder exists, or cannot be written.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of plugin", kind, KINDS)
    if pipeline is not None and kind != "backbone":
        raise ConfigError(f"a pipeline was given for a {kind}; only a backbone has one: leave --pipeline out")
    if pipeline is not None and pipeline not in PIPELINES:
        raise UnknownNameError("pipeline", pipeline, PIPELINES, "Or begin with one of these, and change it.")
    _check_name(kind, name)
    folder = output / f"d4k-{name}"
    if folder.exists():
        raise OutputError(f"{folder} exists already; choose another name, or another --output")
    values = _values(kind, name, pipeline or PIPELINES[0])
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"src/{values['module']}/__init__.py": f"{kind}_entry.py",
        f"src/{values['module']}/{kind}.py": f"{kind}.py",
        f"tests/test_{values['module'].removeprefix('d4k_')}.py": f"{kind}_test.py",
    }
    with atomic_folder(folder) as temporary:
        for path, template in files.items():
            target = temporary / path
            target.parent.mkdir(parents=True, exist_ok=True)
            text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
            target.write_text(Template(text).substitute(values), encoding="utf-8")
        (temporary / "src" / values["module"] / "py.typed").touch()
    return folder


def _check_name(kind: Kind, name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name of a plugin; use small letters, digits and hyphens, such as my-{kind}")
    if name.startswith("d4k-"):
        raise ConfigError(f"leave out 'd4k-': it is put before the name, so that '{name[4:]}' becomes '{name}'")
    entries = registry().entries.get((kind, name))
    if entries:
        raise ConfigError(f"{kind} '{name}' exists already, in {entries[0].plugin}; choose another name")
    module = _module(name)
    if find_spec(module) is not None:
        raise ConfigError(f"a module {module} is installed already; choose another name than '{name}'")


def _module(name: str) -> str:
    return f"d4k_{name.replace('-', '_')}"


def _values(kind: Kind, name: str, pipeline: str) -> dict[str, str]:
    words = "".join(word.capitalize() for word in name.split("-"))
    suffix = kind.capitalize()
    article = "an" if name[0] in "aeiou" else "a"
    return {
        "name": name,
        "kind": kind,
        "hook": HOOKS[kind],
        "module": _module(name),
        "cls": words if words.endswith(suffix) else f"{words}{suffix}",
        "summary": f"{name}: {KINDS[kind]}",
        "article": article,
        "pipeline": pipeline,
    }
