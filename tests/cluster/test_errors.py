"""The errors of a cluster: what each is besides, and that it can be pickled."""

from __future__ import annotations

import errno
import pickle

import pytest

import muxado
from muxado.cluster import errors
from muxado.cluster.directory import Place, Route

ROUTE = Route(Place("node-1", "10.0.0.1:4443"), 3, "key")

ERRORS: list[tuple[errors.ClusterError, type[Exception], int | None]] = [
    (errors.DirectoryAway("no answer"), ConnectionError, errno.EAGAIN),
    (errors.NameTaken("it is another's"), PermissionError, errno.EACCES),
    (errors.Superseded("db", ROUTE), muxado.MuxadoError, None),
    (errors.NameUnknown("no such name"), LookupError, None),
    (errors.NameAway("it has just gone"), ConnectionError, None),
    (errors.Denied("not you", 404), PermissionError, None),
    (errors.Refused("not here"), PermissionError, None),
    (errors.HeaderError("no header"), ValueError, None),
]


@pytest.mark.parametrize(
    ("error", "kind", "number"), ERRORS, ids=lambda value: type(value).__name__
)
def test_each_is_one_of_muxados_and_of_pythons(
    error: errors.ClusterError, kind: type[Exception], number: int | None
) -> None:
    assert isinstance(error, errors.ClusterError)
    assert isinstance(error, muxado.MuxadoError)
    assert isinstance(error, kind)
    if number is not None:
        assert getattr(error, "errno") == number  # noqa: B009


@pytest.mark.parametrize(
    ("error", "kind", "number"), ERRORS, ids=lambda value: type(value).__name__
)
def test_each_can_be_pickled(
    error: errors.ClusterError, kind: type[Exception], number: int | None
) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_every_error_is_looked_at() -> None:
    named = {getattr(errors, name) for name in errors.__all__} - {errors.ClusterError}
    assert {type(error) for error, _, _ in ERRORS} == named
