"""Documents of any size as gzip, against the standard library's json."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_optimized_dicom.format import json_stream
from cloud_optimized_dicom.format.json_stream import dump_gzip, parse_object

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
documents = st.dictionaries(st.text(), values, max_size=6)


def chunks_of(text: str, size: int) -> list[str]:
    """Cut a text into pieces, empty ones between them."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return [piece for pair in zip(pieces, [""] * len(pieces), strict=True) for piece in pair]


@given(documents)
def test_dumps_as_json_does(document: dict[str, Any]) -> None:
    """The unpacked bytes are those of compact json.dumps, and the same each time."""
    document = json.loads(json.dumps(document).encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
    packed = dump_gzip(document, level=1)
    text = gzip.decompress(packed).decode("utf-8")
    assert text == json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    assert dump_gzip(document, level=1) == packed


@given(documents, st.integers(1, 40), st.sampled_from([None, 1]))
def test_parses_as_json_does(document: dict[str, Any], size: int, indent: int | None) -> None:
    """Whatever the pieces and the white space, the document is what json.loads says, in its order."""
    text = json.dumps(document, indent=indent)
    found = parse_object(chunks_of(text, size))
    assert found == document
    assert json.dumps(found) == json.dumps(document)


@given(documents, st.integers(1, 9), st.data())
def test_what_json_refuses_is_refused(document: dict[str, Any], size: int, data: st.DataObject) -> None:
    """A text with one character changed gives what json.loads gives, or an error where it gives one."""
    text = json.dumps(document)
    position = data.draw(st.integers(0, len(text) - 1))
    text = text[:position] + data.draw(st.sampled_from('{}[],:"0eE.x \\')) + text[position + 1 :]
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            parse_object(chunks_of(text, size))
        return
    if isinstance(expected, dict):
        assert parse_object(chunks_of(text, size)) == expected


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "null", "{", '{"a"', '{"a":', '{"a":1', '{"a":1,}', "{} {}", '{"a":NaN}']
)
def test_other_texts(text: str) -> None:
    """What is no single JSON object is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_object([text])


def test_large_documents_are_taken_apart_at_the_instances() -> None:
    """A document of thousands of records comes back equal through chunks that cut records and numbers anywhere."""
    records = {f"1.2.{n}": {"size": 10**n, "headers": {"start_byte": n}} for n in range(300)}
    document = {"study_uid": "1", "cod": {"instances": records, "tar": {"size": 5}}, "n": 12.5}
    text = gzip.decompress(dump_gzip(document, level=5)).decode()
    assert parse_object(chunks_of(text, 7)) == document
    assert json_stream.parse_object([text]) == document
