"""What a command is going to do: its stages, the steps of each, how long they take, and the disk that they need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_kd.pipeline.given import Given
from nas_kd.pipeline.pace import Pace, pace
from nas_kd.pipeline.ready_made import named_rivals
from nas_kd.runs.files import read_frame, read_json
from nas_kd.runs.progress import format_seconds
from nas_kd.searcher.finalists import lengths
from nas_kd.searcher.trials import OTHERS
from nas_kd.teacher.cache import cache_bytes
from nas_kd.train.evaluate import IMAGES as EVALUATED

PROPOSALS = 1.5  # of a search for each new arch within the budget, about
CONTROLS = 4  # archs that short trainings add to the finalists, about
SUBNET = 1.3  # a forward pass through shared weights, in those of the student
UNIT = 0.7  # of a forward pass of the teacher: one choice of every unit, rated
LAYERS = 0.3  # of all layers path by path: what rating a stage as a tree runs through
EVEN = 4  # cuts of depth and width that even_both chooses from
START = 4.0  # seconds until worker processes have imported everything
WEIGHT = 4  # bytes of a parameter
CHECKPOINT = 3  # weights, and what an optimiser keeps of each


@dataclass(frozen=True)
class Work:
    """A stage.

    Args:
        stage: its name.
        steps: what it goes through, in words.
        seconds: how long that takes.
        left: share of it that is not done.
        disk: bytes that stay.
    """

    stage: str
    steps: str
    seconds: float
    left: float = 1.0
    disk: float = 0.0


def plan(given: Given, folder: Path | None = None) -> list[Work]:
    """Say what a run goes through.

    Args:
        given: what the settings name.
        folder: of a run that may have a part of it.

    Returns:
        A work a stage, in the order of the run's steps.
    """
    return planned(given, pace(given), folder)


def planned(given: Given, pace: Pace, folder: Path | None = None) -> list[Work]:
    """Say what a run goes through at a pace that is known; arguments and result as of `plan`."""
    found = _Plan(given, pace, folder)
    config = given.config
    works = [found.supernet(), found.search(), found.retrain()]
    if config.guided:
        works.insert(1, found.rating())
    return [found.teacher(), found.answers(), *works] if given.taught else works


def words(works: Sequence[Work], resumed: bool = False) -> Iterator[str]:
    """Word a plan, a line a stage.

    Args:
        works: of `plan`.
        resumed: a part is done, and only the rest is counted.
    """
    left = sum(work.left * work.seconds for work in works)
    disk = sum(work.disk for work in works)
    what = "left" if resumed else "in all"
    yield f"plan: about {format_seconds(left)} {what}, {disk / 1e6:,.1f} MB on the disk (plan=false leaves this out)"
    width = max(len(work.stage) for work in works)
    for number, work in enumerate(works, 1):
        time = format_seconds(work.left * work.seconds)
        state = "done" if work.left == 0 else time if work.left == 1 else f"{time} left ({100 * work.left:.0f} %)"
        yield f"  [{number}/{len(works)}] {work.stage:{width}}  {state:>12}  {work.steps}"


class _Plan:
    """The amounts of one configuration, at a pace."""

    def __init__(self, given: Given, pace: Pace, folder: Path | None) -> None:
        self.given = given
        self.config = given.config
        self.pace = pace
        self.folder = folder
        data = given.images
        self.images = len(data.train)
        self.rate = len(data.rate)
        self.workers = self.config.workers if given.device == "cpu" else 1

    def _left(self, name: str, epochs: int = 0) -> float:
        """Return the share of a stage that is not done."""
        record = None if self.folder is None else self.folder / name / "stage.json"
        if record is None or not record.exists():
            return 1.0
        if read_json(record, ("done",))["done"]:
            return 0.0
        return 1.0 - len(read_frame(record.with_name("metrics.csv"))) / epochs if epochs else 1.0

    def _epochs(self, section: str, epochs: int) -> str:
        settings = getattr(self.config, section).fitted(self.images)
        return f"{epochs} epochs of {self.given.images.train.steps(settings.batch_size)} steps"

    def teacher(self) -> Work:
        epochs = self.config.teacher.epochs
        whole = self.given.whole
        disk = WEIGHT * (0 if whole is None or not epochs else whole.params)
        seconds = epochs * (self.images * self.pace.teacher_step + self.rate * self.pace.teacher)
        words = self._epochs("teacher", epochs) if epochs else "given"
        return Work("teacher", words, seconds, self._left("teacher", epochs) if epochs else 0.0, disk)

    def answers(self) -> Work:
        views = self.given.images.train.views
        count = 0 if views is None else len(views) * self.images
        # they are stored before a search, which is begun later
        done = self.folder is not None and (self.folder / "search" / "stage.json").exists()
        disk = cache_bytes(self.given.images)
        steps = self.given.images.spoken(f"{count:,} images") if count else "the teacher runs live"
        return Work("teacher logits", steps, count * self.pace.teacher, 0.0 if done or not count else 1.0, disk)

    def supernet(self) -> Work:
        config = self.config
        largest = self.given.outline.cost(self.given.outline.largest(), **self.given.cost).params
        if config.derived:
            epochs, seconds = config.repair.epochs, self._repair
            words = f"{self._epochs('repair', epochs)} of repair" if epochs else "nothing to train"
            left = self._left("repair", epochs) if epochs else 0.0
            own = config.search
            if own.steps > 1:  # the first students are nearly teachers
                around = max(0, own.rerate - 1) * self._around() * SUBNET * self.pace.teacher
                step = own.step_epochs * self.images * self.pace.teacher_step + around + seconds
                words += f", and {own.steps - 1} cuts before the last, {own.step_epochs} epochs each"
                left = (left * seconds + (own.steps - 1) * step) / (seconds + (own.steps - 1) * step)
                seconds += (own.steps - 1) * step
            return Work("the teacher as the space", words, seconds, left, WEIGHT * largest * self._choices)
        epochs = config.supernet.epochs
        looked_at = 2 * (min(EVALUATED, self.images) + min(EVALUATED, self.rate))  # by the largest and the smallest
        seconds = epochs * (self.images * self.pace.supernet_step + looked_at * self.pace.student)
        words = self._epochs("supernet", epochs) if epochs else "given weights"
        return Work("supernet", words, seconds, self._left("supernet", epochs), WEIGHT * largest * (1 + CHECKPOINT))

    def rating(self) -> Work:
        config = self.config
        stages = self.given.outline.stages
        if config.derived:
            images = min(config.derive.rate_images, self.rate)
            choices = sum(stage.size for stage in stages)
            each = choices / len(stages)
            return Work(
                "units",
                self.given.images.spoken(f"{choices} choices on {images} images"),
                each * images * UNIT * self.pace.teacher,
                self._left("blockwise"),
            )
        own = config.blockwise
        images = min(own.rate_images or self.rate, self.rate)
        rows = sum(min(own.max_rows, stage.size) for stage in stages)
        paths = (own.paths or 4) if own.train else 0
        training = own.epochs * self.images * (self.pace.teacher + paths * self.pace.supernet_step / 4)
        rating = LAYERS * rows * (images + own.calibration_images) * self.pace.student / len(stages)
        words = f"{self._epochs('blockwise', own.epochs)}, {rows:,} rows on {images} images"
        return Work("blockwise", words, training + rating, self._left("blockwise"))

    def _training(self, epochs: float) -> float:
        return epochs * (self.images * self.pace.student_step + self.rate * self.pace.student)

    def search(self) -> Work:
        own = self.config.search
        guided = self.config.guided
        measured = min(own.calibration_images, self.images) + min(own.rate_images or self.rate, self.rate)
        scoring = SUBNET * self.pace.student
        seconds = own.trials * (measured * scoring + PROPOSALS * self.pace.proposal)
        parts = [f"{own.trials} subnets"]
        if self.config.engine == "gates":
            seconds += self._training(own.gate_epochs)
            parts.insert(0, f"{own.gate_epochs} epochs of gates")
        elif guided and self.config.derived and own.rerate:
            seconds += (own.rerate - 1) * self._around() * scoring  # the last arch is not rated around
        scored = seconds
        trainings = 0
        if guided and own.tuned:
            trainings += min(own.tuned, own.trials)
            seconds += self._training(1) * trainings / self._at_once(trainings) + self._start
            parts.append(f"{trainings} tuned for an epoch")
        if own.epochs:
            finalists = min(own.top, own.trials) + CONTROLS
            short = 0
            for length in lengths(own.epochs, own.rounds):
                seconds += self._training(length) * finalists / self._at_once(finalists) + self._start
                short += finalists
                finalists = -(-finalists // 2)
            trainings += short
            parts.append(f"{short} short trainings of up to {own.epochs} epochs")
        left = self._left("search")
        if left and self.folder is not None:
            rows = read_frame(self.folder / "search" / "trials.csv")
            known = (~rows["kind"].isin(OTHERS)).sum() if len(rows) else 0
            done = sum(_done(path) for path in self.folder.glob("search/*/*/stage.json"))
            left -= (min(1.0, known / own.trials) * scored) / seconds
            left -= (min(1.0, done / max(1, trainings)) * (seconds - scored)) / seconds
        return Work("search", ", ".join(parts), seconds, left, WEIGHT * self.pace.params * trainings)

    @property
    def _choices(self) -> int:
        """Choices of a unit that are trained in a step of repair."""
        return self.config.repair.choices or len(self.config.derive.widths)

    @property
    def _repair(self) -> float:
        """Seconds that the repair of all units takes."""
        return self.config.repair.epochs * self.images * (self.pace.teacher + self._choices * self.pace.teacher_step)

    def _around(self) -> int:
        """Return how many images go through subnets where all choices are rated around an arch."""
        choices = sum(stage.size for stage in self.given.outline.stages)
        return choices * min(self.config.search.rerate_images, self.rate)

    @property
    def _start(self) -> float:
        return START if self.workers > 1 else 0.0

    def _at_once(self, trainings: int) -> int:
        return min(self.workers, max(1, trainings))

    def retrain(self) -> Work:
        own = self.config.retrain
        named = named_rivals(self.given)
        students = 3 + own.random_students + len(named)
        count = students * own.seeds
        again = "even_both_repaired" in named
        short = EVEN * self.config.search.epochs if again or "even_both" in named else 0
        seconds = (self._training(own.epochs) * count + self._training(short)) / self._at_once(count)
        seconds += self._start * (2 if short else 1)
        if self.config.derived and self.config.init == "inherited":  # those that are cut from it, one after the other
            repair = self.config.repair.student_epochs * self.images * (self.pace.teacher + self.pace.student_step)
            seconds += repair * (students - len(named) + again) + self._repair * again
        left = 1.0
        if self.folder is not None:
            records = self.folder.glob("retrain/*/seed_*/stage.json")
            left = max(0.0, 1.0 - sum(_done(path) for path in records) / count)
        words = f"{students} students from {own.seeds} seeds, {own.epochs} epochs each"
        return Work("retrain", words, seconds, left, WEIGHT * self.pace.params * count)


def _done(path: Path) -> bool:
    record: Mapping[str, Any] = read_json(path, ("done",))
    return bool(record["done"])
