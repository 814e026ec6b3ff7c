"""What ends a part of the benchmark."""


class BenchmarkError(Exception):
    """Something needed is missing, or a server did not do what it should; the message is for people."""
