"""The teacher as a space: its residual blocks, found by tracing, can be narrowed or left out."""
