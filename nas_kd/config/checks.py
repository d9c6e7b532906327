"""Numbers that several rooms agree on."""

LEAST = 8  # archs below which a rank correlation says nothing
