"""Scores of whole archs, and the trivial ones that they must beat."""

from nas_kd.rate.scores.base import Bench, Score, Usage, keys_of, measure_scores
from nas_kd.rate.scores.combine import KL_AFTER_SIZE, KL_AND_NMSE, NMSE_AFTER_SIZE
from nas_kd.rate.scores.donna import DONNA, KL_WITH_SIZE, SIZE_ALONE, WITH_SIZE, Fit, fit_ridge
from nas_kd.rate.scores.gradient import GRADIENT_NORM
from nas_kd.rate.scores.replace import REPLACE_ONE
from nas_kd.rate.scores.ridge import RIDGE_RESIDUAL, apply_map, ridge_map
from nas_kd.rate.scores.short import SHORT_TRAINING, TUNED_SUBNET
from nas_kd.rate.scores.similarity import CKA, RDM, linear_cka, rdm_correlation
from nas_kd.rate.scores.size import DEPTH, LOG_WIDTHS, MACS, MINUS_DEPTH, PARAMS, RANDOM
from nas_kd.rate.scores.stages import NMSE, NOISE_TO_SIGNAL, RELATIVE_L1
from nas_kd.rate.scores.whole import ASSEMBLED_KL, SUPERNET_ACCURACY, SUPERNET_KL

CONTROLS = (MACS, PARAMS, LOG_WIDTHS, DEPTH, MINUS_DEPTH, GRADIENT_NORM, RANDOM)

# short name at the command line -> score
SCORES: dict[str, Score] = {
    "relative_l1": RELATIVE_L1,
    "nmse": NMSE,
    "nsr": NOISE_TO_SIGNAL,
    "ridge": RIDGE_RESIDUAL,
    "replace_one": REPLACE_ONE,
    "rdm": RDM,
    "cka": CKA,
    "supernet_accuracy": SUPERNET_ACCURACY,
    "supernet_kl": SUPERNET_KL,
    "assembled_kl": ASSEMBLED_KL,
    "donna": DONNA,
    "short": SHORT_TRAINING,
    "tuned": TUNED_SUBNET,
    "nmse_after_size": NMSE_AFTER_SIZE,
    "kl_after_size": KL_AFTER_SIZE,
    "kl_and_nmse": KL_AND_NMSE,
    "with_size": WITH_SIZE,
    "kl_with_size": KL_WITH_SIZE,
    "size_alone": SIZE_ALONE,
    "macs": MACS,
    "params": PARAMS,
    "log_widths": LOG_WIDTHS,
    "depth": DEPTH,
    "minus_depth": MINUS_DEPTH,
    "gradient_norm": GRADIENT_NORM,
    "random": RANDOM,
}

__all__ = [
    "ASSEMBLED_KL",
    "CKA",
    "CONTROLS",
    "DEPTH",
    "DONNA",
    "GRADIENT_NORM",
    "KL_AFTER_SIZE",
    "KL_AND_NMSE",
    "KL_WITH_SIZE",
    "LOG_WIDTHS",
    "MACS",
    "MINUS_DEPTH",
    "NMSE",
    "NMSE_AFTER_SIZE",
    "NOISE_TO_SIGNAL",
    "PARAMS",
    "RANDOM",
    "RDM",
    "RELATIVE_L1",
    "REPLACE_ONE",
    "RIDGE_RESIDUAL",
    "SCORES",
    "SHORT_TRAINING",
    "SIZE_ALONE",
    "SUPERNET_ACCURACY",
    "SUPERNET_KL",
    "TUNED_SUBNET",
    "WITH_SIZE",
    "Bench",
    "Fit",
    "Score",
    "Usage",
    "apply_map",
    "fit_ridge",
    "keys_of",
    "linear_cka",
    "measure_scores",
    "rdm_correlation",
    "ridge_map",
]
