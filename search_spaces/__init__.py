"""Search spaces that nas_kd finds by name; each module exposes SPACE."""
