"""How well scores rank architectures: scores against a trained ground truth, with statistics."""
