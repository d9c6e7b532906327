"""The budget of a search: bounds on MACs and parameters, which are counted, and on latency, which is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real

import pandas as pd
import torch

from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.export.onnx_timed import latency_in, need_runtime, timed_on
from nas_kd.runs.files import read_frame
from nas_kd.runs.run import Run
from nas_kd.searcher.amounts import parse_budget
from nas_kd.searcher.latency_table import LatencyTable
from nas_kd.solve import best
from nas_kd.space import Arch, Cost, ElasticSpace
from nas_kd.space.rows import cost_rows

TIME = "latency_ms"
UNITS = {"macs": "MACs", "params": "parameters"}


def upper_bounds(
    space: ElasticSpace,
    data: Data,
    max_macs: str | int | float | None,
    max_params: str | int | float | None,
    whole: Cost | None = None,
    larger: str | int | float | None = None,
) -> dict[str, int]:
    """Return the upper bounds on ``macs`` and ``params`` that are given, as numbers.

    Args:
        max_macs: share of the teacher (``"60%"``), number, or None.
        max_params: same, of parameters.
        whole: what 100% is, the teacher's cost; None takes the largest arch's.
        larger: a minimum to which ``max_macs`` gives way: there is no upper bound where this one is above it.

    Raises:
        SettingError: a bound cannot be parsed, or is below the cost of the smallest arch.
    """
    settings = cost_settings(space, data)
    largest = whole or space.cost(space.largest(), **settings)
    smallest = space.cost(space.smallest(), **settings)
    upper = {}
    for name, value in (("macs", max_macs), ("params", max_params)):
        if value is None:
            continue
        most = getattr(largest, name)
        least = getattr(smallest, name)
        upper[name] = parse_budget(value, most, f"search.max_{name}")
        if name == "macs" and larger is not None and parse_budget(larger, most, "search.min_macs") > upper[name]:
            del upper[name]
            continue
        if upper[name] < least:
            raise _too_small(space, name, value, least, most)
    return upper


def _too_small(space: ElasticSpace, name: str, value: str | int | float, least: int, most: int) -> SettingError:
    """Return the error of a bound below the smallest arch."""
    share = math.ceil(1000 * least / most) / 10  # rounded up, so that the share named is accepted
    field = f"search.max_{name}"
    expected = f"at least {share:.1f}% ({least:,} {UNITS[name]}, the smallest arch of {space.name})"
    if share > 100:
        hint = f"no arch of this space is smaller than the teacher: use another space, or {field}={least}"
    else:
        hint = f"use {field}={share:.1f}% or more{space.smaller_hint}"
    return SettingError(field, value, expected, hint)


def lower_bounds(
    space: ElasticSpace,
    data: Data,
    upper: Mapping[str, int],
    min_macs: str | int | float | None,
    min_params: str | int | float | None,
    whole: Cost | None = None,
) -> dict[str, int]:
    """Return the lower bounds on ``macs`` and ``params`` that are given, as numbers.

    Args:
        upper: from `upper_bounds`.
        min_macs: share of the teacher (``"40%"``), number, or None.
        min_params: same, of parameters.
        whole: as in `upper_bounds`.

    Raises:
        SettingError: a bound cannot be parsed, exceeds the largest arch or the upper bound, or no arch is within
            all bounds.
    """
    largest = space.cost(space.largest(), **cost_settings(space, data))
    lower = {}
    for name, value in (("macs", min_macs), ("params", min_params)):
        if value is None:
            continue
        most = getattr(largest, name)
        lower[name] = parse_budget(value, getattr(whole or largest, name), f"search.min_{name}", up=True)
        if lower[name] > upper.get(name, most):
            expected = f"at most {upper.get(name, most):,} {UNITS[name]}"
            raise SettingError(f"search.min_{name}", value, expected, f"lower it, or raise search.max_{name}")
    if lower:  # the smallest arch is within upper bounds alone
        infeasible = None
        for size in space.resolutions or (data.resolution,):
            tables = cost_rows(space, resolution=size, in_chans=data.in_chans, num_classes=data.num_classes)
            try:
                best(tables, bounds=limits_between(lower, upper))
                return lower
            except SettingError as error:
                infeasible = infeasible or error
        assert infeasible is not None
        names = ", ".join([f"search.min_{name}" for name in lower] + [f"search.max_{name}" for name in upper])
        raise SettingError(names, infeasible.value, infeasible.expected, infeasible.hint) from infeasible
    return lower


def limits_between(lower: Mapping[str, int], upper: Mapping[str, int]) -> dict[str, tuple[float | None, float | None]]:
    """Return smallest and largest allowed sums by column, as `nas_kd.solve.best` reads them."""
    return {name: (lower.get(name), upper.get(name)) for name in dict.fromkeys([*upper, *lower])}


def cost_settings(space: ElasticSpace, data: Data) -> dict[str, int]:
    """Return what ``space.cost`` needs besides an arch; no resolution where the archs have their own."""
    size = {} if space.resolutions else {"resolution": data.resolution}
    return size | {"in_chans": data.in_chans, "num_classes": data.num_classes}


@dataclass
class Budget:
    """Checks whether archs are within a budget.

    Args:
        cost: keywords of ``space.cost``, from `cost_settings`.
        upper: largest allowed ``macs`` and ``params``.
        max_latency_ms: largest allowed median latency in milliseconds of one image, or None.
        run: stores measured latencies in latency.csv, so that a resumed search makes the same decisions.
        lower: smallest allowed ``macs`` and ``params``.
        table: latencies of another device, in the place of what is measured here.
        runtime: what runs the networks that are measured: torch, or onnxruntime on this CPU.
    """

    space: ElasticSpace
    cost: Mapping[str, int]
    upper: Mapping[str, int]
    max_latency_ms: float | None = None
    device: torch.device = torch.device("cpu")
    run: Run | None = None
    lower: Mapping[str, int] = field(default_factory=dict)
    table: LatencyTable | None = None
    runtime: str = "torch"
    _costs: dict[Arch, Cost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        need_runtime(self.runtime)
        if self.table is not None:
            self.table.check(self.space, self.cost)
        if self.max_latency_ms is None:
            return
        if not (isinstance(self.max_latency_ms, Real) and 0 < self.max_latency_ms < math.inf):
            expected = "a number of milliseconds above 0, or None"
            raise SettingError("search.max_latency_ms", self.max_latency_ms, expected, "omit it for no limit")
        least = self.latency(self.space.smallest()) if self.table is None else self.fastest
        if least > self.max_latency_ms:
            which = (
                "the smallest arch on this machine" if self.table is None else f"the fastest arch in {self.table.path}"
            )
            expected = f"{least:.3g} ({which}) or more"
            hint = f"use search.max_latency_ms={least:.3g} or more"
            raise SettingError("search.max_latency_ms", self.max_latency_ms, expected, hint)

    def latency(self, arch: Arch) -> float:
        """Return an arch's median latency in milliseconds, measured once; infinity where a table does not list it."""
        if self.table is not None:
            return self.table.of(self.space, arch, self.cost)
        if arch.key not in self._known:
            model = self.space.build(arch, self.cost["num_classes"], self.cost["in_chans"])
            size = arch.resolution or self.cost["resolution"]
            found = latency_in(self.runtime, model, size, self.cost["in_chans"], device=self.device)
            self._known[arch.key] = found.median_ms
            if self.run is not None:
                self.run.latency({"key": arch.key, "predicted_ms": None} | found._asdict())
        return self._known[arch.key]

    @cached_property
    def _known(self) -> dict[str, float]:
        """The latencies that the run has of this device and as many threads, by key."""
        known = pd.DataFrame() if self.run is None else read_frame(self.run.path / "latency.csv")
        if not len(known):
            return {}
        here = timed_on(self.runtime, self.device)
        known = known[(known["device"] == here) & (known["threads"] == torch.get_num_threads())]
        return dict(zip(known["key"], known["median_ms"].astype(float), strict=True))

    def violations(self, arch: Arch) -> dict[str, float]:
        """Return by how much each bound is exceeded, as a share of it; 0 or less is within the budget."""
        excess = self._excess(arch)
        if self.max_latency_ms is not None:
            over = any(value > 0.0 for value in excess.values())  # then there is no need to measure
            excess["latency"] = 0.0 if over else self.latency(arch) / self.max_latency_ms - 1.0
        elif self.table is not None:
            excess["latency"] = 0.0 if self.latency(arch) < math.inf else 1.0
        if excess.get("latency") == math.inf:
            excess["latency"] = 1.0  # samplers add violations up
        return excess

    def bounded(self, arch: Arch) -> dict[str, float]:
        """Return the violations of bounds alone: a latency that is in the table but has no bound has no share of it."""
        found = self.violations(arch)
        if self.max_latency_ms is None and found.get("latency") == 0.0:
            del found["latency"]
        return found

    @cached_property
    def listed(self) -> list[Arch]:
        """The archs of a table that lists archs, all that can be chosen."""
        return [] if self.table is None or self.table.adds_up else self.table.listed(self.space)

    @cached_property
    def fastest(self) -> float:
        """The least latency in a table."""
        assert self.table is not None
        if self.listed:
            return min(map(self.latency, self.listed))
        found = [
            best(
                self.timed(cost_rows(self.space, **{**self.cost, "resolution": size}), size), bounds={}, objective=TIME
            )
            for size in self.space.resolutions or (self.cost["resolution"],)
        ]
        return min(float(row[TIME]) for row in found)

    def timed(self, tables: Sequence[pd.DataFrame], resolution: int | None) -> list[pd.DataFrame]:
        """Add the column ``latency_ms`` where a table has the latencies of units; they add up without error."""
        if self.table is None or not self.table.adds_up:
            return list(tables)
        return self.table.timed(self.space, tables, resolution)

    @property
    def sums(self) -> dict[str, tuple[float | None, float | None]]:
        """Smallest and largest allowed sums by column of tables that were `timed`."""
        if self.table is None or not self.table.adds_up or self.max_latency_ms is None:
            return self.limits
        return self.limits | {TIME: (None, self.max_latency_ms)}

    def cost_of(self, arch: Arch) -> Cost:
        """Return an arch's MACs and parameters, counted once."""
        if arch not in self._costs:
            self._costs[arch] = self.space.cost(arch, **self.cost)
        return self._costs[arch]

    @property
    def proposed(self) -> list[Arch]:
        """The archs whose costs were asked for."""
        return [*self._costs]

    @property
    def measured(self) -> list[float]:
        """The known latencies of those within the bounds on MACs and parameters."""
        within = [arch for arch in self._costs if self.affordable(arch)]
        if self.table is None:
            return [self._known[arch.key] for arch in within if arch.key in self._known]
        return [ms for arch in within if (ms := self.latency(arch)) < math.inf]

    def costs(self, arch: Arch, names: Iterable[str]) -> dict[str, float]:
        """Return those of macs, params and latency_ms that are named, and ignore other names."""
        counted = self.cost_of(arch)
        needed = set(names)
        found = {name: getattr(counted, name) for name in ("macs", "params") if name in needed}
        return found | ({"latency_ms": self.latency(arch)} if "latency_ms" in needed else {})

    def affordable(self, arch: Arch) -> bool:
        """Return whether an arch is within the bounds on MACs and parameters; nothing is measured."""
        return all(value <= 0.0 for value in self._excess(arch).values())

    def _excess(self, arch: Arch) -> dict[str, float]:
        total = self.cost_of(arch)
        excess = {name: getattr(total, name) / most - 1.0 for name, most in self.upper.items()}
        return excess | {f"min_{name}": 1.0 - getattr(total, name) / least for name, least in self.lower.items()}

    def affords(self, cost: Cost) -> bool:
        """Return whether a cost is within the bounds on MACs and parameters."""
        return all(
            (low or 0) <= getattr(cost, name) <= (math.inf if high is None else high)
            for name, (low, high) in self.limits.items()
        )

    @property
    def limits(self) -> dict[str, tuple[float | None, float | None]]:
        """Smallest and largest allowed sums by column."""
        return limits_between(self.lower, self.upper)

    def fits(self, arch: Arch) -> bool:
        """Return whether an arch is within the whole budget."""
        return all(value <= 0.0 for value in self.violations(arch).values())
