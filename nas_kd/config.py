"""All settings of the command line and of a config file: frozen dataclasses, checked when they are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from nas_kd.checks import Budget, check_budget, natural, number, parse_budget, positive, share, warmup, word
from nas_kd.errors import SettingError
from nas_kd.runtime import check_runtime

__all__ = [
    "BlockwiseConfig",
    "Config",
    "DataConfig",
    "RetrainConfig",
    "SearchConfig",
    "SupernetConfig",
    "TeacherConfig",
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
    views: int = 8
    """fixed views (crop, flip) an image that the teacher's answers are cached for; 0 draws new ones always"""
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
        natural("data", self, "views", "pad")


@dataclass(frozen=True)
class TeacherConfig:
    """The fixed network that teaches."""

    model: str = "cifar_resnet20"
    """a timm name, cifar_resnet20/32/44/56/110, package.module:factory, or a student folder"""
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
        own_weights = ":" in self.model or "/" in self.model or self.model.startswith(".")
        if not (own_weights or self.checkpoint or self.pretrained or self.epochs):
            raise SettingError(
                "teacher.checkpoint",
                None,
                f"weights for teacher.model={self.model}",
                "give teacher.checkpoint, teacher.pretrained=true, or teacher.epochs to train it",
            )


@dataclass(frozen=True)
class SupernetConfig:
    """Training of the supernet by the sandwich rule with in-place distillation."""

    epochs: int = 30
    """passes over train"""
    batch_size: int = 64
    """images a step"""
    lr: float = 0.1
    """peak learning rate"""
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
    """label smoothing, for the largest only"""
    random_subnets: int = 2
    """random subnets a step, besides the largest and the smallest"""
    divergence: str = "alpha"
    """alpha (adaptive alpha-divergence) or kl: what the smaller ones learn from the largest by"""
    choose: str = "clipped"
    """clipped (as AlphaNet) or unclipped: which of the two alpha values are compared"""
    reduction: str = "sum"
    """sum or mean of the subnets' losses"""
    teacher_weight: float = 0.0
    """0..1: how far the external teacher, rather than the labels, teaches the largest"""
    dropout: float = 0.0
    """dropout before the classifier, for the largest only"""
    drop_path: float = 0.0
    """stochastic depth, for the largest only"""
    ema: float = 0.0
    """decay of an average of the weights that is used in their place at the end; 0 is off"""
    clip_grad: float = 1.0
    """greatest magnitude of an entry of the gradient; 0 does not clip"""

    def __post_init__(self) -> None:
        positive("supernet", self, "epochs", "batch_size", "lr")
        natural("supernet", self, "weight_decay", "random_subnets", "warmup_epochs", "clip_grad")
        share("supernet", self, "momentum", "smoothing", "dropout", "drop_path", "ema")
        number("supernet", self, "0 to 1", lambda value: 0 <= value <= 1, "teacher_weight", "final_lr")
        word("supernet.schedule", self.schedule, ("cosine", "exponential"))
        word("supernet.divergence", self.divergence, ("alpha", "kl"))
        word("supernet.choose", self.choose, ("clipped", "unclipped"))
        word("supernet.reduction", self.reduction, ("sum", "mean"))
        warmup("supernet", self.warmup_epochs, self.epochs)
        if self.schedule == "exponential" and self.final_lr == 0:
            legal = "above 0 when supernet.schedule=exponential"
            raise SettingError("supernet.final_lr", self.final_lr, legal, "use 0.05, as BigNAS does")


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

    max_macs: Budget = "60%"
    """most multiply-adds: a share of the largest (60%) or a number (6.5e6, 6.5M); null is no limit"""
    max_params: Budget = None
    """most parameters, likewise"""
    max_latency_ms: float | None = None
    """largest median latency of one image on this machine, in milliseconds; null is no limit"""
    trials: int = 300
    """whole subnets to score"""
    sampler: str = "tpe"
    """Optuna's sampler: tpe, nsga2 or random"""
    top: int = 4
    """architectures that a short distilled training decides between, controls included"""
    epochs: int = 3
    """epochs of that training"""
    calibration_images: int = 512
    """training images that norm statistics of a subnet are measured on"""
    rate_images: int | None = None
    """images of the rate split that subnets are scored on; null takes all"""

    def __post_init__(self) -> None:
        check_budget(self.max_macs, "search.max_macs")
        check_budget(self.max_params, "search.max_params")
        positive("search", self, "max_latency_ms", "trials", "top", "epochs")
        positive("search", self, "calibration_images", "rate_images")
        word("search.sampler", self.sampler, ("tpe", "nsga2", "random"))


@dataclass(frozen=True)
class RetrainConfig:
    """Distilled training of the found student, and of those it is compared with."""

    method: str = "kd_ls"
    """distillation method, such as kd, kd_ls (logit-standardised) or dkd"""
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

    def __post_init__(self) -> None:
        check_runtime(self.device, self.precision, self.threads)
        if self.workers < 1:
            raise SettingError("workers", self.workers, "an integer of at least 1", "use workers=1")

    def to_yaml(self) -> str:
        """Write all settings as YAML that ``nas-kd run`` reads back."""
        import yaml

        return yaml.safe_dump(asdict(self), sort_keys=False)
