"""`export`: a student in a format that other programs read, checked against the network itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.config.kinds import checked
from nas_kd.data import Data
from nas_kd.errors import SettingError, nearest
from nas_kd.export.agreement import Agreement, at_fault, check_evaluates, compare, drawn_images
from nas_kd.export.config import TOLERANCE
from nas_kd.export.deployed import Deployed
from nas_kd.export.formats import FORMATS
from nas_kd.export.formats.base import Format
from nas_kd.export.int8 import Measured, Score, as_taken, check_data, measured
from nas_kd.export.staged import note_of, staged
from nas_kd.export.student import load_student, update_card
from nas_kd.export.student_folder import ABOUT, EXPORTS
from nas_kd.export.timed import LatencyRow, latencies
from nas_kd.export.versions import versions
from nas_kd.nn.inputs import takes_images
from nas_kd.runs.files import CsvLog, plain
from nas_kd.runs.links import refuse_links


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Args:
        path: the file, or the folder.
        to: its format.
        difference: largest absolute difference of its outputs from the network's, on the same images.
        agreement: share of equal answers; None where answers are numbers.
        latency: one row a runtime and batch size; empty if not measured.
        int8: the network, the file and its 8-bit form, beside it, on the test images; empty without ``int8``.
    """

    path: Path
    to: str
    difference: float
    agreement: float | None
    latency: tuple[LatencyRow, ...] = ()
    int8: tuple[Measured, ...] = ()


@checked
def export(
    student: nn.Module | str | Path,
    to: str = "onnx",
    path: str | Path | None = None,
    *,
    images: Tensor | None = None,
    normalise: bool = False,
    softmax: bool = False,
    tolerance: float = TOLERANCE,
    latency: Sequence[int] = (),
    factory: str | None = None,
    int8: Data | None = None,
    tuned: nn.Module | None = None,
    calibration: int = 256,
    score: Score | None = None,
) -> Exported:
    """Write a student in another format, read it back, and compare it with the network on the same images.

    Beside the file lies its check, PATH.json: differences, what the input is and what the outputs mean, versions; and
    PATH.latency.csv where latencies were measured. What an earlier export has left beside it goes, and the card of the
    student folder tells the latencies of its exports.

    Args:
        student: a student folder, or its network with ``.info``.
        to: onnx, pt2 (torch.export), torchscript, standalone (one Python file), timm or hf (folders that timm opens).
        path: the file, or the folder; None is ``export/student.SUFFIX`` in the student folder, or in the working folder
            for a network. What is there is replaced.
        images: (N, C, H, W) float images for the check, as the file is to take them; None draws some.
        normalise: take images in 0..1 and normalise them inside.
        softmax: return probabilities instead of logits.
        tolerance: largest difference, as a share of the largest output where that is above 1.
        latency: batch sizes to measure the latency of, beside the network itself; empty measures none.
        factory: as in `load_student`.
        int8: data with which an ONNX file (by ONNX Runtime) or a pt2 file (by torchao) is quantised to 8 bits too:
            ranges from training images, and both forms measured on the test images.
        tuned: the student after `nas_kd.tune_int8`, which is quantised and measured beside it.
        calibration: number of training images.
        score: name and function of outputs (N, C) and labels for that table; None is the accuracy.

    Returns:
        What was written and how it agrees.

    Raises:
        SettingError: a package is not installed, a module cannot be traced, or the difference is above the tolerance;
            nothing is then left behind.
    """
    form = format_of(to)
    form.need_packages()
    if not tolerance > 0:
        raise SettingError("tolerance", tolerance, "a number above 0", f"leave it out for {TOLERANCE:g}")
    if not form.whole and (normalise or softmax):
        name = "normalise" if normalise else "softmax"
        expected = f"false for {to}: such a model takes normalised images and returns logits"
        raise SettingError(name, True, expected, "leave it out, or choose another format")
    loaded = student if isinstance(student, nn.Module) else load_student(student, factory=factory)
    if not takes_images(loaded):
        expected = "a student of images: one of texts goes on in transformers"
        hint = "open it by load_student, or the folder transformers/ beside it"
        raise SettingError("student", type(loaded).__name__, expected, hint)
    about: Any = getattr(loaded, "info", {})
    network = Deployed(loaded, about, normalise=normalise, softmax=softmax)
    if int8 is not None:
        if form.int8 is None:
            can = ", ".join(name for name, other in FORMATS.items() if other.int8 is not None)
            raise SettingError("int8", True, f"false with {to}: files of {can} are quantised", "choose --to onnx")
        form.int8.need_packages()
        check_data(network, int8)
    elif tuned is not None:
        raise SettingError("tuned", type(tuned).__name__, "None without int8", "pass int8=data")
    shown = drawn_images(network) if images is None else images.cpu()
    check_evaluates(network, shown)
    place = place_of(student, form, path)
    with staged(place) as part:
        written(form, network, shown, part)
        run = form.read(part)
        found = compare(network, run, shown)
        check(found, tolerance, to)
        runs = {form.runtime: run}
        table: tuple[Measured, ...] = ()
        if int8 is not None and form.int8 is not None:
            files = {form.runtime: part}
            whole = {"int8": part}
            if tuned is not None:
                whole["int8_tuned"] = part.with_suffix(f".tuned{part.suffix}")
                again = Deployed(tuned, about, normalise=normalise, softmax=softmax)
                written(form, again, shown, whole["int8_tuned"])
            for name, exact in whole.items():
                small = part.with_suffix(f".{name}{part.suffix}")
                form.int8.run(exact, small, (x for x, _ in as_taken(network, int8, "train", calibration)))
                files[f"{form.runtime} {name.replace('_', ' ')}"] = small
            if tuned is not None:
                whole["int8_tuned"].unlink()
            opened = form.int8.read or form.read
            runs |= {name: opened(file) for name, file in files.items() if name not in runs}
            table = measured(network, {name: (runs[name], file) for name, file in files.items()}, int8, score)
            CsvLog(part.parent / f"{part.name}.int8.csv").extend([asdict(row) for row in table])
        rows = latencies({"torch eager": network} | runs, network.image_shape, latency)
        if rows:
            CsvLog(part.parent / f"{part.name}.latency.csv").extend([asdict(row) for row in rows])
        note = described(form, network, found, place, softmax)
        note |= {
            "tolerance": tolerance,
            "drawn": images is None,
            "files": sorted(made.name for made in part.parent.iterdir()),
        }
        note_of(part).write_text(json.dumps(plain(note), indent=1) + "\n", encoding="utf-8")
    if not isinstance(student, nn.Module) and place.parent == Path(student) / EXPORTS:
        update_card(Path(student))
    return Exported(place, to, found.difference, found.share, rows, table)


def format_of(to: str) -> Format:
    """Return a format by its name.

    Raises:
        SettingError: there is none.
    """
    if to not in FORMATS:
        raise SettingError("to", to, ", ".join(FORMATS), nearest(str(to), FORMATS))
    return FORMATS[to]


def place_of(student: nn.Module | str | Path, form: Format, path: str | Path | None, mark: str = "") -> Path:
    """Return where an export goes.

    Raises:
        SettingError: something that is no such export is there, or a link in the student folder leads elsewhere.
    """
    if path is None:
        if not isinstance(student, nn.Module):
            refuse_links(Path(student))
        top = Path() if isinstance(student, nn.Module) else Path(student) / EXPORTS
        return top / f"student{mark}{form.suffix or f'_{form.name}'}"
    place = Path(path)
    if place.is_dir() and (form.suffix or (any(place.iterdir()) and not (place / "config.json").is_file())):
        expected = f"a {form.suffix} file" if form.suffix else "a new, empty or exported folder"
        raise SettingError("path", str(place), expected, "choose another name")
    if (place / ABOUT).is_file():
        raise SettingError("path", str(place), "another folder than that of a student", "choose another name")
    return place


def written(form: Format, network: Deployed, images: Tensor, path: Path) -> None:
    """Write a network, or name the module that does not let it.

    Raises:
        SettingError: a module cannot be traced.
    """
    example = images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)  # one row could be taken for any number
    try:
        form.write(network, example, path)
    except (SettingError, OSError):
        raise
    except Exception as error:  # whatever a tracer raises
        if form.trace is None:
            raise
        where, kind = at_fault(network, example, form.trace)
        said = " ".join(str(error).split())[:200]
        expected = f"a network that can be traced; {where} ({kind}) cannot ({type(error).__name__}: {said})"
        others = " or ".join(name for name in ("torchscript", "timm") if name != form.name)
        hint = f"write that module without ifs and loops over values of tensors, or try --to {others}"
        raise SettingError("to", form.name, expected, hint) from error


def check(found: Agreement, tolerance: float, to: str) -> None:
    """Refuse outputs that differ.

    Raises:
        SettingError: by more than the tolerance, or they are not finite.
    """
    allowed = tolerance * max(1.0, found.scale)
    if not found.difference <= allowed:
        expected = (
            f"at least the largest difference of outputs, {found.difference:.3g}, over {max(1.0, found.scale):.3g}"
        )
        hint = f"nothing was written; try another format than {to}, or allow more"
        raise SettingError("tolerance", tolerance, expected, hint)


def described(form: Format, network: Deployed, found: Agreement, place: Path, softmax: bool) -> dict[str, Any]:
    """Say what was written: its check, its input and its outputs."""
    info = network.info
    kind = info.get("labels", "classes")
    outputs = {"classes": "softmax", "multilabel": "sigmoids"}.get(kind, "numbers") if softmax else "logits"
    normalised = {"mean": info.get("mean"), "std": info.get("std")}
    return {
        "to": form.name,
        "file": place.name,
        "difference": found.difference,
        "agreement": found.share,
        "largest_output": found.scale,
        "images": found.images,
        "input": {
            "shape": ["batch", info.get("in_chans"), info.get("resolution"), info.get("resolution")],
            "values": "0..1" if network.normalise else "0..1, minus mean, divided by std",
            **({} if network.normalise else normalised),
        },
        "outputs": outputs if kind != "regression" else "numbers",
        "classes": info.get("classes"),
        "versions": versions(*form.packages),
    }


def set_threads(count: int | None) -> None:
    """Give torch, and with it every runtime that is opened then, so many threads."""
    if count is not None:
        torch.set_num_threads(count)
