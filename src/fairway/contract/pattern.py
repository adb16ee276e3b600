"""Regular expressions that mean the same to Python, which reads requests, and to Polars, which reads tables."""

import re
import warnings

_MOST = 500  # characters
_FOREIGN = re.compile(r"\(\?(?!:)|\\[1-9ZGk]|[*+?}]\+")
_REPEAT = re.compile(r"[*+]|\{[0-9]+,[0-9]*\}")


def unfit(pattern: str) -> str:
    """What is wrong with a pattern, as the end of a sentence; "" when it may be used.

    Look-arounds, back references, flags and possessive repeats are not in Polars' regular expressions; a repeat of
    repeats such as (a+)+ would let one caller's text keep a gateway busy for hours.

    >>> unfit("[A-Z]{2}[0-9]+"), unfit("(a+)+")
    ('', 'repeats a repeat, which can take hours on a short text; write it without one')
    """
    if len(pattern) > _MOST:
        return f"has {len(pattern):,} characters; at most {_MOST} are allowed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # sets in sets: Python warns, Polars reads them otherwise
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError, FutureWarning) as exc:
        return f"is no regular expression: {exc}"
    plain = re.sub(r"\\[^1-9ZGk]", "_", pattern)
    found = _FOREIGN.search(re.sub(r"\[\^?\]?[^\]]*\]", "_", plain))
    if found:
        return f'uses "{found[0]}", which tables and requests would not read alike'
    if _nested(plain):
        return "repeats a repeat, which can take hours on a short text; write it without one"
    return ""


def _nested(plain: str) -> bool:
    """Whether a group that repeats something is repeated itself. plain: without escapes."""
    text = re.sub(r"\[\^?\]?[^\]]*\]", "_", plain)
    repeats = [False]
    place = 0
    while place < len(text):
        char = text[place]
        if char == "(":
            repeats.append(False)
        elif char == ")" and len(repeats) > 1:
            inner = repeats.pop()
            repeated = _REPEAT.match(text, place + 1) is not None
            if inner and repeated:
                return True
            repeats[-1] = repeats[-1] or inner or repeated
        elif _REPEAT.match(text, place):
            repeats[-1] = True
        place += 1
    return False
