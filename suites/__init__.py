"""The suites that ship with qlorabench, as package data."""
