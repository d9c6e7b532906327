"""Device and precision, seeds, worker processes, torchrun, and stopping on a signal."""
