"""Measurements that are too slow or too noisy for tests; each writes its part of results.md."""
