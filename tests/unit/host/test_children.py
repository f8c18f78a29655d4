import threading

import pytest

from lago_images.host.process import Children

HANGS = 300


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_end_of_a_run_ends_the_pauses_of_its_parts(level):
    run = Children()
    image = Children(run)
    groups = [run, image, Children(image)]
    ended, waiting = threading.Event(), threading.Event()

    def pause():
        waiting.set()
        with pytest.raises(KeyboardInterrupt):
            groups[level].pause(10 * HANGS)
        ended.set()

    threading.Thread(target=pause, daemon=True).start()
    assert waiting.wait(HANGS)
    run.end()
    assert ended.wait(HANGS)


def test_the_end_of_a_part_ends_neither_the_run_nor_its_other_parts():
    run = Children()
    one, other = Children(run), Children(run)
    one.end()
    with pytest.raises(KeyboardInterrupt):
        one.check()
    run.check()
    other.pause(0)
