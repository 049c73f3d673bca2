"""Adversaries: what they may see (capabilities, threat models, views) and what they say (attacks, claims)."""
