"""What an ImageNet run would take on eight GPUs, from the work factors that `scaling.py` measures.

Nothing is measured here: speeds of GPUs and lengths of trainings are assumed, and stand below.
"""

from __future__ import annotations

import nas_kd

# what nobody measured here
GPUS = 8
DENSE = 10e12  # multiply-adds a second that one GPU sustains in bf16 on ResNets: 2,400 ResNet-50 forwards a second
NARROW = 2.5e12  # the same on inverted residuals, whose depthwise convolutions wait for memory
IMAGES = 1_281_167
HELD_OUT = 10_000
CLASSES = 1000
VIEWS = 8
SUPERNET_EPOCHS = 120
BLOCKWISE_EPOCHS = 5
CALIBRATION = 1024
TRIALS = 300
DECODED = 20_000  # images of 224 px a second that the machine's CPUs decode: 64 cores of 300


def imagenet(unit: float, step: float, share: float) -> list[str]:
    """Extrapolate to ImageNet with a ResNet-50 teacher and the MobileNetV3 space on eight GPUs."""
    space = nas_kd.load_space("ofa_mobilenet_v3")
    shape = {"in_chans": 3, "num_classes": CLASSES} | ({} if space.resolutions else {"resolution": 224})
    largest, smallest = (space.cost(arch, **shape).macs for arch in (space.largest(), space.smallest()))
    mean = sum(space.cost(space.sample(seed), **shape).macs for seed in range(300)) / 300
    overhead = max(1.0, step / unit)
    resnet50 = 4.1e9
    narrow = GPUS * NARROW
    hours = 3600

    asked = IMAGES * VIEWS
    forwards = max(asked * resnet50 / DENSE, asked / DECODED) / hours
    sandwich = 3 * (largest + smallest + 2 * mean) * overhead
    epoch = max(IMAGES * sandwich / narrow, IMAGES / DECODED) / hours
    taught = max(IMAGES * (resnet50 / DENSE + 3 * 4 * mean * overhead / NARROW), IMAGES / DECODED) / hours
    rows = 20_000
    rated = rows * mean / len(space.stages) * 0.3 * (512 + HELD_OUT) / NARROW / hours  # of one stage
    trial = (CALIBRATION + HELD_OUT) * mean / NARROW
    gib = 1e9
    return [
        "| what | how much | from |",
        "|---|---|---|",
        f"| teacher forwards | {asked / 1e6:.1f} M images, {forwards:.1f} h, once | {IMAGES:,} images x {VIEWS} views"
        f" (`data.views`), 4.1 GMACs at {DENSE / 1e12:g} TMAC/s on one GPU (the first process asks alone);"
        f" {DECODED:,} images a second decoded |",
        f"| cache of its answers | {2 * asked * CLASSES / gib:.1f} GB on disk | fp16 x {CLASSES} classes, exact;"
        " read by memory map, so that RAM holds what is read |",
        f"| a supernet epoch | {epoch:.1f} h | largest {largest / 1e6:.0f}, smallest {smallest / 1e6:.0f}, two random"
        f" of mean {mean / 1e6:.0f} MMACs, forward and backward; measured above: a supernet's MAC costs"
        f" {overhead:.2f} x a teacher's; {NARROW / 1e12:g} TMAC/s a GPU |",
        f"| the supernet | {SUPERNET_EPOCHS * epoch / 24:.1f} days | {SUPERNET_EPOCHS} epochs"
        " (assumed) x the line above |",
        f"| blockwise training | {BLOCKWISE_EPOCHS * taught:.1f} h | {BLOCKWISE_EPOCHS} epochs (assumed), one teacher"
        f" forward an image, 4 paths a stage, forward and backward at {overhead:.2f} x as above; all stages on one GPU,"
        " less with a job a stage |",
        f"| rating | {rated:.1f} h | {rows:,} candidates a stage (`blockwise.max_rows`), 512 calibration and"
        f" {HELD_OUT:,} rating images, 0.30 of path by path (match.py); a job and a GPU for each of"
        f" {len(space.stages)} stages |",
        f"| search | {TRIALS * trial / GPUS / 60 / share:.1f} min | {TRIALS} trials x ({CALIBRATION} +"
        f" {HELD_OUT:,} images of {mean / 1e6:.0f} MMACs), {trial:.1f} s each at"
        f" {NARROW / 1e12:g} TMAC/s; {GPUS} workers at the share of the"
        " ideal that four have above, at worst; images stay in memory |",
    ]
