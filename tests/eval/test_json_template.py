"""Objects read by the template of the first one, against Python's json, which knows no templates."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import number_parser
from eval.json_parser import HAS_AREA, HAS_BOX, HAS_SCORE, parse_records
from eval.json_template import parse_alike, template_of
from eval.words import leading_digits

# Many objects: a template is used only where enough text follows for eight bytes at a time.
COUNT = 300
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1),
    st.integers(-(10**9), 10**9),
    st.sampled_from(
        [0, -0.0, 1e-7, 123456789.5, 0.1234567890123456789, 1 / 3, 5e-324, 0.00001234567890123456]
    ),
)
exotic: list[Any] = [
    {"note": "}, {", "score": 1}, {"iscrowd": 1}, {"ignore": 0}, {"ignore": 1}, {"id": 10**14}, {"image_id": -3},
    {"extra": [1, {"a": 2}]}, {"file_name": "3, 4]"},
]  # fmt: skip


def expected_of(rows: list[dict[str, Any]]) -> tuple[list[Any], ...]:
    whole = [[row.get(key, 0) for row in rows] for key in ("image_id", "category_id", "iscrowd")]
    return (*whole, [row["bbox"] for row in rows])


@settings(max_examples=40, deadline=None)
@given(
    some=st.lists(st.tuples(numbers, numbers, numbers, numbers, numbers), min_size=1, max_size=12),
    keys=st.permutations(["image_id", "category_id", "bbox", "score", "area", "iscrowd", "ignore", "id"]),
    without=st.sets(st.sampled_from(["score", "area", "iscrowd", "ignore", "id"])),
    separators=st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", " : ")]),
    indent=st.sampled_from([None, 1]),
    strange=st.dictionaries(st.integers(0, COUNT - 1), st.sampled_from(exotic), max_size=12),
)
def test_equals_json(
    some: list[tuple[float, ...]], keys: list[str], without: set[str], separators: tuple[str, str],
    indent: int | None, strange: dict[int, dict[str, Any]],
) -> None:  # fmt: skip
    rows = []
    for n in range(COUNT):
        # Numbers that Python has to round may be few: a file full of them is left to its json altogether.
        values = some[n // 25 % len(some)] if n % 25 == 0 else tuple(np.round(n * 0.37 + np.arange(5) / 3, 2))
        full = {
            "image_id": 10 ** (n % 9) + n, "category_id": n, "bbox": list(values[:4]), "score": values[4],
            "area": values[0], "iscrowd": n % 2, "ignore": n % 3, "id": n,
        }  # fmt: skip
        rows.append({key: full[key] for key in keys if key not in without} | strange.get(n, {}))
    text = json.dumps(rows, indent=indent, separators=separators).encode()
    records = parse_records(np.frombuffer(text, np.uint8), 0)
    assert records is not None and records.end == len(text) and len(records.scores) == len(rows)
    image, category, crowd, boxes = expected_of(rows)
    np.testing.assert_array_equal(records.whole[1], image)
    np.testing.assert_array_equal(records.whole[2], category)
    np.testing.assert_array_equal(records.whole[3], crowd)
    np.testing.assert_array_equal(records.ignore, [row.get("ignore") == 1 for row in rows])
    assert (records.present & HAS_BOX).all()
    assert records.boxes.tolist() == np.array(boxes, np.float64).tolist()
    assert np.signbit(records.boxes).tolist() == np.signbit(np.array(boxes, np.float64)).tolist()
    for array, key, flag in ((records.scores, "score", HAS_SCORE), (records.areas, "area", HAS_AREA)):
        has = np.array([key in row for row in rows])
        np.testing.assert_array_equal((records.present & flag) != 0, has)
        assert array[has].tolist() == [float(row[key]) for row in rows if key in row]


@pytest.mark.parametrize("bad", ["1.2.3", "--1", "1e", "nan", "0x10", "", "1 2"])
def test_what_is_no_number_is_not_read(bad: str) -> None:
    good = '{"image_id": 1, "score": 0.5}'
    rows = [good] * COUNT
    rows[7] = good.replace("0.5", bad)
    for text in ("[" + ", ".join(rows) + "]", "[" + ", ".join([*rows, ""]) + "]"):
        assert parse_records(np.frombuffer(text.encode(), np.uint8), 0) is None


@pytest.mark.parametrize(
    "start", ["[", "{}, {}", '{"a": "x"}, {', '{"bbox": 3}, {', '{"bbox": [1, 2, 3]}, {', '{"score": 1}]']
)
def test_no_template(start: str) -> None:
    assert template_of(np.frombuffer(start.encode(), np.uint8), 0) is None


def test_the_template_is_what_reads_a_usual_file(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"image_id": 12, "category_id": 3, "bbox": [1.5, 2, 3, 4.25], "score": 0.1234567890123456}
    text = np.frombuffer(json.dumps([row] * COUNT).encode(), np.uint8)
    template = template_of(text, 1)
    assert template is not None and template.targets.tolist() == [1, 2, 7, 8, 9, 10, 5]
    whole, boxes = np.empty((5, COUNT), np.int64), np.empty((COUNT, 4))
    scores, areas, present = np.empty(COUNT), np.empty(COUNT), np.empty(COUNT, np.uint8)
    stop = len(text)
    row_count, at = parse_alike(text, 1, stop, stop, *template, whole, boxes, scores, areas, present, 0)
    assert row_count > COUNT // 2 and text[at] == ord("{")
    assert (scores[:row_count] == row["score"]).all() and (boxes[:row_count] == row["bbox"]).all()


@settings(max_examples=300, deadline=None)
@given(
    word=st.binary(min_size=8, max_size=8)
    | st.text("0123456789.,:/e", min_size=8, max_size=8).map(str.encode)
)
def test_leading_digits(word: bytes) -> None:
    count = next((n for n in range(8) if not 48 <= word[n] <= 57), 8)
    found = leading_digits(np.uint64(int.from_bytes(word, "little")))
    assert found == (int(word[:count] or b"0"), count)


@settings(max_examples=300, deadline=None)
@given(number=numbers | st.from_regex(r"-?[0-9]{1,9}\.[0-9]{0,26}", fullmatch=True))
def test_plain_numbers_equal_float(number: float | str) -> None:
    written = number if isinstance(number, str) else repr(number)
    text = np.frombuffer(written.encode() + b"," + b"7" * number_parser.PLAIN_BYTES, np.uint8)
    value, end, status = number_parser.parse_plain_number(text, 0)
    if status == number_parser.OK:
        assert end == len(written)
        assert np.float64(value).tobytes() == np.float64(float(written)).tobytes()
