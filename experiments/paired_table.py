"""Which test images trained networks have right, kept as text; the found network compared with its rivals by them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from nas_kd.analyse.paired import paired_difference


def summarised(frame: pd.DataFrame, hits: pd.DataFrame) -> pd.DataFrame:
    """Compare the found network with each rival, image by image, over the seeds that both were trained from.

    Args:
        frame: a row a trained network.
        hits: which test images it has right, `packed`.
    """
    rows = []
    pairs = [(*pair, "found") for pair in dict.fromkeys(zip(frame.budget, frame.network, strict=True))]
    for budget, name, best_of in pairs:
        group = frame[(frame.budget == budget) & (frame.network == name)]
        own = frame[(frame.budget == budget) & (frame.network == best_of)]
        seeds = sorted(set(group.seed) & set(own.seed))
        row = {"budget": budget, "network": name, "seeds": len(group), "share": group.share.mean()}
        row |= {"test_accuracy": group.test_accuracy.mean(), "spread": group.test_accuracy.std()}
        if name != best_of and seeds:
            known = hits[hits.budget == budget].drop_duplicates(["network", "seed"], keep="last")
            known = known.set_index(["network", "seed"]).hits
            gap = paired_difference(*([unpacked(known[each, seed]) for seed in seeds] for each in (best_of, name)))
            row |= {"gap": gap.mean, "low": gap.interval[0], "high": gap.interval[1], "paired_seeds": len(seeds)}
        rows.append(row | {"against": best_of})
    return pd.DataFrame(rows)


def packed(hits: torch.Tensor) -> str:
    """Return which of the test images (N,) are right: their number, and one bit an image in hexadecimal digits."""
    return f"{len(hits)}:{np.packbits(hits.numpy() > 0).tobytes().hex()}"


def unpacked(text: str) -> np.ndarray:
    """Return what was `packed`: (N,) of 0 and 1."""
    count, bits = text.split(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=int(count))
