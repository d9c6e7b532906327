"""An accuracy predictor: a small network from the one-hot code of an arch to what was measured of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace

WIDTH = 100  # of three hidden layers; OFA has 400, and learns from thousands of archs
STEPS = 150
BATCH = 32
LR = 0.001
WEIGHT_DECAY = 1e-4
HELD_OUT = 5  # one arch of so many is held out to measure the error
MIN_ARCHS = 10


def one_hot(space: ElasticSpace, archs: Sequence[Arch]) -> Tensor:
    """Write the choices of archs as zeros and ones.

    Args:
        space: of the archs.
        archs: (N,) archs.

    Returns:
        (N, D): for each choice of input size, stem and head, of each stage's width and depth, and of each setting of
        each layer one column a value. All columns of a layer that an arch does not have are 0.

    Source: OFA (Cai et al. 2020), section 3.4 and its released predictor.
    """
    columns = {column: index for index, column in enumerate(_columns(space))}
    codes = torch.zeros(len(archs), len(columns))
    for row, arch in enumerate(archs):
        for column in _choices(space, arch):
            codes[row, columns[column]] = 1.0
    return codes


def _columns(space: ElasticSpace) -> Iterator[tuple[Any, ...]]:
    """Yield the name of each column: the part, what is chosen there, and its value."""
    yield from (("resolution", size) for size in space.resolutions)
    for name in ("stem", "head"):
        yield from ((name, choice) for choice in getattr(space, name).choices())
    for number, stage in enumerate(space.stages):
        yield from ((number, "width", width) for width in stage.widths)
        yield from ((number, "depth", depth) for depth in stage.depths)
        layers = [layer for group in stage.groups() for layer in group]
        for place in range(max(stage.depths)):
            for field, name in enumerate(stage.fields):
                yield from ((number, place, name, value) for value in sorted({layer[field] for layer in layers}))


def _choices(space: ElasticSpace, arch: Arch) -> Iterator[tuple[Any, ...]]:
    """Yield the columns of an arch that are 1."""
    if space.resolutions:
        yield "resolution", arch.resolution
    yield "stem", arch.stem
    yield "head", arch.head
    for number, (stage, candidate) in enumerate(zip(space.stages, arch.stages, strict=True)):
        yield number, "width", candidate.width
        yield number, "depth", candidate.depth
        for place, layer in enumerate(candidate.layers):
            yield from ((number, place, name, value) for name, value in zip(stage.fields, layer, strict=True))


@dataclass(frozen=True)
class Predictor:
    """A fitted predictor.

    Args:
        space: of the archs.
        network: maps (N, D) codes to (N, 1), of mean 0 and deviation 1.
        mean: of what was measured.
        deviation: likewise.
        archs: how many it learned from.
        rmse: root of the mean squared error on held-out archs, in the unit of what was measured, of a predictor that
            did not learn from them.
        tau: Kendall's rank correlation on them.
    """

    space: ElasticSpace
    network: nn.Module
    mean: float
    deviation: float
    archs: int
    rmse: float
    tau: float

    @torch.no_grad()
    def __call__(self, archs: Sequence[Arch]) -> np.ndarray:
        """Predict (N,) values of archs."""
        out = self.network(one_hot(self.space, archs))[:, 0]
        predicted: np.ndarray = self.mean + self.deviation * out.double().numpy()
        return predicted

    @property
    def held_out(self) -> int:
        """Number of archs that the error was measured on."""
        return -(-self.archs // HELD_OUT)

    @property
    def words(self) -> str:
        """Say how good it is."""
        return (
            f"predictor from {self.archs} measured archs: error {self.rmse:.4f}, rank correlation (tau) {self.tau:.2f} "
            f"on {self.held_out} of them that it had not seen"
        )


def fit_predictor(space: ElasticSpace, archs: Sequence[Arch], values: Sequence[float], seed: int = 0) -> Predictor:
    """Fit a predictor to measured archs: once without a fifth of them, which says how good it is, then to all.

    Args:
        space: of the archs.
        archs: (N,) distinct archs.
        values: (N,) what was measured, such as accuracies.
        seed: seed of weights, order and of what is held out.

    Raises:
        SettingError: there are fewer than ``MIN_ARCHS`` archs, or a value is not finite.

    Source: OFA (Cai et al. 2020), whose predictor has three hidden layers and learns with Adam.
    """
    if len(archs) < MIN_ARCHS:
        raise SettingError("archs", len(archs), f"at least {MIN_ARCHS} measured archs", "measure more")
    measured = np.asarray(values, dtype=np.float64)
    if not np.isfinite(measured).all():
        raise SettingError("values", float(measured[~np.isfinite(measured)][0]), "finite numbers", "leave the arch out")
    codes = one_hot(space, archs)
    order = np.random.default_rng(seed_for(seed, "held out")).permutation(len(archs))
    unseen = order[::HELD_OUT]
    seen = np.delete(order, np.s_[::HELD_OUT])
    network, mean, deviation = _fitted(codes[seen], measured[seen], seed)
    before = Predictor(space, network, mean, deviation, len(seen), math.nan, math.nan)
    predicted = before([archs[index] for index in unseen])
    rmse = float(np.sqrt(np.mean((predicted - measured[unseen]) ** 2)))
    return Predictor(
        space, *_fitted(codes, measured, seed), len(archs), rmse, _rank_correlation(predicted, measured[unseen])
    )


def _fitted(codes: Tensor, values: np.ndarray, seed: int) -> tuple[nn.Module, float, float]:
    """Train a network, and return it with mean and deviation of what it learned."""
    generator = torch.Generator().manual_seed(seed_for(seed, "predictor"))
    sizes = (codes.shape[1], WIDTH, WIDTH, WIDTH)
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(WIDTH, 1))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
    mean = float(values.mean())
    deviation = float(values.std()) or 1.0  # all alike: there is nothing to learn but the mean
    targets = torch.from_numpy((values - mean) / deviation).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    for _ in range(STEPS):
        batch = torch.randperm(len(codes), generator=generator)[:BATCH]
        loss = (network(codes[batch])[:, 0] - targets[batch]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval(), mean, deviation


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(one, other).statistic)
