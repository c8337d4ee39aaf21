"""The function that hashes UIDs: how it is named, what it may return, and that its refusals tell no UID."""

from __future__ import annotations

import pickle
import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from cloud_optimized_dicom import Datastore, Hints, Instance
from cloud_optimized_dicom.errors import HashedUidsError, HintMismatchError, InvalidUidError
from cloud_optimized_dicom.uid_hashing import find_uid_hash, hash_key, hash_uid, load_uid_hash
from cloud_optimized_dicom.uids import SeriesKey
from tests.hashed.functions import KEYED, PSEUDONYM, Keyed, Table, is_told, pseudonym

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.conftest import Files


def test_a_function_is_given_itself_or_by_name() -> None:
    """A name is module:function, or module:object.method; None is no function."""
    assert load_uid_hash(pseudonym) is pseudonym
    assert load_uid_hash(PSEUDONYM) is pseudonym
    assert load_uid_hash("tests.hashed.functions:KEYED.pseudonym") == KEYED.pseudonym
    assert load_uid_hash("builtins:str") is str
    assert find_uid_hash(None) is None
    assert find_uid_hash(PSEUDONYM) is pseudonym


@pytest.mark.parametrize("name", ["", ":", "os", "os:", "os:nothing", "os:sep", "no.such.module:x", "..x:y"])
def test_a_name_of_no_function_is_refused(name: str, tmp_path: Path) -> None:
    """A name that leads to no function is told before anything is read or written."""
    with pytest.raises(ValueError, match="function"):
        load_uid_hash(name)
    with pytest.raises(ValueError, match="function"):
        Datastore(tmp_path / "store").ingest([tmp_path], uid_hash_func=name)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["KeyError", "ImportError", "ModuleNotFoundError"])
def test_a_module_that_fails_does_not_tell_its_secrets(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what a module raises while it is imported only the kind is told, in the text and by chained errors."""
    (tmp_path / f"broken_{kind}.py").write_text(f"raise {kind}('the secret')", encoding="ascii")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"raised {kind}") as caught:
        load_uid_hash(f"broken_{kind}:hashed")
    assert "the secret" not in "".join(traceback.format_exception(caught.value))
    assert f"broken_{kind}" not in sys.modules


def test_a_module_that_lacks_another_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which package is to be installed is said, be it the one that was asked for or one that it needs."""
    (tmp_path / "needing_pseudonyms.py").write_text("import nothing_of_that_name", encoding="ascii")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("needing_pseudonyms", "nothing_of_that_name"):
        with pytest.raises(ValueError, match="there is no module nothing_of_that_name"):
            load_uid_hash(f"{module}:hashed")


@pytest.mark.parametrize("bad", ["", "..", "1.2/3", "../1.2", "1" * 65, "a1b2", "1.2\n", None, 12, b"1.2"])
def test_what_is_no_uid_is_refused(bad: Any) -> None:
    """Whatever a function returns that cannot be a part of an object's name is an InvalidUidError."""
    with pytest.raises(InvalidUidError) as caught:
        hash_uid(lambda _uid: bad, "1.2.840", "a.dcm")
    assert "1.2.840" not in str(caught.value)
    with pytest.raises(InvalidUidError):
        Instance("a.dcm", hints=Hints(instance_uid="1.2"), uid_hash_func=lambda _uid: bad).hashed_instance_uid(
            trust_hints_if_available=True
        )


def test_a_function_that_refuses_tells_no_uid() -> None:
    """What a function raises is told by its kind; the UID is neither in the text nor in a chained error."""
    with pytest.raises(HashedUidsError, match="raised KeyError") as caught:
        hash_uid(Table([]), "1.2.840.99", "a.dcm")
    assert caught.value.uri == "a.dcm"
    assert "1.2.840.99" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_keys_are_hashed_part_by_part() -> None:
    """A series' key is that of its hashed UIDs, or without a function itself."""
    key = SeriesKey("1.2", "1.3")
    assert hash_key(pseudonym, key, "a.dcm") == SeriesKey(pseudonym("1.2"), pseudonym("1.3"))
    assert hash_key(None, key, "a.dcm") is key


def test_instances_are_equal_if_uids_and_functions_are(files: Files) -> None:
    """A bound method that is looked up twice is the same function, another one is not."""
    path = files.paths[0]
    assert Instance(path, uid_hash_func=KEYED.pseudonym) == Instance(path, uid_hash_func=KEYED.pseudonym)
    assert Instance(path, uid_hash_func=KEYED.pseudonym) != Instance(path, uid_hash_func=Keyed(b"other").pseudonym)
    assert Instance(path, uid_hash_func=pseudonym) != Instance(path)


def test_an_instance_tells_both_uids(files: Files) -> None:
    """An instance gives its UIDs and their hashes, hinted or read; it pickles with a function of a module."""
    uids = files.series.uids
    given = Instance(files.paths[0], uid_hash_func=pseudonym)
    hinted = Instance(
        "gone.dcm", hints=Hints(None, None, files.uids[0], uids.series, uids.study), uid_hash_func=pseudonym
    )
    for instance, trusting in ((given, False), (hinted, True), (pickle.loads(pickle.dumps(given)), False)):
        options = {"trust_hints_if_available": trusting}
        assert instance.instance_uid(**options) == files.uids[0]
        assert instance.hashed_instance_uid(**options) == pseudonym(files.uids[0])
        assert instance.hashed_series_uid(**options) == instance.get_series_uid(hashed=True, **options)
        assert instance.hashed_study_uid(**options) == pseudonym(uids.study)
        assert instance.get_study_uid(hashed=False, **options) == uids.study
        assert instance.is_hashed
    with pytest.raises(ValueError, match="uid_hash_func"):
        Instance(files.paths[0]).hashed_study_uid()


def test_a_wrong_hint_is_told_by_hashed_uids(files: Files) -> None:
    """Where an instance is hashed, the error about a hinted UID holds the hashes of both, hinted and found."""
    instance = Instance(files.paths[0], hints=Hints(series_uid="1.2.3"), uid_hash_func=pseudonym)
    with pytest.raises(HintMismatchError) as caught:
        instance.validate()
    error = caught.value
    assert (error.hinted, error.found) == (pseudonym("1.2.3"), pseudonym(files.series.uids.series))
    assert not is_told(files, str(error))
    assert error.__cause__ is None
    plain = Instance(files.paths[0], hints=Hints(series_uid="1.2.3"))
    with pytest.raises(HintMismatchError, match=r"1\.2\.3"):
        plain.validate()
