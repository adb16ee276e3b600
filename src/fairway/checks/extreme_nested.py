"""Extreme values of a vector and of an image, as requests carry them: arrays of numbers, and base64 text."""

import base64
import json

import numpy as np

from fairway.contract.columns import Column

Raw = tuple[str, str, str]  # (what it is, JSON text of the value, what must happen)


def vectors(column: Column, rng: np.random.Generator) -> list[Raw]:
    """A vector has exactly its declared length, and every number is finite and within the declared range."""
    length = column.length or 1
    ends = zip(column.range or (None, None), (-np.inf, np.inf), strict=True)
    low, high = (float(none if end is None else end) for end, none in ends)

    def fits(*values: float) -> str:
        return "ok" if all(low <= value <= high for value in values) else "reject"

    filled = {"zeros": 0.0, "ones": 1.0, "minus ones": -1.0, "negative zero": -0.0, "tiny": 1e-308, "large": 1e9}
    found = [(name, json.dumps([value] * length), fits(value)) for name, value in filled.items()]
    drawn = rng.normal(size=length).round(6).tolist()
    found.append(("drawn", json.dumps(drawn), fits(*drawn)))
    # Squares of such numbers leave the doubles: a model may refuse them, and must not answer NaN.
    found.append(("the largest double", json.dumps([1.7976931348623157e308] * length), "either"))
    found.append(("whole numbers", json.dumps([1] * length), fits(1.0)))
    plain = ["0.5"] * length
    for name, raw in {
        "one too few": plain[1:], "one too many": [*plain, "0.5"], "a null inside": ["null", *plain[1:]],
        "a text inside": ['"1"', *plain[1:]], "true inside": ["true", *plain[1:]],
        "1e999 inside": ["1e999", *plain[1:]], "NaN inside": ["NaN", *plain[1:]],
        "an array inside": ["[0.5]", *plain[1:]],
    }.items():  # fmt: skip
        found.append((name, f"[{','.join(raw)}]", "reject"))
    for name, text in {"empty": "[]", "a number": "1", "a text": '"[1]"', "an object": "{}", "true": "true"}.items():
        found.append((name, text, "reject"))
    return found


def images(column: Column, rng: np.random.Generator) -> list[Raw]:
    """Bytes in base64, no longer than declared. Whether a picture can be made of them is the model's to say."""
    drawn = rng.integers(0, 256, 64, dtype=np.uint8).tobytes()
    kinds = {
        "PNG": b"\x89PNG\r\n\x1a\n" + drawn, "JPEG": b"\xff\xd8\xff\xe0" + drawn, "drawn bytes": drawn,
        "no bytes": b"", "a page": b"<script>alert(1)</script>", "a pickle": b"\x80\x04N.",
    }  # fmt: skip
    # A model that can't decode them may refuse; it must not answer anything that is no answer.
    found = [(name, json.dumps(base64.b64encode(data).decode()), "either") for name, data in kinds.items()]
    longer = base64.b64encode(bytes(column.longest + 1)).decode()
    if len(longer) < 8 * 1024 * 1024:  # beyond, the whole body is refused first
        found.append(("longer than declared", json.dumps(longer), "reject"))
    for name, raw in {
        "no base64": '"@@@@"', "half a group": '"abc"', "a number": "1", "an array": "[1,2]", "true": "true",
    }.items():  # fmt: skip
        found.append((name, raw, "reject"))
    return found
