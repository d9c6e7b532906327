"""Scores of whole subnets: with the supernet's shared weights, or put together of blockwise-trained stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nas_kd.config.measures import measure_named
from nas_kd.nn import Recorder
from nas_kd.rate.scores.base import CHUNK, Bench, Score, keys_of
from nas_kd.rate.scores.replace import logits_with, share_after
from nas_kd.rate.scores.ridge import apply_map, ridge_map
from nas_kd.rate.scores.stages import BLOCKWISE
from nas_kd.rate.subnet import SubnetScorer
from nas_kd.space import Arch
from nas_kd.supernet import ElasticStage


def _subnets(bench: Bench, archs: Sequence[Arch], name: str, with_teacher: bool) -> list[float]:
    rate = bench.data.rate
    logits = None
    if with_teacher:
        teacher = bench.need_teacher()
        logits = torch.cat([teacher(batch.x).float().cpu() for batch in rate.clean(CHUNK)])
        bench.used.teacher += len(rate)
    scorer = SubnetScorer(
        bench.need_net(),
        bench.data,
        logits,
        task=bench.task,
        runtime=bench.runtime,
        calibration_images=bench.calibration_images,
        rate_images=bench.images,
    )
    images = min(bench.images, len(rate)) + min(bench.calibration_images, len(bench.data.train))
    bench.used.student += images * len(archs)
    return [scorer(arch)[name] for arch in archs]


def supernet_accuracy(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Measure each calibrated subnet of the in-place distilled supernet against the labels."""
    measure = measure_named(bench.task.measure)
    return [measure.sign * value for value in _subnets(bench, archs, measure.name, with_teacher=False)]


def supernet_kl(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Measure each calibrated subnet of the in-place distilled supernet against the teacher."""
    return _subnets(bench, archs, "kl", with_teacher=True)


@torch.no_grad()
def assembled_kl(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Chain the blockwise-trained stages of an arch and compare their logits with the teacher's.

    A stage was trained on what an adapter made of the teacher's feature. In the chain it gets the feature of
    the stage before it instead, mapped onto that by least squares on training images; so errors add up as
    they would in the network. The last stage's answer goes through what the teacher has after its last tap.
    """
    calibration, rating = bench.features()
    teacher = bench.need_teacher()
    model = bench.need_model()
    teacher_logits = bench.teacher_logits()
    ends = [(x, teacher.forward_stages(x).pre[-1]) for x in bench.rating_images.split(CHUNK)]
    found = []
    for arch in archs:
        calibration_x = calibration[0].inputs
        rating_x = rating[0].inputs
        for index, entry, candidate in keys_of(bench.space, arch):
            stage = model.stages[index]
            assert isinstance(stage, ElasticStage)
            if index:
                target = model.enter(index, calibration[index].inputs, entry)
                join = ridge_map(calibration_x, target)
                calibration_x = apply_map(calibration_x, join)
                rating_x = apply_map(rating_x, join)
            else:
                recorder = Recorder()
                calibration_x = model.enter(0, calibration_x, entry, recorder)
                values = recorder.values()
                rating_x = torch.cat([model.enter(0, chunk, entry, values) for chunk in rating_x.split(CHUNK)])
            recorder = Recorder()
            calibration_x, _ = stage(calibration_x, candidate, recorder)
            values = recorder.values()
            outs = [stage(chunk, candidate, values) for chunk in rating_x.split(CHUNK)]
            rating_x, last = (torch.cat(parts) for parts in zip(*outs, strict=True))
        answer = (model.leave(index, last) * model.target_scale[index]).split(CHUNK)
        parts = [logits_with(teacher, index, x, known, part) for (x, known), part in zip(ends, answer, strict=True)]
        found.append(float(bench.task.divergence(torch.cat(parts), teacher_logits)))
        bench.used.student += len(calibration[0].inputs) + len(rating[0].inputs)
        bench.used.teacher += share_after(teacher, index) * len(bench.rating_images)
    return found


SUPERNET_ACCURACY = Score("supernet accuracy", supernet_accuracy, True, needs=frozenset({"supernet"}))
SUPERNET_KL = Score("supernet KL", supernet_kl, False, needs=frozenset({"teacher", "supernet"}))
ASSEMBLED_KL = Score("assembled KL", assembled_kl, False, needs=BLOCKWISE)
