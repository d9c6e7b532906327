"""The style of each role in all figures."""

from __future__ import annotations

from nas_kd.analyse.svg import INK, Style

# colours of Okabe and Ito, which colour-blind readers can distinguish; shapes differ too, for greyscale prints
FOUND = Style("#d55e00", "diamond", 6.0)
RANDOM = Style("#0072b2", "circle", 4.2)
LARGEST_MACS = Style("#009e73", "triangle", 5.2)
LARGEST_PARAMS = Style("#9a5a8b", "square", 4.4)
BY_LOT = Style("#56b4e9", "circle", 3.4)
TRIAL = Style("#aab2bb", "circle", 2.8, opacity=0.85)
FRONT = Style(INK, "circle", 2.0, width=1.4)
TEACHER = Style(INK, dash="6 4", width=1.3)
BUDGET = Style("#b04a4a", dash="2 4", width=1.3)


def style_of(role: str) -> tuple[str, Style]:
    """Return legend label and style of a student's role; ``by lot`` are subnets that a search drew at random.

    "random" is for the random students alone, which have the found one's size.
    """
    if role == "found":
        return "found", FOUND
    if role == "by lot":
        return "drawn within the budget", BY_LOT
    if role == "largest_macs":
        return "largest MACs", LARGEST_MACS
    if role == "largest_params":
        return "largest parameters", LARGEST_PARAMS
    return ("random", RANDOM) if role.startswith("random") else (role.replace("_", " "), TRIAL)
