"""Claims held against the truth, with controls and intervals."""
