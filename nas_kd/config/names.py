"""Names that settings are checked against before torch is imported; tests hold them against what has them."""

from __future__ import annotations

from nas_kd.errors import SettingError, nearest

METHODS = (
    "ab",
    "adaptive_alpha",
    "alpha_divergence",
    "at",
    "born_again",
    "bss",
    "byot",
    "cc",
    "ce",
    "crd",
    "cs_kd",
    "dafl",
    "ddgsd",
    "dfad",
    "dfq",
    "dist",
    "dkd",
    "dml",
    "fitnet",
    "fsp",
    "ft",
    "gan_kd",
    "grafting",
    "irg",
    "js_divergence",
    "kd",
    "kd_ls",
    "label_smoothing",
    "logit_mse",
    "mean_teacher",
    "multi_teacher",
    "nst",
    "pkt",
    "privileged",
    "rdm",
    "reverse_kl",
    "review",
    "rkd",
    "soft_tree",
    "sp",
    "takd",
    "vid",
    "virtual_teacher",
    "zskt",
)
LOSSES = (
    "ce",
    "ab",
    "adaptive_alpha_divergence",
    "adaptive_alpha_divergence_ls",
    "alpha_divergence",
    "alpha_divergence_ls",
    "at",
    "cc",
    "cc_embedded",
    "crd",
    "dist",
    "dist_ls",
    "dkd",
    "dkd_ls",
    "fitnet",
    "fsp",
    "ft",
    "irg",
    "js_divergence",
    "js_divergence_ls",
    "kd",
    "kd_ls",
    "logit_mse",
    "logit_mse_ls",
    "nst",
    "pkt",
    "rdm",
    "reconstruct",
    "reverse_kl",
    "reverse_kl_ls",
    "review",
    "rkd",
    "sp",
    "vid",
    "virtual_teacher",
)
SCORES = (
    "relative_l1",
    "nmse",
    "nsr",
    "ridge",
    "replace_one",
    "rdm",
    "cka",
    "supernet_accuracy",
    "supernet_kl",
    "assembled_kl",
    "donna",
    "short",
    "tuned",
    "nmse_after_size",
    "kl_after_size",
    "kl_and_nmse",
    "with_size",
    "kl_with_size",
    "size_alone",
    "macs",
    "params",
    "log_widths",
    "depth",
    "minus_depth",
    "gradient_norm",
    "random",
)
ERRORS = ("nsr", "nmse", "relative_l1")  # of a stage's answer
SIZES = ("macs", "params", "log_widths", "depth", "minus_depth")  # scores of size alone


def check_method(field: str, method: str | list[tuple[str, float]] | None) -> None:
    """Check that a distillation method or its losses exist.

    Args:
        field: the setting, for the message.
        method: a name, a list of losses and weights, or None.

    Raises:
        SettingError: naming the first that does not.
    """
    if isinstance(method, str) and method not in METHODS:
        raise SettingError(field, method, "a method that `nas-kd methods` lists", nearest(method, METHODS))
    for loss, _ in method if isinstance(method, list) else ():
        if loss not in LOSSES:
            raise SettingError(field, loss, "a loss: " + ", ".join(LOSSES), nearest(loss, LOSSES))
