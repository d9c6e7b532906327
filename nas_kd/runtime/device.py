"""Device, precision and threads of a process."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from nas_kd.errors import SettingError, nearest
from nas_kd.runtime.ranks import PATIENCE, launched, launched_here, rank, world

ModuleT = TypeVar("ModuleT", bound="torch.nn.Module")

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

ON_NAN = ("stop", "skip")
PRECISIONS = ("32-true", "bf16-mixed")  # fp16 would need loss scaling, which the sandwich does not have
# OpenMP threads that spin while waiting make two threads on a busy machine ten times slower than one;
# libgomp reads these variables once, so they must be set before torch is imported
PASSIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


class Runtime:
    """Device, precision and threads of one process.

    Under torchrun or srun it joins the process group by Lightning Fabric, and waits until all processes have.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; with several processes each takes a GPU of
            its own.
        precision: ``"32-true"`` or ``"bf16-mixed"``.
        threads: CPU threads of torch; None keeps torch's default.
        on_nan: ``"stop"`` ends training at a loss that is not finite; ``"skip"`` skips the step, which synchronises
            with a GPU at every step.

    Raises:
        SettingError: the device is not on this machine, or a name is unknown.
    """

    def __init__(
        self, device: str = "auto", precision: str = "32-true", threads: int | None = None, on_nan: str = "stop"
    ) -> None:
        check_runtime(device, precision, threads, on_nan)
        import torch

        kind, _, number = device.partition(":")
        mps = int(torch.backends.mps.is_available())
        have = {"auto": 1, "cpu": 1, "cuda": torch.cuda.device_count(), "mps": mps}
        if int(number or 0) >= have[kind]:
            expected = [name for name, count in have.items() if count]
            raise SettingError("device", device, f"one of {', '.join(expected)} on this machine", "use device=auto")
        if launched()[1] > 1:
            self._device = _joined(device, precision).device
        else:  # a process alone needs nothing of Fabric, which takes a second and a half to import
            if kind == "auto":
                kind = "cuda" if have["cuda"] else "mps" if mps else "cpu"
            self._device = torch.device(kind) if kind == "cpu" else torch.device(kind, int(number or 0))
        if threads is not None:
            torch.set_num_threads(threads)
        if self.device.type == "cpu":
            reuse_memory()
        self.precision = precision
        self.on_nan = on_nan
        self._arguments = (device, precision, None, on_nan)
        self._single = False

    def __reduce__(self) -> tuple[type[Runtime], tuple[str, str, None, str]]:
        return type(self), self._arguments  # a worker creates its own, and keeps its single thread

    @property
    def world(self) -> int:
        """The number of processes that train together."""
        return 1 if self._single else world()

    @property
    def rank(self) -> int:
        """The rank of this process among them, from 0; only the first writes files."""
        return 0 if self._single else rank()

    def single_process(self) -> Runtime:
        """Return a copy for work that only this process does while the others wait."""
        other = object.__new__(type(self))  # not copy.copy, which would join again through __reduce__
        other.__dict__.update(self.__dict__, _single=True)
        return other

    @property
    def device(self) -> torch.device:
        """The device for tensors and networks."""
        return self._device

    def autocast(self) -> AbstractContextManager[Any]:
        """Enter the precision of this runtime for a forward pass."""
        import torch

        if self.precision == "32-true":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def env(self) -> dict[str, str | int]:
        """Return what this runtime adds to env.json: bit-identical numbers need all of it unchanged."""
        import torch

        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
        }


def _joined(device: str, precision: str) -> Fabric:
    """Create the Fabric of one of several processes and join the process group."""
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    kind, colon, _ = device.partition(":")
    here = launched_here()
    if here is None:
        expected = "the number of processes on each node"
        raise SettingError("SLURM_NTASKS_PER_NODE", None, expected, "pass --ntasks-per-node to sbatch and srun")
    gpus = torch.cuda.device_count()
    if kind == "auto":
        kind = "cuda" if gpus else "cpu"
    if colon or kind == "mps":
        expected = f"auto, cpu or cuda with {launched()[1]} processes"
        raise SettingError("device", device, expected, "use device=cuda: each process takes a GPU of its own")
    if kind == "cuda" and gpus < here:
        expected = f"a machine with a GPU for each of its {here} processes; this one has {gpus}"
        hint = f"use torchrun --nproc-per-node {max(gpus, 1)} (srun: --gpus-per-node, not per task), or device=cpu"
        raise SettingError("device", device, expected, hint)
    # gradients use nccl between GPUs; small messages use gloo between CPUs, without synchronising a GPU
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    strategy = DDPStrategy(process_group_backend=backend, timeout=PATIENCE)
    fabric = Fabric(
        accelerator=kind,
        strategy=strategy,
        devices=here,
        num_nodes=launched()[1] // here,
        precision=precision,  # type: ignore[arg-type]
    )
    try:
        fabric.launch()
    except torch.distributed.DistError as error:
        expected = f"{launched()[1]} processes that find each other within {PATIENCE}"
        hint = f"start all of them with torchrun or srun ({' '.join(str(error).split())[:200]})"
        raise SettingError("WORLD_SIZE", launched()[1], expected, hint) from error
    return fabric


def describe_device() -> str:
    """Say which torch there is, and the device that ``device="auto"`` takes."""
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported: {' '.join(str(error).split())}"
    found = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        return f"{found}, device cuda ({torch.cuda.get_device_name()}, {torch.cuda.device_count()} of them)"
    kind = "mps" if torch.backends.mps.is_available() else "cpu"
    return f"{found}, device {kind} ({torch.get_num_threads()} threads)"


def place(module: ModuleT, runtime: Runtime) -> ModuleT:
    """Move a network to the runtime's device, in channels_last."""
    import torch

    moved: ModuleT = module.to(runtime.device).to(memory_format=torch.channels_last)
    return moved


def reuse_memory() -> None:
    """Make glibc reuse the memory of freed tensors, for the rest of this process.

    By default it returns large blocks to the system and gets them back page by page, zeroed: a fifth of
    the time of a training step on CPU in ``resnet_cifar``, a third in ``mobilenet_cifar``.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own, which would be unmapped when it is freed
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the top of the heap is never released


def check_runtime(device: str, precision: str, threads: int | None, on_nan: str = "stop") -> None:
    """Check the settings of a runtime without importing torch.

    Raises:
        SettingError: a value is out of range.
    """
    kind, colon, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not number.isdecimal()):
        raise SettingError("device", device, "auto, cpu, cuda, cuda:N or mps", "use device=auto")
    if precision not in PRECISIONS:
        raise SettingError("precision", precision, ", ".join(PRECISIONS), nearest(precision, PRECISIONS))
    if threads is not None and threads < 1:
        raise SettingError("threads", threads, "an integer of at least 1, or null", "leave it out")
    if on_nan not in ON_NAN:
        raise SettingError("on_nan", on_nan, ", ".join(ON_NAN), nearest(on_nan, ON_NAN))
