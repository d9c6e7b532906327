"""How well scores rank architectures: trained ground truth against scores, with statistics."""
