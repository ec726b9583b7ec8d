"""The list of tests: each a function with a time limit, run in a process of its own."""
TESTS = {}


class Skip(Exception):
    """Raised by a test that cannot run here; the reason is printed."""


def test(limit=60, short=True):
    """Registers a test. LIMIT: seconds at most. SHORT: part of `--short`."""
    def register(f):
        assert f.__name__ not in TESTS, f.__name__
        f.limit, f.short = limit, short
        TESTS[f.__name__] = f
        return f
    return register


def check(condition, *what):
    """An assertion that says what it saw."""
    if not condition:
        raise AssertionError(" ".join(map(str, what)))
