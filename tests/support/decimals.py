#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Random numbers as text with the bits of the double that Python reads.

usage: decimals.py SEED COUNT

Writes lines "TEXT BITS": the spelling, and the double as 16 hex digits or
"range" where it is beyond the largest. Python's float() is correctly rounded,
and an independent judge of our own reader.
"""
import math
import random
import struct
import sys


def digits(rng, n):
    return "".join(rng.choice("0123456789") for _ in range(n))


def any_double(rng):
    while True:
        v = struct.unpack("<d", rng.getrandbits(64).to_bytes(8, "little"))[0]
        if math.isfinite(v):
            return v


def near_half(rng):
    """A decimal at, just above or just below the middle of two doubles."""
    v = abs(any_double(rng)) if rng.random() < 0.5 else rng.random() * 1e6
    num, den = v.as_integer_ratio()
    up, up_den = math.nextafter(v, math.inf).as_integer_ratio() \
        if v < 1e308 else (num, den)
    scale = max(den, up_den)
    mid = num * (scale // den) + up * (scale // up_den)
    places = (2 * scale).bit_length() - 1
    text = str(mid * 5 ** places)
    if places > 0:
        text = text.rjust(places + 1, "0")
        text = text[:-places] + "." + text[-places:]
    cut = rng.choice([text, text + "0" * 30 + "1", text[:-1], text[:20]])
    return cut + ("." if "." not in cut else "") + digits(rng, rng.choice([0, 2]))


def spelling(rng):
    kind = rng.randrange(10)
    if kind == 0:
        return repr(any_double(rng))
    if kind == 1:
        return repr(rng.random() * 10 ** rng.randrange(-3, 7))
    if kind == 2:
        return repr(rng.randrange(10 ** rng.randrange(1, 22)))
    if kind == 3:
        return f"{rng.random() * 1000:.{rng.randrange(0, 25)}f}"
    if kind == 4:
        return f"{any_double(rng):.{rng.randrange(0, 30)}e}"
    if kind == 5:
        return digits(rng, rng.randrange(1, 25)) + "." + \
            digits(rng, rng.randrange(0, 25))
    if kind == 6:
        return digits(rng, rng.randrange(1, 22)) + "e" + \
            rng.choice(["", "+", "-"]) + str(rng.randrange(0, 345))
    if kind == 7:
        return "." + digits(rng, rng.randrange(1, 22))
    if kind == 8 and rng.random() < 0.05:
        return f"{any_double(rng):.{rng.randrange(200, 1200)}f}"
    if kind == 9 and rng.random() < 0.3:
        return near_half(rng)
    return str(rng.randrange(10 ** 9) / 1000)


def main():
    rng = random.Random(int(sys.argv[1]))
    out = []
    for _ in range(int(sys.argv[2])):
        text = rng.choice(["", "", "", "-", "+"]) + spelling(rng).lstrip("-")
        v = float(text)
        bits = "range" if math.isinf(v) else struct.pack(">d", v).hex()
        out.append(f"{text} {bits}\n")
    sys.stdout.writelines(out)


if __name__ == "__main__":
    main()
