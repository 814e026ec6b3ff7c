"""Measures the service side by side with what people would write instead; see ``make bench``.

``make bench BENCH_OPTIONS=--quick`` tries it out in a few minutes.
``make bench BENCH_OPTIONS='--row 50 --baseline COMMAND'`` measures only the row of 50 cases, in two
minutes, also for the command ``medmitra-cases`` of another checkout.
"""
