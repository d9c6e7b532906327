"""Makes checkpoints, student folders and run folders that are damaged, of something else, or of ill will."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

Weights = dict[str, Tensor]
WEIGHTS, ARCH, ABOUT = "weights.safetensors", "arch.json", "student.json"


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def torch_file(value: Any, **options: Any) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def evil_pickles(path: Path) -> dict[str, bytes]:
    """Return files that touch a path when they are unpickled, each by another way."""
    evil = Evil(path)
    found = {f"a pickle of protocol {number}": pickle.dumps(evil, number) for number in range(6)}
    found |= {
        "a pickle in a dict": pickle.dumps({"state_dict": evil, "w": [1.0]}),
        "a pickle by torch": torch_file(evil),
        "a pickle among weights": torch_file({"w": torch.ones(2), "x": evil}),
        "a nested pickle": torch_file({"state_dict": {"w": torch.ones(2), "x": [evil]}}),
        "an old torch file": torch_file({"w": torch.ones(2), "x": evil}, _use_new_zipfile_serialization=False),
        "a pickle behind weights": torch_file({"w": torch.ones(2)}) + pickle.dumps(evil),
        "a pickle by posix": b"cposix\nsystem\n(Vtouch " + str(path).encode() + b"\ntR.",
        "a pickle by eval": b"c__builtin__\neval\n(V__import__('os').system('touch " + str(path).encode() + b"')\ntR.",
        "a pickle by getattr": b"c__builtin__\ngetattr\n(cos\nV\x01\ntR.",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(evil, 2))
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    return found | {"a pickle in a zip": buffer.getvalue()}


def _bomb() -> bytes:
    """Return a torch file whose tensor is compressed to a thousandth."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file({"w": torch.zeros(2**24)}))) as source:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
            for part in source.infolist():
                target.writestr(part.filename, source.read(part))
    return buffer.getvalue()


def _tensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def checkpoints(weights: Weights, path: Path) -> dict[str, tuple[str, bytes]]:
    """Make bad checkpoints.

    Args:
        weights: those of the right network.
        path: what a pickle of ill will touches.

    Returns:
        What is wrong to file name and content.
    """
    whole, safe = torch_file(weights), save(weights)
    first = next(name for name, tensor in weights.items() if tensor.ndim == 4)
    files: dict[str, tuple[str, bytes]] = {
        f"{name}, {end}": (f"x{end}", content)
        for number, (name, content) in enumerate(evil_pickles(path).items())
        if name != "a pickle behind weights"
        for end in {".pt", (".pth", ".bin", ".pkl", ".ckpt", ".safetensors")[number % 5]}
    }
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    made = {
        "no bytes": b"",
        "zeros": bytes(4096),
        "a text": b"weights",
        "JSON": b"{}",
        "a zip of nothing": b"PK\x05\x06" + bytes(18),
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "a number": torch_file(5),
        "a tensor": torch_file(torch.ones(3)),
        "a list": torch_file([torch.ones(3)]),
        "no tensors": torch_file({"epoch": 3}),
        "an empty dict": torch_file({}),
        "an empty state": torch_file({"state_dict": {}}),
        "a bomb": _bomb(),
        "a network": torch_file(torch.nn.Linear(2, 2)),
        "another network": torch_file({"w": torch.ones(3)}),
        "one tensor less": torch_file({k: v for k, v in weights.items() if k != first}),
        "one transposed": torch_file(weights | {first: weights[first].transpose(0, -1)[:1]}),
        "one named otherwise": torch_file({("x" + k if k == first else k): v for k, v in weights.items()}),
        **{f"cut at {share} %": whole[: len(whole) * share // 100] for share in (1, 10, 40, 70, 95)},
    }
    files |= {name: ("x.pt", content) for name, content in made.items()}
    tensors = {
        "no bytes": b"",
        "a text": b"weights",
        "a torch file": whole,
        "a long header": (2**60).to_bytes(8, "little") + b"{}",
        "a header past the end": (10**6).to_bytes(8, "little") + b"{}",
        "no JSON": _tensors(b"{oops"),
        "a list": _tensors([1]),
        "no UTF-8": _tensors(b'{"\xff": 1}'),
        "a wrong dtype": _tensors({first: one | {"dtype": "F99"}}, bytes(8)),
        "a wrong size": _tensors({first: one | {"shape": [3]}}, bytes(8)),
        "a huge size": _tensors({first: one | {"shape": [2**62]}}, bytes(8)),
        "data past the end": _tensors({first: one | {"data_offsets": [0, 800]}}, bytes(8)),
        "two at one place": _tensors({"a": one, "b": one}, bytes(8)),
        "no data": _tensors({first: one}),
        "below zero": _tensors({first: one | {"shape": [-2]}}, bytes(8)),
        "deep": _tensors(b"[" * 9000),
        "no tensors": save({}),
        "another network": save({"w": torch.ones(3)}),
        "notes that are no JSON": save(weights, {"nas_kd": "{oops"}),
        "notes that are a list": save(weights, {"nas_kd": "[1]"}),
        "a mean of words": save(weights, {"nas_kd": '{"mean": ["a"], "std": ["b"]}'}),
        "a mean without std": save(weights, {"nas_kd": '{"mean": [0.5]}'}),
        "a mean that is a number": save(weights, {"nas_kd": '{"mean": 5}'}),
        **{f"cut at {share} %": safe[: len(safe) * share // 100] for share in (1, 10, 40, 70, 99)},
    }
    return files | {f"safetensors: {name}": ("x.safetensors", content) for name, content in tensors.items()}


def students(made: Path, path: Path) -> dict[str, Callable[[Path], object]]:
    """Make bad student folders.

    Args:
        made: a sound one.
        path: what a pickle of ill will touches.

    Returns:
        What is wrong to a function that does it to a copy of the folder.
    """
    layers, about = (json.loads((made / name).read_text()) for name in (ARCH, ABOUT))
    weights = (made / WEIGHTS).read_bytes()

    def wrote(name: str, value: Any) -> Callable[[Path], object]:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        return lambda folder: (folder / name).write_bytes(content)

    def told(**facts: Any) -> Callable[[Path], object]:
        return wrote(ABOUT, about | facts)

    def layer(**facts: Any) -> Callable[[Path], object]:
        return wrote(ARCH, [layers[0] | facts, *layers[1:]])

    def built(factory: Any, kwargs: Any = None) -> Callable[[Path], object]:
        def make(folder: Path) -> None:
            wrote(ARCH, None)(folder)
            told(factory=factory, factory_kwargs={} if kwargs is None else kwargs)(folder)
            (folder / "evil.py").write_text(f"open({str(path)!r}, 'w')\nfrom torch.nn import Linear as Net\n")
            (folder / "evil.pt").write_bytes(torch_file(Evil(path)))

        return make

    made_by: dict[str, Callable[[Path], object]] = {
        "posix": built("os:system", {"command": f"touch {path}"}),
        "builtins": built("builtins:eval", {"source": "1"}),
        "subprocess": built("subprocess:run", {"args": ["touch", str(path)]}),
        "main": built("__main__:main"),
        "torch.load": built("torch:load", {"f": str(made.parent / "evil.pt"), "weights_only": False}),
        "pandas": built("pandas:read_pickle", {"filepath_or_buffer": str(made.parent / "evil.pt")}),
        "numpy": built("numpy:load", {"file": str(made.parent / "evil.pt"), "allow_pickle": True}),
        "a space's loader": built("nas_kd.space.load:_module", {"name": str(made.parent / "evil.py")}),
        "its own code": lambda folder: built(f"{folder.parent.name}.{folder.name}.evil:Net")(folder),
        "a function": built("torch.nn.functional:relu"),
        "nothing": built("no_such_package:Net"),
        "no class": built("torch:pi"),
        "no name": built("torch"),
        "no package": built(":Net"),
        "a number": built(5),
        "a list": built(["torch.nn:Linear"]),
        "an absent class": built("torch.nn:Lin"),
        "wrong arguments": built("torch.nn:Linear", {"x": 1}),
        "arguments as a list": built("torch.nn:Linear", [1]),
        "another network": built("torch.nn:Linear", {"in_features": 2, "out_features": 2}),
        "no factory": built(None),
        "dots": built("..x:Net"),
        "timm's nothing": built("timm:resnet5O"),
        "timm with a file": built("timm:resnet18", {"checkpoint_path": "evil.pt"}),
        "timm that downloads": built("timm:resnet18", {"pretrained": True}),
        "timm's hub": built("timm:hf-hub:x/y"),
        "timm with wrong arguments": built("timm:resnet18", {"in_chans": "x"}),
    }
    found: dict[str, Callable[[Path], object]] = {f"factory: {name}": make for name, make in made_by.items()}
    for name in (ARCH, ABOUT, WEIGHTS):
        found |= {
            f"{name}: missing": lambda folder, name=name: (folder / name).unlink(),  # type: ignore[misc]
            f"{name}: a folder": lambda folder, name=name: [(folder / name).unlink(), (folder / name).mkdir()],
            # type: ignore[misc]
            f"{name}: no bytes": wrote(name, b""),
            f"{name}: a text": wrote(name, b"oops"),
            f"{name}: zeros": wrote(name, bytes(999)),
            f"{name}: half": wrote(name, (made / name).read_bytes()[: (made / name).stat().st_size // 2]),
            f"{name}: a pickle": wrote(name, pickle.dumps(Evil(path))),
            f"{name}: no UTF-8": wrote(name, b'"\xff\xfe"'),
            f"{name}: deep": wrote(name, b"[" * 9000),
        }
    for value in ([], [1], "x", 5, {}):
        found[f"student.json: {value!r}"] = wrote(ABOUT, value)
    for facts in (
        {"format_version": 2},
        {"format_version": "1"},
        {"format_version": True},
        {"format_version": None},
        {"mean": 0.5},
        {"mean": ["a"], "std": ["b"]},
        {"mean": [0.1, 0.2], "std": [1.0]},
        {"in_chans": "1"},
        {"in_chans": 7},
        {"classes": 5},
    ):
        found[f"student.json: {facts}"] = told(**facts)
    for arch in ({}, [], [1], [{}], ["conv"], 5, "x", [[]], layers[:-1], layers * 2, layers[::-1], [None]):
        found[f"arch.json: {str(arch)[:20]}, {len(str(arch))}"] = wrote(ARCH, arch)
    for number, facts in enumerate(
        (
            {"in": 0},
            {"in": -1},
            {"in": "1"},
            {"in": None},
            {"in": 3},
            {"in": 1.5},
            {"in": 2**40},
            {"in": 10**30},
            {"op": "os.system"},
        )
    ):
        found[f"arch.json: layer {number} {facts}"] = layer(**facts)
    found["weights of another"] = wrote(WEIGHTS, save({"w": torch.ones(3)}))
    found["weights cut"] = wrote(WEIGHTS, weights[:-1])
    return found


# files of a finished run that nothing can be done without
NEEDED = (
    "env.json",
    "space.json",
    "teacher/stage.json",
    "teacher/teacher.json",
    "teacher/weights.safetensors",
    "supernet/stage.json",
    "supernet/weights.safetensors",
    "blockwise/stage.json",
    "blockwise/stage_1.csv",
    "search/stage.json",
    "search/best.json",
    "retrain/KEY/seed_0/stage.json",
    "retrain/KEY/seed_0/student/arch.json",
    "retrain/KEY/seed_0/student/student.json",
    "retrain/KEY/seed_0/student/weights.safetensors",
)


def damages(path: Path) -> dict[str, Callable[[Path], object]]:
    """Return ways to damage a file; those of ill will touch ``path``."""
    return {
        "no bytes": lambda file: file.write_bytes(b""),
        "random": lambda file: file.write_bytes(bytes(range(256)) * 4),
        "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
        "a pickle": lambda file: file.write_bytes(torch_file(Evil(path))),
        "a folder": lambda file: [file.unlink(), file.mkdir()],
    }


def run_folders(made: Path, path: Path) -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Make damaged run folders.

    Args:
        made: a finished run.
        path: what a pickle of ill will touches.

    Returns:
        What is wrong to the damaged file and a function that does it to a copy.
    """
    key = next(folder.name for folder in sorted((made / "retrain").iterdir()) if (folder / "seed_0/student").is_dir())
    found = {}
    for name in NEEDED:
        file = name.replace("KEY", key)
        for what, damage in damages(path).items():
            found[f"{name}: {what}"] = (file, lambda run, damage=damage, file=file: damage(run / file))
    return found
