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
    """Return a parser of what names images and teacher, and of --run and --out; a script adds --quick and its own.

    Args:
        description: the script's docstring.
        out: its usual folder of tables.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder of train.tar and test.tar, a .tar to hold a fifth out of, or digits"
    )
    parser.add_argument("--images", type=int, default=11_000, help="of train; nine tenths of them are trained on")
    parser.add_argument("--views", type=int, default=2, help="of every training image")
    parser.add_argument("--resolution", type=int, help="size of the images in pixels; their own unless given")
    parser.add_argument("--model", default="cifar_resnet56", help="the teacher's")
    parser.add_argument(
        "--weights", type=Path, help="the teacher's; resnet56.safetensors beside train.tar unless given"
    )
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
        parser.error("--data, or --quick")
    torch.set_num_threads(1)
    data, teacher = small_digits() if options.quick else load(options)
    return Given(options, data, teacher, options.out or (options.run if options.quick else out))


def small_digits() -> tuple[Data, Teacher]:
    """Return some digits, and a small teacher of them."""
    data = nas_kd.load_data("digits", subset=500, rate=0.15, select=0.15, views=2)
    return data, nas_kd.train_teacher("cifar_resnet14", data, epochs=2, batch_size=32, lr=0.1)


def digits(run: Path) -> tuple[Data, Teacher]:
    """Return the digits and the teacher of the quick start, whatever else the arguments say."""
    data = nas_kd.load_data("digits", rate=0.15, select=0.15, views=8)
    return data, nas_kd.train_teacher("cifar_resnet20", data, run=run, epochs=12, batch_size=64, lr=0.1)


def load(options: argparse.Namespace) -> tuple[Data, Teacher]:
    """Return what `parser_of`'s arguments name: data normalised as the teacher's, and the teacher."""
    folder = options.data
    if str(folder) == "digits":
        return digits(options.run)
    train, test = (str(folder), None) if folder.is_file() else (str(folder / "train.tar"), str(folder / "test.tar"))
    data = nas_kd.load_data(
        train,
        test=test,
        subset=options.images,
        resolution=options.resolution,
        rate=0.05,
        select=0.05,
        views=options.views,
    )
    weights = options.weights or folder / "resnet56.safetensors"
    teacher = nas_kd.load_teacher(options.model, checkpoint=weights, num_classes=data.num_classes)
    if teacher.mean is not None and teacher.std is not None:
        data = data.normalised(teacher.mean, teacher.std)
    teacher.bind(data)
    return data, teacher
