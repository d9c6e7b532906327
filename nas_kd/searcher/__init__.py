"""The search for an architecture within a budget: engines, trials, refinement and the last word."""
