"""One Python file with a student's plain torch modules and its weights, which imports torch and nothing else."""

from __future__ import annotations

import base64
import importlib.util
import inspect
import keyword
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_save
from torch import Tensor, fx, nn

from nas_kd.export.deployed import Deployed
from nas_kd.export.formats.base import Format, Read
from nas_kd.export.formats.traced import exported
from nas_kd.runs.files import plain
from nas_kd.version import __version__

EMBEDDED = 4 * 2**20  # bytes of weights that go into the file itself; more lie beside it
KNOWN = {  # what the code of torch.fx may name besides the input
    "torch": "import torch",
    "operator": "import operator",
    "math": "import math",
    "device": "from torch import device",
    "inf": "from math import inf",
    "nan": "from math import nan",
}
HOW = {
    "modules": "Its layers are those of the student, found by torch.fx.",
    "operators": "Its code is the graph of torch.export, in operators of torch: torch.fx could not trace the student.",
}
TEMPLATE = '''"""{title}: a network and its weights, in plain PyTorch.

    network = load()
    outputs = network(images)  # {shape} {values}, to {outputs}

Written by nas_kd {version}. {how}
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
{imports}
from torch import Tensor, nn

CLASSES = {classes!r}
RESOLUTION = {resolution!r}
MEAN = {mean!r}
STD = {std!r}


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
{build}

{forward}


def load() -> Student:
    """Return the network with its weights, in evaluation mode."""
    network = Student()
    network.load_state_dict(_tensors({data}))
    return network.eval()


def _tensors(data: bytes) -> dict[str, Tensor]:
    """Read the safetensors format: the length of a JSON header, the header, the numbers."""
    (length,) = struct.unpack("<Q", data[:8])
    kinds = {{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}}
    kinds |= {{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8}}
    kinds |= {{"U8": torch.uint8, "BOOL": torch.bool}}
    found = {{}}
    for name, about in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + at for at in about["data_offsets"])
            numbers = bytearray(data[begin:end])
            kind = kinds[about["dtype"]]
            flat = torch.frombuffer(numbers, dtype=kind) if numbers else torch.empty(0, dtype=kind)
            found[name] = flat.reshape(about["shape"])
    return found
{weights}'''


class Unwritable(Exception):
    """A graph that cannot be written as code of torch alone."""


class LayersTracer(fx.Tracer):
    """Traces through everything but torch's own layers."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        """Tell whether a module stays one in the graph."""
        return getattr(nn, type(module).__name__, None) is type(module) and next(module.children(), None) is None


def write(network: Deployed, example: Tensor, path: Path) -> None:
    """Write the file, from the student's layers where torch.fx can trace it, else from the graph of torch.export."""
    if not _by_modules(network, example, path):
        graph, owner = _operators(network, example)
        _write(path, network, graph, owner, "operators")


def read(path: Path) -> Read:
    """Run the file and load its network."""
    spec = importlib.util.spec_from_file_location("nas_kd_standalone_student", path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def _by_modules(network: Deployed, example: Tensor, path: Path) -> bool:
    """Write the file from the layers; return whether it holds what the network does."""
    try:
        _write(path, network, LayersTracer().trace(network), network, "modules")
        run = read(path)
        with torch.no_grad():
            parts = (example, example[:1])
            return all(torch.allclose(run(part), network(part), rtol=1e-4, atol=1e-4) for part in parts)
    except Exception:  # whatever a tracer or foreign code raises: the other way does not need it
        return False


def _operators(network: Deployed, example: Tensor) -> tuple[fx.Graph, nn.Module]:
    """Return torch.export's graph with the weights as attributes, without its wrapping of inputs and outputs."""
    owner: Any = exported(network, example).module()
    graph = owner.graph
    graph.set_codegen(fx.graph.CodeGen())
    for node in list(graph.nodes):
        if node.op == "call_module":  # checks of the input's shape
            graph.erase_node(node)
        elif node.op == "output":
            (found,) = node.args
            while isinstance(found, list | tuple):
                found = found[0]
            node.args = (found,)
    return graph, owner


def _write(path: Path, network: Deployed, graph: fx.Graph, owner: nn.Module, how: str) -> None:
    names = _Names()
    lines = []
    state: dict[str, Tensor] = {}
    for node in graph.nodes:
        node.type = None  # annotations would be written by names of their own
        if node.op not in ("call_module", "get_attr"):
            continue
        target = str(node.target)
        name, first = names.of(target)
        node.target = name
        if not first:
            continue
        found = _find(owner, target)
        if node.op == "call_module":
            lines.append(f"self.{name} = {constructor(found)}")
            state |= {f"{name}.{own}": tensor for own, tensor in found.state_dict().items()}
        elif isinstance(found, Tensor):
            kind = "" if found.dtype == torch.float32 else f", dtype={found.dtype}"
            empty = f"torch.empty({tuple(found.shape)}{kind})"
            learnt = isinstance(found, nn.Parameter)
            lines.append(
                f"self.{name} = nn.Parameter({empty})" if learnt else f'self.register_buffer("{name}", {empty})'
            )
            state[name] = found
        else:
            raise Unwritable(f"{target} is a {type(found).__name__}")
    code = graph.python_code("self")
    body = "\n".join(f"    {line}".rstrip() for line in _plain_code(code.src))
    named = [name for name in code.globals if re.search(rf"\b{name}\b", body)]
    if unknown := [name for name in named if name not in KNOWN]:
        raise Unwritable(f"the code names {', '.join(unknown)}")
    imports = sorted({KNOWN["torch"], *(KNOWN[name] for name in named)}, reverse=True)
    data = safetensors_save({name: tensor.detach().clone().contiguous() for name, tensor in state.items()})
    inside = len(data) <= EMBEDDED
    if not inside:
        path.with_suffix(".safetensors").write_bytes(data)
    info = plain(network.info)
    channels, size, _ = network.image_shape()
    values = "in 0..1" if network.normalise else "in 0..1, minus MEAN, divided by STD"
    probabilities = not isinstance(network.activation, nn.Identity)
    text = TEMPLATE.format(
        title="A student",
        shape=f"(B, {channels}, {size}, {size})",
        values=values,
        outputs=f"{'probabilities' if probabilities else 'logits'} (B, {info.get('num_classes', 'classes')})",
        version=__version__,
        how=HOW[how],
        imports="\n".join(imports),
        classes=info.get("classes"),
        resolution=info.get("resolution"),
        mean=info.get("mean"),
        std=info.get("std"),
        build="\n".join(f"        {line}" for line in lines),
        forward=body,
        data="base64.b64decode(WEIGHTS)" if inside else 'Path(__file__).with_suffix(".safetensors").read_bytes()',
        weights=f'\n\nWEIGHTS = """\n{_wrapped(data)}\n"""\n' if inside else "",
    )
    path.write_text(text, encoding="utf-8")


class _Names:
    """Flat names of modules and tensors, each its own."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def of(self, target: str) -> tuple[str, bool]:
        """Return the name of a path, and whether it is new."""
        if target in self.known:
            return self.known[target], False
        name = target.removeprefix("student.").replace(".", "_")
        name = f"layer_{name}" if not name.isidentifier() else name
        while name in self.known.values() or keyword.iskeyword(name) or hasattr(nn.Module, name) or name == "training":
            name += "_"
        self.known[target] = name
        return name, True


def constructor(layer: nn.Module) -> str:
    """Return the call that builds one of torch's layers, from the attributes that its arguments are kept in.

    Raises:
        Unwritable: an argument is kept nowhere, or is no plain value.
    """
    kind = type(layer)
    words = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in ("device", "dtype"):
            continue
        if not hasattr(layer, name):
            if parameter.default is parameter.empty:
                raise Unwritable(f"{kind.__name__} does not keep {name}")
            continue
        value = getattr(layer, name)
        if name == "bias" and (value is None or isinstance(value, Tensor)):
            value = value is not None
        if not _literal(value):
            raise Unwritable(f"{name} of {kind.__name__} is a {type(value).__name__}")
        if value != parameter.default or type(value) is not type(parameter.default):
            words.append(f"{name}={value!r}")
    return f"nn.{kind.__name__}({', '.join(words)})"


def _literal(value: object) -> bool:
    if isinstance(value, tuple | list):
        return type(value) in (tuple, list) and all(map(_literal, value))
    return value is None or type(value) in (bool, int, float, str)


def _find(owner: nn.Module, path: str) -> Any:
    found: Any = owner
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _plain_code(source: str) -> Iterator[str]:
    """Yield the lines of torch.fx's code, from its def on."""
    started = False
    for line in source.splitlines():
        started = started or line.startswith("def forward")
        if started and line.strip():
            yield line


def _wrapped(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return "\n".join(text[at : at + 120] for at in range(0, len(text), 120))


def _trace(module: nn.Module, arguments: Any) -> object:
    return exported(module, tuple(arguments))


FORMAT = Format("standalone", ".py", "torch.fx", write, read, _trace)
