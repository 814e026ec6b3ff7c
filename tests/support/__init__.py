"""Helpers that the tests share: data, processes, browsers, and servers that fail on demand."""
