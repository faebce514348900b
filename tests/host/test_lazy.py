"""What is made once is made once, however many threads ask."""

import threading

from vmtests.host.lazy import lazy


class Thing:
    """Something with a part that takes time to make."""

    def __init__(self) -> None:
        self.made = 0
        self.asked = threading.Barrier(8)

    @lazy
    def part(self) -> object:
        """The part."""
        self.made += 1
        started.wait(0.05)
        return object()


started = threading.Event()


def test_made_once_for_all_threads() -> None:
    """Eight threads that ask at the same time get one and the same."""
    thing, got = Thing(), []

    def ask() -> None:
        thing.asked.wait()
        got.append(thing.part)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (thing.made, len(set(map(id, got)))) == (1, 1)
    assert Thing.part.__doc__ == "The part."
