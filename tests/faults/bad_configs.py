"""Makes bad configurations: every setting with values it cannot take, names that do not exist, broken files."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Bad:
    """One bad configuration.

    Args:
        name: says what is wrong with it.
        argv: arguments of ``nas-kd``; ``FILE`` stands for the config file.
        part: what the message must hold.
        file: content of the config file, if there is one.
    """

    name: str
    argv: tuple[str, ...]
    part: str
    file: bytes | None = None


# kinds of settings -> values of another type; text is what a command line has
NOT_INT = ("many", 2.5, [1], {"a": 1}, "1O", "0x1G", "3 epochs", "--", True)
NOT_FLOAT = ("fast", [0.1], {"a": 1}, "1,5", "0.1.2", "1e", "10%", True)
NOT_BOOL = ("perhaps", 2, [True], {"a": 1}, 0.5, "truee")
NOT_TEXT = (["a"], {"a": 1}, [["a", "b"]])
NOT_WORDS = (5, {"a": 1}, "layer1", [["a"]], [1], True)
NOT_NUMBERS = ("a", {"a": 1}, ["a"], 5, [[1]], [None])
NOT_BUDGET = ([1], {"a": 1}, "lots", "60 percent", "-5%", "0%", "160%", -1, 0, 0.6, NAN, INF, "5X", True, "")
NONE = (None,)
IN_FILE = (*NOT_TEXT, None, {"a": {"b": 1}}, {"a": [1]})
# ranges, written down from what the settings mean and not from the code
POSITIVE_INT, NATURAL_INT = (0, -1, -20, 10**400), (-1, -20)
POSITIVE, NATURAL, SHARE = (0, -0.1, NAN, INF, -INF), (-0.1, NAN, INF, -INF), (-0.1, 1, 1.5, NAN, INF)
AT_LEAST_2, AT_LEAST_8 = (1, 0, -3), (7, 0, -8)
WORD = ("", "none", "sandwhich", "cosin", "exat", "ALPHA", "fare")
DATABASE = (
    "",
    "study.journal",
    "sqlite:///a.db",
    "postgresql://",
    "postgresql://host",
    "postgresql://h:x/a",
    "http://h/a",
)

_MANNER: dict[str, tuple[tuple[Any, ...], ...]] = {
    "schedule": (NOT_TEXT, NONE, WORD),
    "milestones": (NOT_NUMBERS, ([],), ([5, 3],), ([-1],), ([99999],)),
    "factor": (NOT_FLOAT, NONE, (0, 1, -0.1, 2, NAN)),
    "ema": (NOT_FLOAT, NONE, SHARE),
    "mixup": (NOT_FLOAT, NONE, NATURAL),
    "cutmix": (NOT_FLOAT, NONE, NATURAL),
}
_TRAINING: dict[str, tuple[tuple[Any, ...], ...]] = {
    "batch_size": (NOT_INT, NONE, POSITIVE_INT),
    "lr": (NOT_FLOAT, NONE, POSITIVE),
    "momentum": (NOT_FLOAT, NONE, SHARE),
    "weight_decay": (NOT_FLOAT, NONE, NATURAL),
    "warmup_epochs": (NOT_FLOAT, NONE, (*NATURAL, 99999)),
}


def _section(name: str, *tables: dict[str, tuple[tuple[Any, ...], ...]]) -> dict[str, list[Any]]:
    return {
        f"{name}.{field}": [value for kind in kinds for value in kind]
        for table in tables
        for field, kinds in table.items()
    }


ILLEGAL: dict[str, Sequence[Any]] = {
    "space": (*NOT_TEXT, "digit", "resnet-cifar", "no/such/space.py", "os", "search_spaces.digits", ""),
    "run": NOT_TEXT,
    "seed": (*NOT_INT, None),
    "plan": (*NOT_BOOL, None),
    "device": (*NOT_TEXT, None, "gpu", "cuda:", "cuda:x", "cpu:-1", "tpu", ""),
    "log": (5, {"a": 1}, [["csv"]], [1], True, "tensorbord", "csv,", ["csv", "comet"], "csv wandb"),
    "precision": (*NOT_TEXT, None, "fp16", "32", "bf16", ""),
    "metric": (*NOT_TEXT, *WORD),
    "on_nan": (*NOT_TEXT, None, "", "stopp", "ignore"),
    "max_hours": (*NOT_FLOAT, *POSITIVE),
    "threads": (*NOT_INT, *POSITIVE_INT),
    "workers": (*NOT_INT, None, *POSITIVE_INT),
    **_section(
        "data",
        {
            "train": (NOT_TEXT, NONE, ("no/such/folder", "images.zip", "digit", "wds/a", "tfds/b", "")),
            "test": (NOT_TEXT, ("no/such/folder", "test.tar", "wds/a")),
            "rate": (NOT_FLOAT, NONE, SHARE),
            "select": (NOT_FLOAT, NONE, SHARE),
            "seed": (NOT_INT, NONE),
            "resolution": (NOT_INT, POSITIVE_INT),
            "subset": (NOT_INT, POSITIVE_INT),
            "views": ([-1, 2.5, [8], {"a": 1}, "some", "ALL", ""],),
            "pad": (NOT_INT, NATURAL_INT),
            "flip": (NOT_BOOL,),
            "augment": (NOT_TEXT,),
            "memory_gib": (NOT_FLOAT, NONE, NATURAL),
            "download": (NOT_BOOL, NONE),
            "root": (NOT_TEXT, NONE),
            "unreadable": (NOT_TEXT, NONE, WORD),
            "train_split": (NOT_TEXT, NONE),
            "test_split": (NOT_TEXT, NONE),
            "class_folder": (NOT_TEXT, NONE, WORD),
            "image": (NOT_TEXT, ("path",)),
            "text": (NOT_TEXT, ("text",)),
            "text_pair": (NOT_TEXT, ("text_pair",)),
            "tokenizer": (NOT_TEXT, ("no/such/folder",)),
            "length": (NOT_INT, POSITIVE_INT, (3,)),
            "label": (NOT_WORDS, ("label",)),
            "split_column": (NOT_TEXT, ("split",)),
            "group": (NOT_TEXT, ("patient",)),
            "duplicates": (NOT_TEXT, NONE, WORD),
            "background": (NOT_TEXT, NONE, WORD),
            "kind": (NOT_TEXT, WORD),
            "balance": (NOT_TEXT, NONE, [word for word in WORD if word != "none"]),
        },
    ),
    **_section(
        "teacher",
        _TRAINING,
        _MANNER,
        {
            "model": (NOT_TEXT, ("no/such/student", "./here", "../student")),
            "checkpoint": (NOT_TEXT, ("no/such/file.pt", "weights.safetensors")),
            "pretrained": (NOT_BOOL, NONE),
            "stages": (NOT_WORDS,),
            "others": (NOT_WORDS, ([""],), (["no_such_model"],)),
            "mean": (NOT_NUMBERS, ([0.5],)),
            "std": (NOT_NUMBERS, ([0.0],), ([-1.0],)),
            "cache": (NOT_TEXT,),
            "epochs": (NOT_INT, NONE, NATURAL_INT),
            "smoothing": (NOT_FLOAT, NONE, SHARE),
            "clip_grad": (NOT_FLOAT, NONE, NATURAL),
            "optimizer": (NOT_TEXT,),  # null is chosen by the weights, here and below
            "lr": (NOT_FLOAT, POSITIVE),
            "warmup_epochs": (NOT_FLOAT, NATURAL),
            "freeze_norms": (NOT_BOOL,),
            "resolution": (NOT_INT, POSITIVE_INT),
            "grey": (NOT_TEXT, WORD),
            "check": (NOT_TEXT, NONE, WORD),
        },
    ),
    **_section(
        "derive",
        {
            "widths": (NOT_NUMBERS, NONE, ([],), ([0.0],), ([0.5, 1.5],), ([-0.25],)),
            "depth": (NOT_BOOL, NONE),
            "residual": (NOT_BOOL, NONE),
            "resolutions": (("a", {"a": 1}, ["a"], 5, [[1]], [None], [1.5]), NONE, ([0],), ([-8],)),
            "importance": (NOT_TEXT, NONE, WORD),
            "score": (NOT_TEXT, NONE, WORD),
            "rate_images": (NOT_INT, NONE, POSITIVE_INT),
            "temperature": (NOT_FLOAT, NONE, POSITIVE),
        },
    ),
    **_section(
        "repair",
        {
            "epochs": (NOT_INT, NONE, NATURAL_INT),
            "batch_size": (NOT_INT, NONE, POSITIVE_INT),
            "lr": (NOT_FLOAT, NONE, POSITIVE),
            "weight_decay": (NOT_FLOAT, NONE, NATURAL),
            "choices": (NOT_INT, POSITIVE_INT),
            "student_epochs": (NOT_INT, NONE, NATURAL_INT),
        },
    ),
    **_section(
        "supernet",
        _TRAINING,
        {
            "checkpoint": (NOT_TEXT, ("no/such/file.pt", "weights.safetensors")),
            "rule": (NOT_TEXT, NONE, WORD),
            "epochs": (NOT_INT, NONE, POSITIVE_INT),
            "schedule": (NOT_TEXT, NONE, WORD),
            "final_lr": (NOT_FLOAT, NONE, SHARE),
            "smoothing": (NOT_FLOAT, NONE, SHARE),
            "random_subnets": (NOT_INT, NATURAL_INT),
            "order": (NOT_TEXT, NONE, WORD),
            "candidates": (NOT_INT, NONE, POSITIVE_INT),
            "kd_ratio": (NOT_FLOAT, NONE, NATURAL),
            "chooser": (NOT_TEXT, NONE, WORD),
            "board": (NOT_INT, NONE, POSITIVE_INT),
            "matching": (NOT_TEXT, NONE, WORD),
            "full_teacher": (NOT_TEXT, NONE, WORD),
            "kernel_transform": (NOT_BOOL, NONE),
            "divergence": (NOT_TEXT, WORD),
            "alpha": (NOT_FLOAT, (NAN, INF)),
            "choose": (NOT_TEXT, NONE, WORD),
            "reduction": (NOT_TEXT, NONE, WORD),
            "teacher_weight": (NOT_FLOAT, NONE, (-0.1, 1.1, NAN)),
            "dropout": (NOT_FLOAT, NONE, SHARE),
            "drop_path": (NOT_FLOAT, NONE, SHARE),
            "ema": (NOT_FLOAT, NONE, SHARE),
            "clip_grad": (NOT_FLOAT, NONE, NATURAL),
            "accumulate": (NOT_INT, NONE, POSITIVE_INT),
            "compile": (NOT_BOOL, NONE),
        },
    ),
    **_section(
        "blockwise",
        {
            "train": (NOT_BOOL, NONE),
            "epochs": (NOT_INT, NONE, POSITIVE_INT),
            "lr": (NOT_FLOAT, NONE, POSITIVE),
            "weight_decay": (NOT_FLOAT, NONE, NATURAL),
            "batch_size": (NOT_INT, NONE, POSITIVE_INT),
            "init": (NOT_TEXT, NONE, WORD),
            "sampling": (NOT_TEXT, NONE, WORD),
            "paths": (NOT_INT, POSITIVE_INT),
            "rate_images": (NOT_INT, AT_LEAST_2),
            "calibration_images": (NOT_INT, NONE, AT_LEAST_2),
            "max_rows": (NOT_INT, NONE, POSITIVE_INT),
            "cache_gb": (NOT_FLOAT, NONE, NATURAL),
            "stage": (NOT_INT, POSITIVE_INT),
            "mix": (NOT_FLOAT, NONE, SHARE),
            "error": (NOT_TEXT, NONE, WORD),
            "source": (NOT_TEXT, NONE, WORD),
            "average_decay": (NOT_FLOAT, NONE, SHARE),
            "spread": (NOT_FLOAT, NONE, NATURAL),
        },
    ),
    **_section(
        "search",
        {
            "engine": (NOT_TEXT, WORD),
            "max_macs": (NOT_BUDGET,),
            "max_params": (NOT_BUDGET,),
            "min_macs": (NOT_BUDGET,),
            "min_params": (NOT_BUDGET,),
            "storage": (NOT_TEXT, DATABASE),
            "objectives": (NOT_WORDS, ([], ["macs"], ["kl", "kl"], ["flops", "kl"], ["tuned"])),
            "variables": (NOT_TEXT, NONE, WORD),
            "weights": (({"a": 1}, 5, ["a"], [[1]], "learnt", "", [NAN], [INF, 1]),),
            "max_latency_ms": (NOT_FLOAT, POSITIVE),
            "latency_table": (NOT_TEXT,),
            "first": (NOT_TEXT,),
            "latency_runtime": (NOT_TEXT, NONE, WORD),
            "trials": (NOT_INT, NONE, POSITIVE_INT),
            "sampler": (NOT_TEXT, NONE, WORD),
            "rounds_of_teachers": (NOT_INT, NONE, POSITIVE_INT),
            "rerate": (NOT_INT, NONE, NATURAL_INT),
            "gate_epochs": (NOT_INT, NONE, POSITIVE_INT),
            "gate_lr": (NOT_FLOAT, NONE, POSITIVE),
            "rerate_images": (NOT_INT, NONE, POSITIVE_INT),
            "rerate_temperature": (NOT_FLOAT, NONE, POSITIVE),
            "steps": (NOT_INT, NONE, POSITIVE_INT),
            "step_epochs": (NOT_INT, NONE, POSITIVE_INT),
            "top": (NOT_INT, NONE, POSITIVE_INT),
            "rounds": (NOT_INT, NONE, POSITIVE_INT),
            "tuned": (NOT_INT, NONE, NATURAL_INT),
            "epochs": (NOT_INT, NONE, NATURAL_INT),
            "calibration_images": (NOT_INT, NONE, POSITIVE_INT),
            "rate_images": (NOT_INT, POSITIVE_INT),
        },
    ),
    **_section(
        "retrain",
        _TRAINING,
        _MANNER,
        {
            "method": (({"a": 1}, [["ce"]], [["ce", "much"]], [[0.5, "ce"]], [5], "kdls", "", [["kdd", 0.5]]),),
            "method_settings": (("a", 5, [1], {"a": [1]}, {"a": {"b": 1}}),),
            "epochs": (NOT_INT, NONE, POSITIVE_INT),
            "clip_grad": (NOT_FLOAT, NONE, NATURAL),
            "optimizer": (NOT_TEXT,),
            "seeds": (NOT_INT, NONE, POSITIVE_INT),
            "rivals": (NOT_WORDS,),  # names are looked for in timm, which imports torch
            "init": (NOT_TEXT, WORD),
            "lr": (NOT_FLOAT, POSITIVE),
            "warmup_epochs": (NOT_FLOAT, NATURAL),
            "random_students": (NOT_INT, NONE, NATURAL_INT),
            "ensemble": (NOT_INT, NONE, NATURAL_INT),
            "test": (NOT_BOOL, NONE),
            "band": (NOT_FLOAT, NONE, POSITIVE),
        },
    ),
    **_section(
        "rank",
        _TRAINING,
        {
            "scores": (NOT_WORDS, (["nsme"],)),
            "primary": (NOT_TEXT, NONE, WORD),
            "control": (NOT_TEXT, NONE, WORD),
            "bands": ((5, {"a": 1}, [[1]], ["lots"], ["160%"], [-1], [0]),),
            "band": (NOT_FLOAT, NONE, (0, 1, -0.1)),
            "in_band": (NOT_INT, NONE, AT_LEAST_8),
            "overall": (NOT_INT, NONE, NATURAL_INT),
            "archs": (NOT_TEXT,),
            "limit": (NOT_INT, AT_LEAST_8),
            "seeds": (NOT_INT, NONE, POSITIVE_INT),
            "method": (NOT_TEXT, NONE, WORD),
            "optimizer": (NOT_TEXT,),  # null, here and below, is chosen by what the archs begin with
            "lr": (NOT_FLOAT, POSITIVE),
            "warmup_epochs": (NOT_FLOAT, NATURAL),
            "epochs": (NOT_INT, NONE, POSITIVE_INT),
            "clip_grad": (NOT_FLOAT, NONE, NATURAL),
            "ema": (NOT_FLOAT, NONE, SHARE),
            "images": (NOT_INT, NONE, POSITIVE_INT),
            "calibration_images": (NOT_INT, NONE, AT_LEAST_2),
            "resamples": (NOT_INT, NONE, POSITIVE_INT),
            "train": (NOT_BOOL, NONE),
        },
    ),
}
# settings that are legal alone and not together; the first is what the message names
TOGETHER: tuple[dict[str, Any], ...] = (
    {"data.rate": 0.5, "data.select": 0.5},
    {"data.rate": 0.99, "data.select": 0.02},
    {"supernet.warmup_epochs": 3, "supernet.epochs": 3},
    {"supernet.epochs": 0, "supernet.checkpoint": None},
    {"supernet.checkpoint": "weights.safetensors", "space": None},
    {"search.steps": 2, "space": "digits"},
    {"search.rounds_of_teachers": 2, "space": "digits", "search.engine": "nsga2"},
    {"search.steps": 2, "space": None, "search.max_macs": None},
    {"retrain.warmup_epochs": 2, "retrain.epochs": 1},
    {"teacher.warmup_epochs": 5, "teacher.epochs": 5},
    {"rank.warmup_epochs": 10, "rank.epochs": 10},
    {"supernet.final_lr": 0, "supernet.schedule": "exponential"},
    {"supernet.random_subnets": 0, "supernet.rule": "uniform"},
    {"supernet.random_subnets": 0, "supernet.rule": "fair"},
    {"supernet.random_subnets": 0, "supernet.rule": "shrinking"},
    {"supernet.random_subnets": 0, "supernet.rule": "cream"},
    {"supernet.chooser": "predictor", "supernet.rule": "sandwich"},
    {"supernet.teacher_weight": 0.5, "supernet.rule": "cream"},
    {"supernet.matching": "meta", "supernet.rule": "fair"},
    {"supernet.ema": 0.9, "supernet.rule": "shrinking"},
    {"supernet.alpha": 0.5, "supernet.divergence": "kl"},
    {"supernet.alpha": 0.5, "supernet.divergence": "js"},
    {"retrain.milestones": [2], "retrain.schedule": "cosine"},
    {"retrain.milestones": [9], "retrain.schedule": "step", "retrain.epochs": 5},
    {"teacher.milestones": [2], "teacher.schedule": "cosine"},
    {"teacher.model": None, "teacher.epochs": 3},
    {"teacher.model": None, "teacher.pretrained": True, "teacher.epochs": 0},
    {"search.engine": "exact", "space": "resnet_cifar", "teacher.model": None, "teacher.epochs": 0},
    {"retrain.ensemble": 2, "space": "resnet_cifar", "teacher.model": None, "teacher.epochs": 0},
    {"search.engine": "reinforce", "space": "resnet_cifar", "teacher.model": None, "teacher.epochs": 0},
    {"search.objectives": ["tuned_kl"], "search.engine": "nsga2"},
    {"supernet.teacher_weight": 0.5, "space": "resnet_cifar", "teacher.model": None, "teacher.epochs": 0},
    {"teacher.mean": [0.5], "teacher.epochs": 3},
    {"teacher.std": [0.5], "teacher.epochs": 3},
    {"teacher.checkpoint": None, "teacher.epochs": 0},
    {"blockwise.mix": 0.3, "blockwise.stage": 2},
    {"blockwise.error": "nsr", "blockwise.source": "average", "space": "digits"},
    {"blockwise.stage": 1, "blockwise.source": "average", "blockwise.error": "cosine", "space": "digits"},
    {"blockwise.mix": 0.3, "blockwise.source": "average", "blockwise.error": "cosine", "space": "digits"},
    {"blockwise.train": False, "blockwise.source": "average", "blockwise.error": "cosine", "space": "digits"},
    {"blockwise.cache_gb": 1.0, "blockwise.source": "average", "blockwise.error": "cosine", "space": "digits"},
    {"blockwise.source": "average", "blockwise.error": "cosine", "search.rounds_of_teachers": 2, "space": "digits"},
    {"blockwise.source": "average", "blockwise.error": "cosine", "space": None},
    {"teacher.checkpoint": None, "teacher.model": "resnet18", "teacher.epochs": 0},
)
# whole files -> what the message must hold
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "mapping"),
    "a comment": (b"# nothing\n", "mapping"),
    "a list": (b"- space: digits\n", "mapping"),
    "a word": (b"digits\n", "mapping"),
    "a number": (b"5\n", "mapping"),
    "null": (b"null\n", "mapping"),
    "two documents": (b"space: digits\n---\nspace: digits\n", "YAML"),
    "a tab": (b"data:\n\trate: 0.1\n", "YAML"),
    "an open bracket": (b"data: {rate: 0.1\n", "YAML"),
    "an open quote": (b"space: 'digits\n", "YAML"),
    "bad indent": (b"data:\n  rate: 0.1\n seed: 1\n", "YAML"),
    "no value": (b"space digits\nseed: 1\n", "YAML"),
    "binary": (bytes(range(256)), "YAML"),
    "zeros": (bytes(512), "YAML"),
    "latin-1": ("run: Stra\xdfe".encode("latin-1"), "YAML"),
    "half a UTF-16": ("space: digits".encode("utf-16")[:-1], "YAML"),
    "a PNG": (b"\x89PNG\r\n\x1a\n" + bytes(64), "YAML"),
    "JSON cut off": (b'{"space": "digits", "data": {"rate"', "YAML"),
    "an unknown anchor": (b"space: *nowhere\n", "YAML"),
    "an apply tag": (b'space: !!python/object/apply:os.system ["touch PWNED"]\n', "YAML"),
    "a new tag": (b"space: !!python/object/new:os.system [touch PWNED]\n", "YAML"),
    "a name tag": (b"retrain: {method_settings: {f: !!python/name:os.system }}\n", "YAML"),
    "a module tag": (b"space: !!python/module:PWNED\n", "YAML"),
    "an own tag": (b"space: !run digits\n", "YAML"),
    "an unhashable key": (b"? [a, b]\n: 1\n", "YAML"),
    "a number as key": (b"5: 6\n", "setting="),
    "null as key": (b"null: 6\n", "setting="),
    "a date as key": (b"2020-01-01: 6\n", "setting="),
    "true as key": (b"yes: 6\n", "setting="),
    "a date": (b"seed: 2020-01-01\n", "seed"),
    "a class": (b"class_path: os.system\ninit_args: {command: touch PWNED}\n", "class_path"),
    "a class as a section": (
        b"data: {class_path: nas_kd.data.DataConfig, init_args: {rate: 0.1}}\n",
        "class_path",
    ),
    "a class as a setting": (
        b"retrain: {method: {class_path: os.system, init_args: {command: touch PWNED}}}\n",
        "retrain.method",
    ),
    "a class in a dict": (b"retrain: {method_settings: {a: {class_path: os.system}}}\n", "method_settings"),
    "a config in a config": (b"config: other.yaml\n", "config"),
    "merge": (b"<<: 5\n", "YAML"),
    "print_config": (b"print_config: true\n", "print_config"),
    "an alias bomb": (
        b"a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n".encode() for i in range(12)
        ),
        "setting=",
    ),
    "an alias bomb as a value": (
        b"retrain:\n  method_settings:\n    a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(
            f"    {chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n".encode() for i in range(12)
        ),
        "method_settings",
    ),
    "a value that holds itself": (b"teacher: {stages: &a [*a]}\n", "teacher.stages"),
    "a mapping that holds itself": (b"data: &a {train: *a}\n", "data.train"),
    "a thousand brackets": (b"space: " + b"[" * 5000 + b"]" * 5000, "YAML"),
    "a thousand braces": (b"data: " + b"{a: " * 3000 + b"1" + b"}" * 3000, "YAML"),
    "a huge number": (b"seed: " + b"9" * 10000 + b"\n", "YAML"),
    "a long name": (b"x" * 100_000 + b": 1\n", ""),
    "a long value": (b"device: " + b"x" * 100_000 + b"\n", "device"),
    "a line end in a value": (b'device: "a\\nb"\n', "device"),
    "an escape in a value": (b'device: "\\e[31mred"\n', "device"),
    "an escape in a name": (b'"\\e[31mred": 1\n', "setting="),
    "a section as text": (b"data: digits\n", "data"),
    "a section as null": (b"teacher:\n", "teacher"),
    "a section as a list": (b"search: [trials, 5]\n", "search"),
    "a section as a number": (b"rank: 5\n", "rank"),
    "a setting as a section": (b"seed: {value: 5}\n", "seed"),
    "dotted names": (b"data.rate: -2\n", "data.rate"),
    "a setting twice": (b"seed: 1\nseed: 2\n", "seed"),
    "a section twice": (b"data: {rate: 0.1}\ndata: {seed: 1}\n", "data"),
}
COMMANDS = ("run", "describe", "teacher", "supernet", "blockwise", "search", "retrain", "rank")
LINES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("rum",), "command"),
    (("",), "command"),
    (("--run", "x"), "command"),
    (("Run",), "command"),
    (("run", "nowhere.yaml"), "config"),
    (("run", "."), "run"),
    (("run", "a.yaml", "b.yaml"), "CONFIG.yaml"),
    (("run", "--seed"), "seed"),
    (("run", "--"), "setting"),
    (("run", "---seed", "1"), "setting"),
    (("run", "-seed", "1"), "config"),
    (("run", "--seed="), "seed"),
    (("run", "--=5"), "setting"),
    (("run", "--config"), "config"),
    (("run", "--config="), "config"),
    (("run", "--config", "space: digits"), "config"),
    (("run", "--config", "/dev/null"), "config"),
    (("run", "--config", "/"), "config"),
    (("run", "\0.yaml"), "config"),
    (("run", "x" * 5000), "config"),
    (("run", "--run", ""), "run"),
    (("run", "--teacher.epochs", "2", "--run", "/dev/null/x"), "run"),
    (("run", "--teacher.epochs", "2", "--run", "a\0b"), "run"),
    (("status", "--space", "x"), "run"),
    (("status", "--run", "nowhere"), "run"),
    (("report", "--run", "nowhere"), "run"),
    (("report", "--run", ""), "run"),
    (("status", "--run", "/dev/null"), "run"),
    (("run", "--method.temperature", "[1]", "--teacher.epochs", "2"), "method_settings"),
    (("run", "--method.", "1"), "method"),
    (("run", "--retrain.method_settings.", "1"), "method_settings"),
    (("run", "--retrain.method_settings.a.b", "1", "--teacher.epochs", "2"), "method_settings"),
    (("search", "--method", "kd"), "method"),
    (("methods", "--all"), "setting"),
    (("run", "--data", "{rate: 0.1}"), "data"),
    (("run", "--data.class_path", "os.system"), "class_path"),
    (("run", "--data.init_args.rate", "0.1"), "init_args"),
    (("run", "--data.rate+", "0.1"), "data.rate"),
    (("run", "--teacher.stages+", "x"), "teacher.stages"),
    (("run", "--no_data.flip", "x"), "setting"),
    (("run", "--data.help", "x"), "setting"),
)


def bad_configs(count: int | None = None, seed: int = 0, names: tuple[str, ...] = ()) -> list[Bad]:
    """Make bad configurations; the same for the same arguments.

    Args:
        count: how many, drawn from all; None is all of them.
        seed: of the draws.
        names: all settings' dotted names, to make slips of the pen from.

    Returns:
        The bad configurations.
    """
    rng = random.Random(seed)
    made = [*_values(rng), *_together(rng), *_slips(rng, names)]
    made += [Bad(f"file: {name}", ("run", "FILE"), part, text) for name, (text, part) in FILES.items()]
    made += [Bad("line: " + " ".join(argv)[:60], argv, part) for argv, part in LINES]
    return made if count is None else rng.sample(made, count)


def _values(rng: random.Random) -> Iterator[Bad]:
    for field, values in ILLEGAL.items():
        for value in values:
            yield _made(rng, f"{field}={value!r:.40}", {field: value}, field)


def _together(rng: random.Random) -> Iterator[Bad]:
    for settings in TOGETHER:
        yield _made(rng, f"together: {settings}", settings, next(iter(settings)).split(".")[0])


def _slips(rng: random.Random, names: tuple[str, ...]) -> Iterator[Bad]:
    """One letter doubled, dropped, swapped or another, a section forgotten or another."""
    known = set(names) | {name.split(".")[0] for name in names}
    for name in names:
        section, dot, last = name.rpartition(".")
        at = rng.randrange(len(last))
        slips = [
            section + dot + last[:at] + last[at] + last[at:],
            section + dot + last[:at] + last[at + 1 :],
            section + dot + last[:at] + rng.choice("aeioxz_-7") + last[at + 1 :],
            section + dot + last.upper(),
            f"{section}x{dot}{last}",
            f"{name}.value",
        ]
        for slip in rng.sample(slips, 2):
            sound = slip.strip(".") and not slip.startswith(("retrain.method_settings.", "teacher.epochs."))
            if sound and slip not in known:
                yield _made(rng, f"slip: {slip}", {slip: 1}, slip.split(".")[0])


def _made(rng: random.Random, name: str, settings: dict[str, Any], part: str) -> Bad:
    """Give settings in a file, as options, or some in a file and some as options."""
    settings = {"teacher.epochs": 3, **settings}
    command = "run" if "teacher.checkpoint" in settings else rng.choice(COMMANDS)  # describe needs no weights
    # on a command line brackets and null may be text
    if rng.random() < 0.5 or any(value in IN_FILE for value in settings.values()):
        return Bad(name, (command, "FILE"), part, yaml_of(settings).encode())
    options = [f"--{field}={_text(value)}" for field, value in settings.items()]
    return Bad(name, (command, *options), part)


def yaml_of(settings: dict[str, Any]) -> str:
    """Write dotted settings as YAML."""
    tree: dict[str, Any] = {}
    for field, value in settings.items():
        *sections, last = field.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[last] = value
    import yaml

    return str(yaml.safe_dump(tree, sort_keys=False))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace("NaN", ".nan").replace("Infinity", ".inf")
