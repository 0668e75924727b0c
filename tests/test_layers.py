"""Who may import whom (the plan of the house): a breach is named by file and line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "facegen"
HEAVY = ("diffusers", "transformers", "wandb", "matplotlib", "torchvision", "lightning", "torch")
LEAVES = ("facegen.ages", "facegen.errors", "facegen.seeding", "facegen.types", "facegen.images", "facegen.regions")
ALLOWED = {  # folder -> the only third-party packages and parts of facegen it may import, anywhere in its files
    "diffusion": ("torch", "facegen.diffusion", *LEAVES),
    "networks": ("torch", "diffusers", "peft", "facegen.networks", *LEAVES),
    "data": ("torch", "lightning", "numpy", "PIL", "rich", "yaml", "sklearn", "facegen.data", "facegen.durable", *LEAVES),
    "metrics": (
        *("torch", "numpy", "scipy", "PIL", "rich", "torchmetrics", "torch_fidelity", "facegen.metrics", *LEAVES),
        *("facegen.data.decode", "facegen.data.records", "facegen.generate", "facegen.studio", "facegen.memory"),
        *("facegen.__version__", "facegen.cli", "facegen.durable", "facegen.progress", "facegen.ranks", "facegen.loading"),
    ),
    "families": (
        "torch",
        "lightning",
        "bitsandbytes",
        "facegen.families",
        "facegen.diffusion",
        "facegen.networks",
        "facegen.codecs",
        "facegen.prompts",
        *LEAVES,
    ),
}
SEES_HYDRA = {"cli.py", "experiment.py", "sweep.py"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def under(name: str, packages: tuple[str, ...] | set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_a_floor_imports_only_what_lies_below_it() -> None:
    breaches = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for folder, allowed in ALLOWED.items()
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        for line, name in imports(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not under(name, allowed)
    ]
    assert breaches == []


def test_only_the_entrance_sees_hydra() -> None:
    breaches = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name not in SEES_HYDRA
        for line, name in imports(path)
        if under(name, ("hydra", "omegaconf"))
    ]
    assert breaches == []


@pytest.mark.parametrize("part", ["generate.py", "codecs.py", "images.py"])
def test_generation_knows_no_family_and_no_data(part: str) -> None:
    assert [name for _, name in imports(PACKAGE / part) if under(name, ("lightning", "facegen.families", "facegen.data"))] == []


@pytest.mark.parametrize("script", ["train.py", "sample.py", "evaluate.py"])
def test_entry_scripts_are_short(script: str) -> None:
    assert len((ROOT / script).read_text().splitlines()) <= 60


def test_help_and_configuration_errors_import_nothing_heavy() -> None:
    check = (
        "import sys, facegen.cli, facegen.schema, facegen.checkpoint, facegen.experiment, facegen.rundir, facegen.networks.checks, "
        "facegen.request, facegen.metrics.names, facegen.metrics.protocol, facegen.metrics.weights, facegen.metrics.compare\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
