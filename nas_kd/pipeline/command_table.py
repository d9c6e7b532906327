"""The commands: what each does, and what its help shows."""

from __future__ import annotations

from typing import NamedTuple

# what a training of any kind takes besides its own settings
MACHINE = ("space", "run", "seed", "device", "precision", "threads", "workers", "on_nan", "max_hours", "log", "plan")
BUDGET = ("search.max_macs", "search.max_params", "search.min_macs", "search.min_params")
MOST_USED = (
    *("space", "run", "seed", "device", "workers", "max_hours"),
    *("data.train", "data.test", "data.resolution"),
    *("teacher.model", "teacher.checkpoint", "teacher.pretrained", "teacher.epochs"),
    *("repair.epochs", "supernet.epochs", "blockwise.epochs"),
    *("search.engine", "search.max_macs", "search.trials"),
    *("retrain.method", "retrain.epochs", "retrain.batch_size", "retrain.lr", "retrain.seeds", "retrain.init"),
)


class Command(NamedTuple):
    """A command of the command line.

    Args:
        function: of ``nas_kd.pipeline.commands``.
        teaches: whether it needs a teacher with weights.
        help: what it does.
        shown: settings and sections that its help shows.
    """

    function: str
    teaches: bool
    help: str
    shown: tuple[str, ...]


COMMANDS = {
    "init": Command("", False, "write a config for your data, teacher and time, with epochs that fit", MOST_USED),
    "run": Command("run_pipeline", True, "do everything in order, skipping what is done", MOST_USED),
    "describe": Command(
        "stage_describe",
        False,
        "print the space's size and costs and whether the budget is feasible",
        ("space", "teacher.model", "derive", "data.train", "data.test", "data.resolution", *BUDGET),
    ),
    "teacher": Command("stage_teacher", True, "train or fine-tune the teacher", ("run", "teacher")),
    "supernet": Command(
        "stage_supernet", False, "train the supernet with in-place distillation", ("space", "run", "supernet")
    ),
    "blockwise": Command(
        "stage_blockwise", True, "rate every candidate of every stage against the teacher", ("run", "blockwise")
    ),
    "search": Command("stage_search", True, "find the best architecture within the budget", ("run", "search")),
    "retrain": Command(
        "stage_retrain", True, "retrain the found student and those it is compared with", ("run", "workers", "retrain")
    ),
    "rank": Command(
        "stage_rank",
        True,
        "train a sample of archs and say how well each score ranks them",
        ("space", "run", "workers", "rank"),
    ),
    "export": Command(
        "",
        False,
        "write a student as ONNX, torch.export, TorchScript, one Python file or for timm, and check it",
        (
            *("to", "path", "normalise", "softmax", "tolerance", "latency", "batch_sizes", "threads", "factory"),
            *("int8", "calibration", "data.train", "data.test"),
        ),
    ),
    "report": Command("", False, "write the HTML report of a run", ("run",)),
    "compare": Command("", False, "put several runs side by side: settings that differ, students, time", ()),
    "status": Command("", False, "tell where a run stands and who works in it", ("run",)),
    "methods": Command("", False, "list the distillation methods: what each does, needs and costs", ()),
}
JOINS = {"search": "join_search", "rank": "join_rank"}  # functions of nas_kd.pipeline.join that --worker calls
TOGETHER = ("run", "supernet")  # commands that torchrun may start several times at once
# commands that end in students take --method and --method.SETTING for the long names
STUDENTS = {"method": "retrain.method", "method.": "retrain.method_settings."}
SHORT = {"run": STUDENTS, "retrain": STUDENTS, "blockwise": {"stage": "blockwise.stage"}}
READERS = ("status", "report")  # commands that read a run folder and need no torch
