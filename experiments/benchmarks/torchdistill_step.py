"""The other side of `distil.py library`: torchdistill 1.1.5 as its documentation has it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor, nn

from nas_kd.data import Data


def torchdistill_step(
    teacher: nn.Module, student: nn.Module, data: Data, size: int, device: torch.device
) -> Callable[[], None]:
    """Return torchdistill's documented training step on its own loader and torchvision's transforms."""
    from torch.utils.data import Dataset, RandomSampler
    from torchdistill.core.distillation import DistillationBox
    from torchvision import transforms

    change = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ]
    )
    clean = torch.cat([batch.x.cpu() for batch in data.train.clean(256)])
    mean, std = (torch.tensor(part).view(1, -1, 1, 1) for part in (data.mean, data.std))
    pixels = ((clean * std + mean) * 255).round().byte()
    images = [transforms.ToPILImage()(x) for x in pixels]

    class Images(Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return change(images[index]), int(data.train.labels[index])

    io = {"module_path": ".", "io": "output"}
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "images",
            "requires_supp": True,
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": {"batch_size": size, "num_workers": 0, "drop_last": True, "pin_memory": True},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {
            "key": "SGD",
            "kwargs": {"lr": 0.0, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {
                        "criterion": {
                            "key": "KDLoss",
                            "kwargs": {
                                "student_module_path": ".",
                                "student_module_io": io["io"],
                                "teacher_module_path": ".",
                                "teacher_module_io": io["io"],
                                "temperature": 4.0,
                                "alpha": 0.1,
                                "reduction": "batchmean",
                            },
                        },
                        "weight": 1.0,
                    }
                }
            },
        },
    }
    box = DistillationBox(
        teacher.to(device),
        student.to(device),
        {"images": Images()},
        config,
        device,
        None,
        False,
        1.0,
    )
    box.student_model.train()
    box.teacher_model.eval()
    batches = (batch for _ in count() for batch in box.train_data_loader)

    def step() -> None:
        images, labels, supp = next(batches)
        images = images.to(device)
        labels = labels.to(device)
        box.post_forward_process(loss=box.forward_process(images, labels, supp))

    return step
