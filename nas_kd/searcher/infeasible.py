"""The error of a search that found no arch within its budget."""

from __future__ import annotations

from nas_kd.errors import SettingError
from nas_kd.searcher.budget import UNITS, Budget
from nas_kd.space import Arch


def no_feasible_arch(budget: Budget) -> SettingError:
    """Return the error of a search that found no arch within the budget, naming the bounds that none kept.

    Where archs keep all bounds but the latency, that is named with the fastest of them.
    """
    space = budget.space
    if budget.max_latency_ms is not None and (measured := budget.measured):
        least = min(measured)
        expected = f"{least:.3g} or more: the fastest of {len(measured)} archs within the rest of the budget"
        hint = f"use search.max_latency_ms={least:.3g} or more, lower the minimum costs, or raise search.trials"
        return SettingError("search.max_latency_ms", budget.max_latency_ms, expected, hint)
    bounds = {f"max_{name}": most for name, most in budget.upper.items()}
    bounds |= {f"min_{name}": least for name, least in budget.lower.items()}
    missed = [name for name in bounds if all(_exceeds(budget, arch, name) for arch in budget.proposed)]
    broken = missed or [*bounds]  # where each is kept by some, it is all of them together
    largest = space.cost(space.largest(), **budget.cost)
    smallest = space.cost(space.smallest(), **budget.cost)
    expected = f"a budget that one of {len(budget.proposed):,} proposed archs is within"
    for name in broken:
        kind, _, what = name.partition("_")
        most = getattr(largest, what)
        if kind == "max":
            least = getattr(smallest, what)
            expected += f"; the smallest of {space.name} has {least:,} {UNITS[what]}, "
            expected += f"{100 * least / most:.3g} % of the largest"
        else:
            expected += f"; the largest of {space.name} has {most:,} {UNITS[what]}"
    fields = ", ".join(f"search.{name}" for name in broken) or "search.max_latency_ms"
    given = ", ".join(str(bounds[name]) for name in broken) or budget.max_latency_ms
    more = space.smaller_hint if any(name.startswith("max_") for name in broken) else ""
    return SettingError(fields, given, expected, f"widen the budget, or raise search.trials{more}")


def _exceeds(budget: Budget, arch: Arch, bound: str) -> bool:
    """Tell whether an arch is beyond a bound, such as ``max_macs``."""
    kind, _, name = bound.partition("_")
    value = getattr(budget.cost_of(arch), name)
    return bool(value > budget.upper[name] if kind == "max" else value < budget.lower[name])
