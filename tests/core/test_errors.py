"""Errors cross process borders, and each has its code."""

import pickle

import pytest

from vismae.core import errors


def kinds() -> list[type[errors.VismaeError]]:
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.VismaeError)
    ]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_errors_survive_pickling(kind: type[errors.VismaeError]) -> None:
    if kind is errors.UnreadableFileError:
        error = errors.UnreadableFileError("no-pixels", "a.dcm: no pixels.")
    else:
        error = kind("a sentence.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert getattr(copy, "reason", None) == getattr(error, "reason", None)


def test_codes_are_distinct() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(set(codes)) == len(codes)


def test_wrong_settings_have_their_own_exit_status() -> None:
    assert errors.SettingError("x").exit_status == 2
    assert errors.DataError("x").exit_status == 1
