"""Suites: schema, loading, plan."""
