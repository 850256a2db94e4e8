"""What `tools/benchmark.py` measures, one module each."""

import argparse


def at_least_one(text: str) -> int:
    """The whole number of an option that counts something; argparse says what is wrong with another."""
    return _whole_number(text, 1)


def none_or_more(text: str) -> int:
    """The same of an option that may count nothing."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    if not (text.isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)
