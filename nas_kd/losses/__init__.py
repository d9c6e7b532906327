"""Distillation losses as pure functions: the student first, the teacher second, labels third, then keywords.

Every loss computes in fp32 for any input (float64 stays float64), under autocast too, detaches the
teacher, and returns a scalar, the mean over the batch.
"""

from nas_kd.losses.adversarial import (
    activation,
    balance,
    critic,
    disagreement,
    fooled,
    logit_l1,
    norm_statistics,
    one_hot,
)
from nas_kd.losses.bernoulli import bernoulli_kl, per_label
from nas_kd.losses.contrast import crd, nce
from nas_kd.losses.divergence import (
    adaptive_alpha_divergence,
    alpha_divergence,
    js_divergence,
    kl_divergence,
    reverse_kl,
)
from nas_kd.losses.features import at, fitnet, likeness, normalised_mse, nst, pooled_cosine
from nas_kd.losses.labels import binary_cross_entropy, label_loss, squared_error
from nas_kd.losses.logits import (
    dist,
    dkd,
    kd,
    kd_ls,
    logit_mse,
    mixture,
    standardise,
    standardised,
    virtual_teacher,
)
from nas_kd.losses.online import consistency, linear_mmd, mutual, peers_loss, self_hint, symmetric_kd
from nas_kd.losses.relations import cc, irg, pkt, rdm, rkd, sp
from nas_kd.losses.soft_tree import soft_tree, tree_balance, tree_paths
from nas_kd.losses.texts import (
    attention_kl,
    attention_mse,
    feature_moments,
    hidden_cosine,
    hidden_mse,
    normalised_states,
)
from nas_kd.losses.transfer import ab, flow, fsp, ft, hcl, vid

__all__ = [
    "ab",
    "activation",
    "adaptive_alpha_divergence",
    "alpha_divergence",
    "at",
    "attention_kl",
    "attention_mse",
    "balance",
    "bernoulli_kl",
    "binary_cross_entropy",
    "cc",
    "consistency",
    "crd",
    "critic",
    "disagreement",
    "dist",
    "dkd",
    "feature_moments",
    "fitnet",
    "flow",
    "fooled",
    "fsp",
    "ft",
    "hcl",
    "hidden_cosine",
    "hidden_mse",
    "irg",
    "js_divergence",
    "kd",
    "kd_ls",
    "kl_divergence",
    "label_loss",
    "likeness",
    "linear_mmd",
    "logit_l1",
    "logit_mse",
    "mixture",
    "mutual",
    "nce",
    "norm_statistics",
    "normalised_mse",
    "normalised_states",
    "nst",
    "one_hot",
    "peers_loss",
    "per_label",
    "pkt",
    "pooled_cosine",
    "rdm",
    "reverse_kl",
    "rkd",
    "self_hint",
    "soft_tree",
    "sp",
    "squared_error",
    "standardise",
    "standardised",
    "symmetric_kd",
    "tree_balance",
    "tree_paths",
    "vid",
    "virtual_teacher",
]
