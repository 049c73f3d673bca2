"""Speed and size, measured against a bare loop of the same work; not part of the tests."""
