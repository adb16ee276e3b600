"""Statistics as pure functions: values in, values out.

Import the module that is needed (`from fairway.stats import rates`). This file stays empty, so
that a process which only assigns traffic loads `fairway.stats.assignment` and not numpy.
"""
