"""Numbers that several packages share."""

MIN_ARCHS = 8  # with fewer archs a rank correlation means nothing
