"""The compiled parsers against Python's own float and json, on random and on nasty text."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eval import coco, json_parser, text_parser
from eval.json_parser import parse_records, skip_value
from eval.number_parser import ASK_PYTHON, MALFORMED, OK, parse_integer, parse_number
from eval.text_parser import parse_rows


def as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


digits = st.text("0123456789", max_size=25)
exponents = st.one_of(
    st.just(""), st.integers(-350, 350).map(lambda e: f"e{e}"), st.integers(0, 30).map(lambda e: f"E+{e}")
)
numbers = st.tuples(
    st.sampled_from(["", "-", "+"]), digits, st.one_of(st.just(""), digits.map(lambda d: "." + d)), exponents
).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(numbers, st.floats(allow_nan=False, allow_infinity=False).map(repr)))
@example("9007199254740993")  # halfway between two doubles
@example("9007199254740992.9999999999999999")
@example("0.1000000000000000055511151231257827021181583404541015625")
@example("1e23")
@example("123456789012345678901234567890")
@example("0.000000000000000000000000000000123456789")
@example("17976931348623157" + "0" * 292)
@example("17976931348623158" + "0" * 292 + ".0")
def test_numbers_are_those_of_python_to_the_last_bit(text: str) -> None:
    value, end, status = parse_number(as_bytes(text), 0, len(text))
    try:
        expected = float(text)
    except ValueError:
        assert status == MALFORMED or end < len(text)
        return
    assert status in (OK, ASK_PYTHON) and end == len(text)
    if status == OK:
        assert value == expected and np.signbit(value) == np.signbit(expected)


def test_python_is_asked_rarely() -> None:
    rng = random.Random(0)
    texts = [repr(rng.random()) for _ in range(10000)] + [f"{rng.uniform(0, 500):.6f}" for _ in range(10000)]
    parsed = [parse_number(as_bytes(text), 0, len(text)) for text in texts]
    asked = sum(status == ASK_PYTHON for _, _, status in parsed)
    assert asked < 50
    equal = [value == float(text) for text, (value, _, _) in zip(texts, parsed, strict=True)]
    assert sum(equal) >= 20000 - asked


@pytest.mark.parametrize("text", ["", "-", ".", "e5", "nan", "inf", "-.e1", "1e", "abc"])
def test_words_are_no_numbers(text: str) -> None:
    assert parse_number(as_bytes(text), 0, len(text))[2] == MALFORMED


@settings(max_examples=200, deadline=None)
@given(value=st.integers(-(10**18) + 1, 10**18 - 1))
def test_integers(value: int) -> None:
    assert parse_integer(as_bytes(str(value)), 0, len(str(value))) == (value, len(str(value)), True)


def test_integers_that_do_not_fit_are_not_found() -> None:
    assert not parse_integer(as_bytes("1" * 19), 0, 19)[2]


rows = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 300), *[st.floats(-1e6, 1e6, allow_subnormal=False)] * 5),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(
    rows=rows,
    space=st.sampled_from([" ", "\t", "  "]),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
    last=st.booleans(),
)
def test_lines(rows: list[tuple], space: str, end: str, last: bool) -> None:
    text = end.join(space.join(map(repr, row)) for row in rows) + (end if last else "")
    parsed = parse_rows(as_bytes(text))
    assert parsed.bad_line == -1
    assert parsed.image_index.tolist() == [row[0] for row in rows]
    assert parsed.class_id.tolist() == [row[1] for row in rows]
    assert parsed.scores.tolist() == [row[2] for row in rows]
    assert parsed.boxes.tolist() == [list(row[3:]) for row in rows]


def test_lines_in_chunks_are_those_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    lines = []
    for number in range(3000):
        lines.append(f"{number} {rng.randrange(200)} {rng.random()} 1 2 {rng.random()} 4")
        if rng.random() < 0.1:
            lines.append("  ")
    text = as_bytes("\n".join(lines))
    whole = parse_rows(text)
    monkeypatch.setattr(text_parser, "_CHUNK_BYTES", 5000)
    parts = parse_rows(text)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(parts.scores) == 3000


def test_numbers_that_python_rounds_may_be_many() -> None:
    for count in (10, 1000):
        text = "\n".join(f"{n} 1 {n + 1}e-200 1e-99 2e-99 3e-99 4e-99" for n in range(count))
        parsed = parse_rows(as_bytes(text))
        assert parsed.bad_line == -1
        assert parsed.scores.tolist() == [float(f"{n + 1}e-200") for n in range(count)]
        assert parsed.boxes[-1].tolist() == [1e-99, 2e-99, 3e-99, 4e-99]


@pytest.mark.parametrize(
    "line",
    [
        "1 2 0.5 1 2 3",
        "1 2 0.5 1 2 3 4 5",
        "1 2 nan 1 2 3 4",
        "1.5 2 0.5 1 2 3 4",
        "1 2 0.5x 1 2 3 4",
        "1,2,0.5,1,2,3,4",
    ],
)
def test_the_first_bad_line_is_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = "1 2 0.5 1 2 3 4\n"
    for before in (0, 3, 2000):
        text = good * before + line + "\n" + good * 2000 + line
        assert parse_rows(as_bytes(text)).bad_line == len(good) * before
        with monkeypatch.context() as patch:
            patch.setattr(text_parser, "_CHUNK_BYTES", 4000)
            assert parse_rows(as_bytes(text)).bad_line == len(good) * before


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text('ab"\\{}[],: é')),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text('k"\\}', max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=json_values, indent=st.sampled_from([None, 1]))
def test_values_are_skipped_whole(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert skip_value(as_bytes(text + ","), 0, len(text.encode()) + 1) == len(text.encode())


records = st.lists(
    st.fixed_dictionaries(
        {
            "image_id": st.integers(0, 10**9),
            "category_id": st.integers(0, 100),
            "bbox": st.lists(st.floats(-1e5, 1e5), min_size=4, max_size=4),
        },
        optional={
            "score": st.floats(-10, 10),
            "area": st.floats(0, 1e9),
            "iscrowd": st.integers(0, 1),
            "ignore": st.integers(0, 2),
            "id": st.integers(0, 10**12),
            "segmentation": json_values,
            "boxy": json_values,
            "areax": json_values,
        },
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(rows=records, indent=st.sampled_from([None, 0, 2]), compact=st.booleans())
def test_records(rows: list[dict], indent: int | None, compact: bool) -> None:
    text = json.dumps(rows, indent=indent, separators=(",", ":") if compact else None)
    parsed = parse_records(as_bytes(text), 0)
    assert parsed is not None and parsed.end == len(text.encode())
    assert_records(parsed, rows)


def assert_records(parsed: json_parser.Records, rows: list[dict]) -> None:
    assert parsed.boxes.tolist() == [row["bbox"] for row in rows]
    for column, name in enumerate(("id", "image_id", "category_id", "iscrowd")):
        for value, flags, row in zip(parsed.whole[column].tolist(), parsed.present, rows, strict=True):
            if name != "iscrowd":
                assert bool(flags & (1 << column)) == (name in row)
            if name in row or name == "iscrowd":
                assert value == row.get(name, 0)
    assert parsed.ignore.tolist() == [row.get("ignore") == 1 for row in rows]
    for values, flag, name in ((parsed.scores, 16, "score"), (parsed.areas, 32, "area")):
        for value, flags, row in zip(values.tolist(), parsed.present, rows, strict=True):
            assert bool(flags & flag) == (name in row)
            if name in row:
                assert value == row[name]


def test_records_in_chunks_even_where_strings_look_like_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"image_id": n, "category_id": 1, "bbox": [n, 2.5, 3, 4], "score": 1 / (n + 1), "note": "}, {"}
        | ({"parts": [{"a": 1}, {"b": {}}]} if n % 3 == 0 else {})
        for n in range(150)
    ]
    monkeypatch.setattr(json_parser, "_CHUNK_BYTES", 300)
    for chosen in (rows, [{k: v for k, v in row.items() if k != "note"} for row in rows]):
        parsed = parse_records(as_bytes(json.dumps(chosen)), 0)
        assert parsed is not None
        assert_records(parsed, chosen)


@pytest.mark.parametrize(
    "text",
    ["[", "[{]", "[{}", '[{"image_id": 1.5}]', '[{"bbox": [1, 2, 3]}]', '[{"score": null}]', "[1]",
     '[{"a": 1,}]', '[{"id": 1},]', '[{"id" 1}]', '[{"bbox": 3}]', '[{"\\u0069d": 1}]'],
)  # fmt: skip
def test_other_layouts_are_left_to_python(text: str) -> None:
    assert parse_records(as_bytes(text), 0) is None


def test_python_reads_what_the_compiled_parser_leaves(tmp_path: Path) -> None:
    plain = [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5, "ignore": 1}]
    odd = '[{"\\u0069mage_id": 1.0, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5, "ignore": true}]'
    contents = {
        "a.json": json.dumps(plain).encode(),
        "b.json": odd.encode(),
        "c.json.gz": gzip.compress(odd.encode()),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert_records(coco.read_file(tmp_path / name).records, plain)
