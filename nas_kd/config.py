"""All settings of the command line and of a config file: frozen dataclasses, checked when they are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from nas_kd.checks import (
    Budget,
    check_budget,
    check_views,
    natural,
    number,
    parse_budget,
    positive,
    share,
    warmup,
    word,
)
from nas_kd.errors import SettingError
from nas_kd.runtime import check_runtime

__all__ = [
    "BlockwiseConfig",
    "Config",
    "DataConfig",
    "RankConfig",
    "RetrainConfig",
    "SearchConfig",
    "SupernetConfig",
    "TeacherConfig",
    "check_supernet",
    "parse_budget",
]


@dataclass(frozen=True)
class DataConfig:
    """Images, their splits and their augmentation."""

    train: str = "digits"
    """digits, a folder or a .tar of class folders, or a timm data set such as torch/cifar10 or hfds/NAME"""
    test: str | None = None
    """test images, as train; null holds out a stratified fifth of train"""
    rate: float = 0.05
    """share of train held out to score architectures on"""
    select: float = 0.05
    """share of train held out to choose the final architecture on"""
    seed: int = 0
    """seed of the splits and of the views"""
    resolution: int | None = None
    """image size in pixels; null takes the images' own"""
    subset: int | None = None
    """use only this many images of train, class-stratified; null uses all"""
    views: int | str = 8
    """views (crop, flip) an image that the teacher's answers are cached for: so many fixed ones, or all;
    0 draws new ones always and asks the teacher live"""
    pad: int | None = None
    """pixels of padding before the random crop; null is an eighth of the resolution"""
    flip: bool | None = None
    """flip images left to right at random; null flips unless the data are digits"""
    augment: str | None = None
    """a timm augmentation such as rand-m9-mstd0.5 (the teacher then answers live); null is crop and flip"""
    memory_gib: float = 4.0
    """decoded images are kept in memory up to this many GiB, else decoded at every use"""
    download: bool = False
    """allow a timm data set to be downloaded"""
    root: str = "~/.cache/nas_kd"
    """folder of torch/ and hfds/ data sets"""
    train_split: str = "train"
    """name of the training split of such a data set"""
    test_split: str = "validation"
    """name of the test split of such a data set"""

    def __post_init__(self) -> None:
        share("data", self, "rate", "select")
        if self.rate + self.select >= 1:
            raise SettingError(
                "data.rate", self.rate, f"below 1 - data.select={self.select}", "lower one of them"
            )
        positive("data", self, "resolution", "subset", "memory_gib")
        natural("data", self, "pad")
        check_views(self.views)


@dataclass(frozen=True)
class TeacherConfig:
    """The fixed network that teaches."""

    model: str | None = "cifar_resnet20"
    """a timm name, cifar_resnet20/32/44/56/110, package.module:factory, or a student folder; null for no
    teacher: the search then follows the supernet's accuracy, and students learn from labels"""
    checkpoint: str | None = None
    """weights of the model: .safetensors, or a torch file of weights only"""
    pretrained: bool = False
    """load timm's pretrained weights (downloads them)"""
    stages: list[str] | None = None
    """names of the teacher's layers that the student's stages learn from; null chooses them"""
    mean: list[float] | None = None
    """channel means, in 0..1 units, of the teacher's own input normalisation; null takes the model's"""
    std: list[float] | None = None
    """channel standard deviations, likewise"""
    cache: str | None = None
    """folder of the teacher's stored answers that several runs share; null keeps them in the run"""
    epochs: int = 0
    """train or fine-tune the teacher on train for this many epochs; 0 uses it as it is"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.05
    """peak learning rate"""
    momentum: float = 0.9
    """Nesterov momentum"""
    weight_decay: float = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up"""
    smoothing: float = 0.0
    """label smoothing"""

    def __post_init__(self) -> None:
        natural("teacher", self, "epochs", "weight_decay", "warmup_epochs")
        positive("teacher", self, "lr", "batch_size")
        share("teacher", self, "momentum", "smoothing")
        if self.model is None and (self.epochs or self.checkpoint or self.pretrained):
            given = ", ".join(name for name in ("epochs", "checkpoint", "pretrained") if getattr(self, name))
            legal = f"a network, when teacher.{given} is given"
            raise SettingError("teacher.model", None, legal, "name a model, or leave that out")
        if self.epochs:
            warmup("teacher", self.warmup_epochs, self.epochs)
            if self.mean is not None or self.std is not None:
                legal = "null for a teacher that is trained here: it sees the data's own normalisation"
                raise SettingError("teacher.mean", self.mean, legal, "leave out teacher.mean and teacher.std")

    def need_weights(self) -> None:
        """Refuse a teacher that would be left with random weights.

        Raises:
            SettingError: a plain model name without checkpoint, pretrained weights or epochs.
        """
        if self.model is None:
            return
        own_weights = ":" in self.model or "/" in self.model or self.model.startswith(".")
        if not (own_weights or self.checkpoint or self.pretrained or self.epochs):
            raise SettingError(
                "teacher.checkpoint",
                None,
                f"weights for teacher.model={self.model}",
                "give teacher.checkpoint, teacher.pretrained=true, or teacher.epochs to train it",
            )


RULES = ("sandwich", "bestup", "worstup", "shrinking", "uniform", "fair")
DIVERGENCES = ("alpha", "kl", "reverse_kl", "js")


@dataclass(frozen=True)
class SupernetConfig:
    """Training of the supernet, by default by the sandwich rule with in-place distillation."""

    rule: str = "sandwich"
    """sandwich; bestup or worstup (of some random subnets of equal MACs the best or worst is trained); shrinking
    (OFA: the largest first, then elastic kernels, depths and widths); uniform or fair (single paths)"""
    epochs: int = 30
    """passes over train"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.1
    """peak learning rate; later phases of shrinking have the published share of it"""
    momentum: float = 0.9
    """Nesterov momentum"""
    weight_decay: float = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up"""
    schedule: str = "cosine"
    """cosine or exponential"""
    final_lr: float = 0.0
    """learning rate at the end, as a share of the peak"""
    smoothing: float = 0.1
    """label smoothing"""
    random_subnets: int | None = None
    """random subnets a step; null is the rule's own: 2 besides the largest and the smallest for sandwich, bestup
    and worstup, 1 for uniform, one a choice of a layer (at most 4) for fair, 1, 2 and 4 by phase for shrinking"""
    order: str = "smallest_second"
    """smallest_second (as US-Nets) or smallest_last (as AlphaNet): where the smallest stands in a sandwich"""
    candidates: int = 3
    """archs that bestup and worstup choose each random subnet from"""
    kd_ratio: float = 1.0
    """shrinking: weight of the full network's soft targets beside the labels"""
    full_teacher: str = "frozen"
    """shrinking: frozen (the largest as it is after the first phase) or inplace (the largest of every step)"""
    kernel_transform: bool = False
    """learn matrices that turn large depthwise kernels into small ones, as OFA does, in the place of cropping"""
    divergence: str | None = None
    """alpha (alpha-divergence), kl, reverse_kl or js: how subnets learn from soft targets; null is alpha, and kl
    for shrinking"""
    alpha: float | None = None
    """a fixed order of the alpha-divergence; null is AlphaNet's adaptive pair of -1 and 1"""
    choose: str = "clipped"
    """clipped (as AlphaNet) or unclipped: which of the two alpha values are compared"""
    reduction: str = "sum"
    """sum or mean of the subnets' losses"""
    teacher_weight: float = 0.0
    """0..1: how far the external teacher takes the place of the labels (in a sandwich, for the largest)"""
    dropout: float = 0.0
    """dropout before the classifier, for subnets that learn from labels (in a sandwich, the largest)"""
    drop_path: float = 0.0
    """stochastic depth, for the same subnets"""
    ema: float = 0.0
    """decay of an average of the weights that is used in their place at the end; 0 is off"""
    clip_grad: float = 1.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""
    accumulate: int = 1
    """parts that a process's images of a step are cut into, to need less memory"""
    compile: bool = False
    """run the largest and the smallest through torch.compile"""

    def __post_init__(self) -> None:
        check_supernet(self)
        warmup("supernet", self.warmup_epochs, self.epochs)


def check_supernet(settings: Any) -> None:
    """Check the training of a supernet, but for how long its warm-up is.

    Args:
        settings: an object with the fields of ``SupernetConfig``.

    Raises:
        SettingError: naming the first setting that is not usable.
    """
    positive("supernet", settings, "epochs", "batch_size", "lr", "candidates", "accumulate")
    natural("supernet", settings, "weight_decay", "random_subnets", "warmup_epochs", "clip_grad", "kd_ratio")
    share("supernet", settings, "momentum", "smoothing", "dropout", "drop_path", "ema", "final_lr")
    number("supernet", settings, "0 to 1", lambda value: 0 <= value <= 1, "teacher_weight")
    number("supernet", settings, "a finite number", lambda value: True, "alpha")
    word("supernet.rule", settings.rule, RULES)
    word("supernet.order", settings.order, ("smallest_second", "smallest_last"))
    word("supernet.full_teacher", settings.full_teacher, ("frozen", "inplace"))
    word("supernet.schedule", settings.schedule, ("cosine", "exponential"))
    if settings.divergence is not None:
        word("supernet.divergence", settings.divergence, DIVERGENCES)
    word("supernet.choose", settings.choose, ("clipped", "unclipped"))
    word("supernet.reduction", settings.reduction, ("sum", "mean"))
    if settings.schedule == "exponential" and settings.final_lr == 0:
        legal = "above 0 when supernet.schedule=exponential"
        raise SettingError("supernet.final_lr", settings.final_lr, legal, "use 0.05, as BigNAS does")
    if settings.rule in ("uniform", "fair", "shrinking") and settings.random_subnets == 0:
        legal = f"at least 1 with supernet.rule={settings.rule}"
        raise SettingError("supernet.random_subnets", 0, legal, "leave it out")
    if settings.rule == "shrinking" and settings.ema > 0:
        legal = "0 with supernet.rule=shrinking, which moves channels and starts anew in every phase"
        raise SettingError("supernet.ema", settings.ema, legal, "leave it out")
    if settings.alpha is not None and settings.divergence not in (None, "alpha"):
        legal = f"null with supernet.divergence={settings.divergence}"
        raise SettingError("supernet.alpha", settings.alpha, legal, "use supernet.divergence=alpha")


@dataclass(frozen=True)
class BlockwiseConfig:
    """Blockwise supervision by the teacher and the rating of every candidate of a stage."""

    train: bool = True
    """train the stages on the teacher's features (DNA); false trains the adapters only"""
    epochs: int = 5
    """passes over train"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.01
    """peak learning rate (AdamW)"""
    init: str = "supernet"
    """supernet or scratch: the weights that the stages start from"""
    sampling: str = "fair"
    """fair (every choice of every layer equally often) or uniform"""
    paths: int = 4
    """paths a stage and step"""
    rate_images: int | None = None
    """images of the rate split that candidates are scored on; null takes all"""
    calibration_images: int = 512
    """training images that norm statistics are measured on"""
    max_rows: int = 20_000
    """rate all candidates of a stage up to this many rows (input width x candidate); above, by halving"""

    def __post_init__(self) -> None:
        positive("blockwise", self, "epochs", "batch_size", "lr", "paths", "max_rows")
        number("blockwise", self, "2 or more", lambda value: value >= 2, "rate_images", "calibration_images")
        word("blockwise.init", self.init, ("supernet", "scratch"))
        word("blockwise.sampling", self.sampling, ("fair", "uniform"))


@dataclass(frozen=True)
class SearchConfig:
    """The budget and the search within it."""

    engine: str | None = None
    """exact (stage scores exactly, then whole subnets; needs a teacher), or by the supernet's accuracy alone:
    nsga2 (Optuna's), coarse (coarse-to-fine) or random (the baseline); null is exact, nsga2 without a teacher"""
    max_macs: Budget = "60%"
    """most multiply-adds: a share of the largest (60%) or a number (6.5e6, 6.5M); null is no limit"""
    max_params: Budget = None
    """most parameters, likewise"""
    max_latency_ms: float | None = None
    """largest median latency of one image on this machine, in milliseconds; null is no limit"""
    trials: int = 300
    """whole subnets to score"""
    sampler: str = "tpe"
    """Optuna's sampler after exact: tpe, nsga2 or random"""
    top: int = 4
    """architectures that a short training decides between, besides the controls"""
    epochs: int = 3
    """epochs of that training, which is distilled after exact, else by labels; 0 leaves it out"""
    calibration_images: int = 512
    """training images that norm statistics of a subnet are measured on"""
    rate_images: int | None = None
    """images of the rate split that subnets are scored on; null takes all"""

    def __post_init__(self) -> None:
        check_budget(self.max_macs, "search.max_macs")
        check_budget(self.max_params, "search.max_params")
        positive("search", self, "max_latency_ms", "trials", "top")
        natural("search", self, "epochs")
        positive("search", self, "calibration_images", "rate_images")
        word("search.sampler", self.sampler, ("tpe", "nsga2", "random"))
        if self.engine is not None:
            word("search.engine", self.engine, ("exact", "nsga2", "coarse", "random"))


@dataclass(frozen=True)
class RetrainConfig:
    """Distilled training of the found student, and of those it is compared with."""

    method: str | None = None
    """distillation method, such as kd, kd_ls (logit-standardised) or dkd; null is kd_ls, ce without a teacher"""
    epochs: int = 30
    """passes over train"""
    batch_size: int = 128
    """images a step"""
    lr: float = 0.1
    """peak learning rate"""
    momentum: float = 0.9
    """Nesterov momentum"""
    weight_decay: float = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up"""
    clip_grad: float = 0.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""
    seeds: int = 3
    """trainings of every student, each from its own seed"""
    init: str = "scratch"
    """scratch or supernet: the weights that a student starts from"""
    random_students: int = 3
    """random students of the found one's MACs to compare with"""
    band: float = 0.05
    """how far, as a share, their MACs may lie from the found one's"""

    def __post_init__(self) -> None:
        positive("retrain", self, "epochs", "batch_size", "lr", "seeds", "band")
        natural("retrain", self, "weight_decay", "random_students", "warmup_epochs", "clip_grad")
        share("retrain", self, "momentum")
        word("retrain.init", self.init, ("scratch", "supernet"))
        warmup("retrain", self.warmup_epochs, self.epochs)


@dataclass(frozen=True)
class RankConfig:
    """How far scores can be trusted: archs trained alone, and scores of the same archs."""

    scores: list[str] | None = None
    """scores to judge, by name; null is all that there are: `nas_kd.rate.scores.SCORES`"""
    primary: str = "nmse"
    """the one score that is tested without correction, named before the truth is known"""
    control: str = "params"
    """the one size control that it is tested against: macs, params, log_widths, depth or minus_depth"""
    bands: list[str | int | float] | None = None
    """MACs in the middle of each band: shares of the largest (40%) or numbers (4M); null takes percentiles"""
    band: float = 0.05
    """half the width of a band, as a share of its middle"""
    in_band: int = 32
    """archs a band"""
    overall: int = 16
    """archs over all sizes"""
    archs: str | None = None
    """archs.csv of another ranking, whose archs are taken: for another teacher, or a longer training"""
    limit: int | None = None
    """only the first so many of those archs"""
    seeds: int = 2
    """trainings of each arch; more may be asked for later"""
    method: str = "kd"
    """distillation method of the trainings, on logits alone"""
    epochs: int = 10
    """passes over train"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.05
    """peak learning rate"""
    momentum: float = 0.9
    """Nesterov momentum"""
    weight_decay: float = 5e-4
    """weight decay, on neither norms nor biases"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up"""
    clip_grad: float = 0.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""
    ema: float = 0.0
    """decay of an average of the weights that is measured in their place; 0 is off"""
    images: int = 1024
    """rating images that scores measure on"""
    calibration_images: int = 512
    """training images that norm statistics are measured on"""
    resamples: int = 10_000
    """bootstrap resamples over archs, with their seeds inside"""

    def __post_init__(self) -> None:
        positive("rank", self, "band", "seeds", "epochs", "batch_size", "lr", "images", "resamples")
        natural("rank", self, "overall", "weight_decay", "warmup_epochs", "clip_grad")
        share("rank", self, "band", "momentum", "ema")
        number("rank", self, "2 or more", lambda value: value >= 2, "calibration_images")
        number("rank", self, "8 or more", lambda value: value >= 8, "in_band", "limit")
        warmup("rank", self.warmup_epochs, self.epochs)
        for middle in self.bands or ():
            check_budget(middle, "rank.bands")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    space: str = "digits"
    """search space: a name such as resnet_cifar, or the path of a .py file that defines SPACE"""
    run: str | None = None
    """run folder; null is runs/ and the name of the config file"""
    seed: int = 0
    """seed of everything but the data's splits and views"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    precision: str = "32-true"
    """32-true or bf16-mixed"""
    threads: int | None = None
    """CPU threads of this process; null leaves it to torch"""
    workers: int = 2
    """one-thread processes for independent trainings; 1 stays in this process"""
    data: DataConfig = field(default_factory=DataConfig)
    """Images"""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Teacher"""
    supernet: SupernetConfig = field(default_factory=SupernetConfig)
    """Supernet"""
    blockwise: BlockwiseConfig = field(default_factory=BlockwiseConfig)
    """Blockwise rating"""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Search"""
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    """Retraining"""
    rank: RankConfig = field(default_factory=RankConfig)
    """Ranking of scores"""

    def __post_init__(self) -> None:
        check_runtime(self.device, self.precision, self.threads)
        if self.workers < 1:
            raise SettingError("workers", self.workers, "an integer of at least 1", "use workers=1")
        if self.teacher.model is None and self.search.engine == "exact":
            legal = "nsga2, coarse or random without a teacher"
            raise SettingError("search.engine", "exact", legal, "give teacher.model, or search.engine=nsga2")
        if self.teacher.model is None and self.supernet.teacher_weight > 0:
            legal, mend = "0 without a teacher", "give teacher.model, or leave supernet.teacher_weight out"
            raise SettingError("supernet.teacher_weight", self.supernet.teacher_weight, legal, mend)

    @property
    def engine(self) -> str:
        """What searches."""
        return self.search.engine or ("nsga2" if self.teacher.model is None else "exact")

    @property
    def method(self) -> str:
        """How students are trained in the end."""
        return self.retrain.method or ("ce" if self.teacher.model is None else "kd_ls")

    def to_yaml(self) -> str:
        """Write all settings as YAML that ``nas-kd run`` reads back."""
        import yaml

        return yaml.safe_dump(asdict(self), sort_keys=False)
