"""Saving and loading students: the student folder."""

from nas_kd.export.student import load_student, save_student

__all__ = ["load_student", "save_student"]
