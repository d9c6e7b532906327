"""The README.md of a student folder: what is known of the student, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MANY = 20  # classes that are named one by one
Z = 1.959964  # of a 95 % interval
LATENCY = ("runtime", "batch_size", "median_ms", "iqr_ms", "threads", "device")
TASKS = {"multilabel": "several labels {each}", "regression": "numbers of {each}"}
TEXTS = (
    "Tokens of texts as a dictionary: `input_ids` and `attention_mask`, (B, L), and `token_type_ids` where there are "
    "pairs; of the tokenizer in the folder `tokenizer/`, cut to {length} tokens, padded at the end."
)
RESIZE = (
    "An image of another size: its shorter side is resized to {size} pixels, bicubic with antialiasing (Pillow), and "
    "the centre is cropped. Where the data's images were of another size than the student's, these were then resized "
    "bicubic without antialiasing (torch)."
)


def card(info: Mapping[str, Any], *, hub: bool = False) -> str:
    """Describe a student in Markdown.

    Args:
        info: ``.info`` of a student; with ``latency``, rows of its exports, where these were timed.
        hub: for a folder that timm opens.
    """
    parts = [
        "# Student",
        *_facts(info),
        *_metrics(info),
        *_latency(info),
        *_input(info),
        *_loading(info, hub),
        *_limits(info),
    ]
    return "\n".join(parts) + "\n"


def hub_header(info: Mapping[str, Any]) -> str:
    """Return the YAML that the Hugging Face hub reads at the top of a card."""
    lines = ["---", "library_name: timm", "tags:", "- timm", "- nas_kd"]
    if info.get("labels", "classes") != "regression":
        lines.insert(1, "pipeline_tag: image-classification")
        lines.append("- image-classification")
    value = (info.get("metrics") or {}).get("test_accuracy")
    if isinstance(value, float):
        lines += ["model-index:", "- name: student", "  results:", "  - task:", "      type: image-classification"]
        lines += ["    dataset:", "      name: test images", "      type: images", "    metrics:"]
        lines += ["    - type: accuracy", f"      value: {value!r}"]
    return "\n".join([*lines, "---", "", ""])


def interval(share: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of images.

    Source: Wilson 1927, the score interval.
    """
    middle = (share + Z**2 / (2 * images)) / (1 + Z**2 / images)
    half = Z / (1 + Z**2 / images) * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    return middle - half, middle + half


def _facts(info: Mapping[str, Any]) -> Iterator[str]:
    made: Mapping[str, Any] = info.get("made") or {}
    classes = info.get("classes") or []
    each = "a text" if info.get("tokens") else "an image"
    task = TASKS.get(info.get("labels", ""), "one class {each}").format(each=each)
    rows = {
        "task": task,
        "outputs": None if not classes else f"{len(classes)}: {_listed(classes)}",
        "parameters": _number(info.get("params")),
        "MACs": _number(info.get("macs")),
        "network": info.get("factory") or ("its layers are in arch.json" if info.get("layers") else None),
        "teacher": made.get("teacher"),
        "method": made.get("method"),
        "epochs": made.get("epochs"),
        "seed": made.get("seed"),
        "budget": made.get("budget"),
        "data": made.get("data"),
        f"training {_noun(info)}": _number(made.get("train_images")),
    }
    yield from ["", "| | |", "|---|---|"]
    yield from (f"| {name} | {_cell(value)} |" for name, value in rows.items() if value is not None)


def _metrics(info: Mapping[str, Any]) -> Iterator[str]:
    metrics = {k: v for k, v in (info.get("metrics") or {}).items() if isinstance(v, int | float)}
    if not metrics:
        return
    counts: Mapping[str, int] = (info.get("made") or {}).get("images") or {}
    noun = _noun(info)
    yield from ["", "## Measured", "", f"| {noun} | measure | value | 95 % interval |", "|---|---|---|---|"]
    for name, value in metrics.items():
        split, _, measure = name.partition("_")
        known = counts.get(split)
        bounds = ""
        if known and measure in ("accuracy", "agreement") and 0 <= value <= 1:
            low, high = interval(value, known)
            bounds = f"{low:.4f} .. {high:.4f}"
        images = f"{split} ({known:,})" if known else split
        yield f"| {images} | {_cell(measure)} | {value:.4f} | {bounds} |"
    if "select" in {name.partition("_")[0] for name in metrics}:
        yield from ["", f"The select {noun} chose among students; the test {noun} were used for nothing else."]


def _latency(info: Mapping[str, Any]) -> Iterator[str]:
    rows: Sequence[Mapping[str, Any]] = info.get("latency") or ()
    if not rows:
        return
    yield from [
        "",
        "## Latency",
        "",
        f"| runtime | {_noun(info)} a pass | median, ms | IQR, ms | threads | processor |",
    ]
    yield "|---|---|---|---|---|---|"
    for runtime, batch, median, iqr, threads, device in ([row[name] for name in LATENCY] for row in rows):
        yield f"| {_cell(runtime)} | {batch} | {median:.3f} | {iqr:.3f} | {threads} | {_cell(device)} |"


def _input(info: Mapping[str, Any]) -> Iterator[str]:
    size, channels = info.get("resolution"), info.get("in_chans")
    if size is None or channels is None:
        return
    if info.get("tokens"):
        yield from ["", "## Input", "", TEXTS.format(length=size)]
        return
    yield from ["", "## Input", "", f"(B, {channels}, {size}, {size}), in 0..1"]
    if info.get("mean") and info.get("std"):
        yield from [f"minus {json.dumps(list(info['mean']))}, divided by {json.dumps(list(info['std']))}, by channel."]
    yield from ["", RESIZE.format(size=size)]


def _loading(info: Mapping[str, Any], hub: bool) -> Iterator[str]:
    yield from ["", "## How to load", "", "```python"]
    if hub:
        yield from ["import timm", "import nas_kd.export.timm", ""]
        yield 'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or "hf-hub:NAME"'
    else:
        yield from [
            "import nas_kd",
            "",
            'student = nas_kd.load_student("FOLDER")  # in evaluation mode',
            "student.info",
        ]
    if size := info.get("resolution") if info.get("tokens") else None:
        yield from [
            "",
            "from transformers import AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER/tokenizer")',
            f'how = {{"padding": True, "truncation": True, "max_length": {size}, "return_tensors": "pt"}}',
            'student(tokenizer(["a text"], **how)).softmax(1)',
        ]
    yield "```"


def _limits(info: Mapping[str, Any]) -> Iterator[str]:
    yield from ["", "## Limits", ""]
    noun = _noun(info)
    yield f"It was trained for {noun} like those of its data; on others it may do worse. Outputs are not calibrated."
    if (info.get("made") or {}).get("teacher"):
        yield "What its teacher has wrong it may have learnt too."


def _noun(info: Mapping[str, Any]) -> str:
    """Say what a student classifies."""
    return "texts" if info.get("tokens") else "images"


def _listed(names: Any) -> str:
    shown = ", ".join(map(str, names[:MANY]))
    return shown if len(names) <= MANY else f"{shown} ..."


def _number(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
