"""The teacher that several scripts cut, its images, and the arguments that name them; digits with ``--quick``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch

import nas_kd
from nas_kd.data import Data
from nas_kd.teacher import Teacher

WIDTHS = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)


class Given(NamedTuple):
    """What the arguments of a script stand for.

    Args:
        options: the parsed arguments.
        data: images, normalised as the teacher's.
        teacher: the teacher, bound to them.
        out: folder of the tables.
    """

    options: argparse.Namespace
    data: Data
    teacher: Teacher
    out: Path


def parser_of(description: str | None, out: Path) -> argparse.ArgumentParser:
    """Return a parser of --data, --images, --run and --out; a script adds --quick and its own.

    Args:
        description: the script's docstring.
        out: its usual folder of tables.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of train.tar, test.tar and resnet56.safetensors")
    parser.add_argument("--images", type=int, default=11_000, help="of train; nine tenths of them are trained on")
    parser.add_argument("--run", type=Path, default=Path("runs/teacher_space"))
    parser.add_argument("--out", type=Path, help=f"folder of the tables; default results/{out.name}, or --run")
    return parser


def opened(parser: argparse.ArgumentParser, out: Path) -> Given:
    """Parse the arguments, and load what they name; one thread.

    Args:
        parser: of `parser_of`, with ``--quick``.
        out: the script's usual folder of tables.
    """
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("--data FOLDER, or --quick")
    torch.set_num_threads(1)
    data, teacher = load(None if options.quick else options.data, options.images)
    return Given(options, data, teacher, options.out or (options.run if options.quick else out))


def load(folder: Path | None, images: int) -> tuple[Data, Teacher]:
    """Return data normalised as the teacher's, and the teacher; digits where there is no folder."""
    if folder is None:
        data = nas_kd.load_data("digits", subset=500, rate=0.15, select=0.15, views=2)
        return data, nas_kd.train_teacher("cifar_resnet14", data, epochs=2, batch_size=32, lr=0.1)
    data = nas_kd.load_data(
        str(folder / "train.tar"), test=str(folder / "test.tar"), subset=images, rate=0.05, select=0.05, views=2
    )
    teacher = nas_kd.load_teacher("cifar_resnet56", checkpoint=folder / "resnet56.safetensors", num_classes=10)
    if teacher.mean is not None and teacher.std is not None:
        data = data.normalised(teacher.mean, teacher.std)
    teacher.bind(data)
    return data, teacher
