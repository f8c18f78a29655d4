from dataclasses import replace

import pytest

from lago_images.storage.s3.etags import Dialect
from lago_images.storage.s3.verdict import Findings, Race, judge

CEPH20 = Findings(
    create_again=412,
    stale=412,
    fresh_quoted=200,
    absent=404,
    creations=(
        Race(rivals=(200, 412, 409), misfits=(404, 412)),
        Race(rivals=(412, 200, 0), misfits=(409, 500)),
    ),
    replacements=(Race(rivals=(412, 200, 409), misfits=(412, 412)),),
)


def test_a_store_with_conditional_writes_is_safe() -> None:
    assert judge(CEPH20).dialect is Dialect.QUOTED
    assert judge(CEPH20).is_safe


def test_a_store_that_needs_unquoted_etags_is_safe() -> None:
    raced = (Race(rivals=(500, 200, 412)),)
    ceph18 = replace(CEPH20, fresh_quoted=412, fresh_bare=200, creations=raced)
    assert judge(ceph18).dialect is Dialect.BARE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"create_again": 200}, "If-None-Match: * on an object that exists was answered 200"),
        ({"create_again": 501}, "answered 501: the store does not have it"),
        ({"stale": 200}, "If-Match with an outdated ETag was answered 200"),
        ({"stale": 501}, "If-Match with an outdated ETag was answered 501"),
        ({"stale": 400}, "answered 400 instead of 412"),
        ({"fresh_quoted": 412, "fresh_bare": 412}, "own ETag was answered 412 instead of 200"),
        ({"fresh_quoted": 412, "fresh_bare": 400}, "answered 400 and 412 instead of 200"),
        ({"absent": 200}, "If-Match on a missing object was answered 200"),
        (
            {"creations": (Race(rivals=(200, 412)), Race(rivals=(200, 200)))},
            "2 of 2 simultaneous writers created the same",
        ),
        (
            {"replacements": (Race(rivals=(200, 200, 412)),)},
            "2 of 3 simultaneous writers replaced the same",
        ),
        (
            {"creations": (Race(rivals=(200, 412), misfits=(412, 200)),)},
            "If-Match on a missing object that others were creating was answered 200",
        ),
        (
            {"replacements": (Race(rivals=(412, 412), misfits=(200, 412)),)},
            "If-None-Match: * on an object that others were replacing was answered 200",
        ),
        (
            {"replacements": (Race(rivals=(200, 500), keeps_winner=False),)},
            "replaced the same version of an object one was answered 200, and another's bytes",
        ),
    ],
)
def test_every_violation_is_reported(change: dict[str, object], reason: str) -> None:
    verdict = judge(replace(CEPH20, **change))  # type: ignore[arg-type]
    assert not verdict.is_safe
    assert verdict.dialect is Dialect.PLAIN
    assert any(reason in said for said in verdict.reasons)
    assert len(verdict.reasons) == 1
