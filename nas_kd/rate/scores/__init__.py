"""Scores of whole archs, one idea per file, and the trivial ones that they must beat."""

from nas_kd.rate.scores import (
    codes,
    combine,
    donna,
    gradient,
    guidance,
    predicted,
    replace,
    ridge,
    short,
    similarity,
    size,
    stages,
    units,
    whole,
)
from nas_kd.rate.scores.base import Bench, Score, Usage, keys_of, measure_scores

# short name at the command line -> score, in the order of tables
SCORES: dict[str, Score] = {
    "relative_l1": stages.RELATIVE_L1,
    "nmse": stages.NMSE,
    "nsr": stages.NOISE_TO_SIGNAL,
    "ridge": ridge.RIDGE_RESIDUAL,
    "replace_one": replace.REPLACE_ONE,
    "rdm": similarity.RDM,
    "cka": similarity.CKA,
    "tg": guidance.TG,
    "p_tg": guidance.P_TG,
    "supernet_accuracy": whole.SUPERNET_ACCURACY,
    "supernet_kl": whole.SUPERNET_KL,
    "predicted": predicted.PREDICTED,
    "assembled_kl": whole.ASSEMBLED_KL,
    "donna": donna.DONNA,
    "short": short.SHORT_TRAINING,
    "tuned": short.TUNED_SUBNET,
    "nmse_after_size": combine.NMSE_AFTER_SIZE,
    "kl_after_size": combine.KL_AFTER_SIZE,
    "kl_and_nmse": combine.KL_AND_NMSE,
    "with_size": donna.WITH_SIZE,
    "kl_with_size": donna.KL_WITH_SIZE,
    "size_alone": donna.SIZE_ALONE,
    "code_alone": codes.CODE_ALONE,
    "units_kl": units.UNITS_KL,
    "units_local": units.UNITS_LOCAL,
    "macs": size.MACS,
    "params": size.PARAMS,
    "log_widths": size.LOG_WIDTHS,
    "depth": size.DEPTH,
    "minus_depth": size.MINUS_DEPTH,
    "minus_last_depth": size.MINUS_LAST_DEPTH,
    "gradient_norm": gradient.GRADIENT_NORM,
    "random": size.RANDOM,
}

__all__ = ["SCORES", "Bench", "Score", "Usage", "keys_of", "measure_scores"]
