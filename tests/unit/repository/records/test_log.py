from lago_images.repository.records.log import EventKind, events
from tests.support.builders import release


def test_each_record_is_an_event_with_the_previously_offered_release():
    first, second = release(1, "b1"), release(2, "b2")
    withdrawal = release(3, None, withdraws=2, reason="it does not boot")
    third = release(4, "b3")
    happened = events((first, second, withdrawal, third))
    assert [(event.kind, event.about) for event in happened] == [
        (EventKind.RELEASED, 1),
        (EventKind.RELEASED, 2),
        (EventKind.WITHDRAWN, 2),
        (EventKind.RELEASED, 4),
    ]
    assert [event.before for event in happened] == [None, first, second, first]
    assert happened[2].record.reason == "it does not boot"


def test_a_rollback_is_about_the_revision_whose_build_it_offers_again():
    first, second = release(1, "b1"), release(2, "b2")
    back = release(3, "b1", reason="back to revision 1: b2 is broken")
    [*_, event] = events((first, second, back))
    assert (event.kind, event.about, event.before) == (EventKind.ROLLED_BACK, 1, second)


def test_an_image_without_records_has_no_events():
    assert events(()) == ()
