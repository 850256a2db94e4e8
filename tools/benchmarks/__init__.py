"""What `tools/benchmark.py` measures, one module each."""

import argparse


def at_least_one(text: str) -> int:
    """The whole number of an option that counts something; argparse says what is wrong with another."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
