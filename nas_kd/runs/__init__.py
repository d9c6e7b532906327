"""The run folder: its files, stages, locks, workers, progress and status."""
