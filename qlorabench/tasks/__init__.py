"""Backbones, data sets, partitions: what a federation trains on."""
