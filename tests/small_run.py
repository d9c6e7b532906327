"""A whole run on the digits, small enough for a test: what it is, and how runs are compared."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import nas_kd

ROOT = Path(nas_kd.__file__).parents[1]
CONFIG = """\
space: digits
device: cpu
threads: 1
workers: 1
plan: false
data: {train: digits, subset: 500, rate: 0.15, select: 0.15, views: 2}
teacher: {model: cifar_resnet8, epochs: 3, lr: 0.1, batch_size: 32}
supernet: {epochs: 2, batch_size: 32, lr: 0.05}
blockwise: {epochs: 2, batch_size: 32, lr: 0.03, calibration_images: 64}
search: {max_macs: 207264, trials: 30, top: 2, epochs: 1, tuned: 2, calibration_images: 64}
retrain: {epochs: 2, batch_size: 32, lr: 0.1, seeds: 2, random_students: 1, band: 0.2}
"""
# what differs between two runs of equal results: times, processes, the folder's own name in config.yaml,
# whether a cache that holds every answer was asked for all of them again (cache.json says so), and the order
# in which safetensors writes the notes of the teacher's weights (its fingerprint is in stage.json)
LIVELY = ("log.txt", "cache.json", "status.json", "timing.csv", "latency.csv", "config.yaml", "study.journal")
NOTED = "teacher/weights.safetensors"


@dataclass(frozen=True)
class Made:
    """A finished run and what its command said.

    Args:
        config: the configuration file.
        run: the run folder.
        code: exit code.
        out: standard output.
        err: standard error.
    """

    config: Path
    run: Path
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Said:
    """What a command in this process gave: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """Return the environment of a command in a fresh process."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def digests(run: Path) -> dict[str, str]:
    """Hash a run's files, without those that no two runs have alike.

    Args:
        run: the run folder.

    Returns:
        Path below the run to SHA-256.
    """
    found = {}
    for path in sorted(run.rglob("*")):
        known = path.name in LIVELY or path.name.startswith(".lock") or path.parent.name == "leases"
        if path.is_file() and not known:
            found[path.relative_to(run).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """List the files that are not the same in two results of `digests`."""
    return sorted(name for name in {**before, **after} if before.get(name) != after.get(name))


def numbers(run: Path) -> dict[str, str]:
    """Hash what two runs of one configuration must have alike, wherever they lie; arguments as `digests`."""
    return {
        name: value
        for name, value in digests(run).items()
        if name != NOTED and not name.startswith("report/") and not name.endswith("last.pt")
    }
