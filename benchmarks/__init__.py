"""Measures the service side by side with what people would write instead; see ``make bench``.

``make bench BENCH_OPTIONS=--quick`` tries it out in a few minutes.
"""
