"""One file a task; `task_of` chooses by what the labels of a data set are."""

from nas_kd.distill.tasks.classification import Classification
from nas_kd.distill.tasks.multilabel import MultiLabel
from nas_kd.distill.tasks.of_data import task_of, unscaled
from nas_kd.distill.tasks.regression import Regression

__all__ = ["Classification", "MultiLabel", "Regression", "task_of", "unscaled"]
