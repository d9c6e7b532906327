"""Every bad file ends with exit code 2 and one message that helps, and a good run beside it stays as it was."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_images import FOLDERS, TARS
from bad_saved import checkpoints, run_folders, students
from safetensors.torch import load_file
from small_run import Made, changes, digests
from test_bad_configs import answers, fault_of


@dataclass(frozen=True)
class Job:
    """A bad file and the command that meets it.

    Args:
        name: says what is wrong.
        options: the command's options.
        part: what the message must hold.
    """

    name: str
    options: tuple[str, ...]
    part: str


def bad_files(made: Made, folder: Path, count: int | None = None) -> list[Job]:
    """Make bad files.

    Args:
        made: a finished run.
        folder: an empty folder.
        count: how many, drawn from all; None is all of them.

    Returns:
        One job a file.
    """
    evil, good = folder / "PWNED", ("--run", str(folder / "good"))
    student = next((made.run / "retrain").glob("*/seed_0/student"))
    names = [("folder", name) for name in FOLDERS] + [("tar", name) for name in TARS]
    names += [("test folder", name) for name in FOLDERS] + [("test tar", name) for name in TARS]
    weights = checkpoints(load_file(made.run / "teacher/weights.safetensors"), evil)
    people, runs = students(student, evil), run_folders(made.run, evil)
    names += [("checkpoint", name) for name in weights] + [("student", name) for name in people]
    names += [("run", name) for name in runs]
    chosen = names if count is None else random.Random(0).sample(names, count)
    jobs = []
    for number, (kind, name) in enumerate(chosen):
        place = folder / f"x{number}"
        field = "--data.test" if kind.startswith("test") else "--data.train"
        sizes = ("--data.subset", "null") if field == "--data.train" else ()
        options, part = good, f"x{number}"
        if kind.endswith("folder"):
            options += (field, str(FOLDERS[name](place)), *sizes)
        elif kind.endswith("tar"):
            (path := folder / f"x{number}.tar").write_bytes(TARS[name])
            options += (field, str(path), *sizes)
        elif kind == "checkpoint":
            place.mkdir()
            file, content = weights[name]
            (place / file).write_bytes(content)
            options += ("--teacher.epochs", "0", "--teacher.checkpoint", str(place / file))
        elif kind == "student":
            people[name](Path(shutil.copytree(student, place)))
            options += ("--teacher.epochs", "0", "--teacher.model", str(place))
            part = "factory" if name.startswith("factory") and "another" not in name else part
        else:
            part, damage = runs[name]
            part = part.rpartition("/")[0] if "student/" in part else part  # the folder, where a file is missing
            damage(Path(shutil.copytree(made.run, place)))
            options = ("--run", str(place))
        jobs.append(Job(f"{kind}: {name}", options, part))
    return jobs


def faults(made: Made, folder: Path, count: int | None = None) -> list[str]:
    """Try bad files; arguments as `bad_files`. Returns what was wrong with the answers."""
    shutil.copytree(made.run, folder / "good")
    before = digests(folder / "good")
    jobs = bad_files(made, folder, count)
    told = answers([["run", str(made.config), *job.options] for job in jobs], folder, "--torch")
    wrong = [f"{job.name}: {fault}" for job, said in zip(jobs, told, strict=True) for fault in fault_of(job.part, said)]
    wrong += [f"changed: {name}" for name in changes(before, digests(folder / "good"))]
    return wrong + [f"written: {path}" for path in (folder / "PWNED", Path("/tmp/PWNED")) if path.exists()]


def test_a_sample_of_bad_files(made: Made, tmp_path: Path) -> None:
    wrong = faults(made, tmp_path, 16)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_bad_files(made: Made, tmp_path: Path) -> None:
    wrong = faults(made, tmp_path)
    assert not wrong, "\n".join(wrong)
