"""The machine: device and precision, seeds, worker processes, the processes of torchrun, and the end by a signal."""
