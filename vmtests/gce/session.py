"""A run on Compute Engine: what it makes is in the ledger before it is made, and gone when it ends.

with Session(settings) as session:
    image = make_image(session, …)
"""

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vmtests import progress
from vmtests.errors import VmtestsError
from vmtests.gce.cloud import Cloud, Pace
from vmtests.gce.errors import CloudError, ExistsError
from vmtests.gce.ledger import Head, Ledger
from vmtests.gce.remove import remove
from vmtests.gce.settings import Settings
from vmtests.gce.share import Share
from vmtests.gce.things import LIFETIME, Brand, Thing


class LeftBehindError(CloudError):
    """Something could not be removed; the ledger knows it."""

    advice = "vmtests gce gc removes what is left"


class Session:
    """A run; a context manager, which removes what was made in reverse order, however it is left.

    What cannot be removed stays in the ledger, and is raised as LeftBehindError.
    """

    def __init__(self, settings: Settings, *, lifetime: float = LIFETIME, pace: Pace | None = None) -> None:
        self.settings = settings
        self.cloud = Cloud(settings, pace)
        self.brand = Brand.new(lifetime)
        self._stack = contextlib.ExitStack()
        self._shares: dict[Thing, Share] = {}

    def __enter__(self) -> Self:
        head = Head(brand=self.brand, endpoint=self.settings.endpoint)
        self._ledger = self._stack.enter_context(Ledger.new(head))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            left = self._clean()
        if not left:
            return
        code = left[0].code if isinstance(left[0], CloudError) else ""
        message = LeftBehindError(f"not removed: {left[0].message}", code=code)
        if error is None:
            raise message
        # What the run ended with is told all the same.
        progress.stderr().print(f"vmtests: {message}")

    def make(self, thing: Thing, call: Callable[[], None]) -> None:
        """Have `call` make a thing. When it fails, what there may be of it is removed at once."""
        if thing in self._ledger.things:
            raise ExistsError(f"the {thing} was made by this run already")
        self._ledger.will(thing)
        try:
            call()
        except ExistsError:
            self._ledger.gone(thing)  # somebody else's
            raise
        except VmtestsError:
            # What cannot be removed now is tried again at the end.
            with contextlib.suppress(VmtestsError):
                self.remove(thing)
            raise
        self._ledger.made(thing)

    def share(self, share: Share, make: Callable[[], Thing]) -> Thing:
        """Return a thing that the processes of a run have in common; the first has `make` make it, as `Session.make`.

        Each has it in its ledger, and whoever is the last to end removes it.
        """
        with share.turn():
            if (thing := share.find()) is None:
                thing = make()
            else:
                self._ledger.will(thing)
                self._ledger.made(thing)
            share.hold(thing)
        self._shares[thing] = share
        self._stack.callback(share.close)
        return thing

    def remove(self, thing: Thing) -> None:
        """Remove a thing that was made, or may have been; raises CloudError."""
        remove(self.cloud, thing, unsure=self._ledger.unsure(thing))
        self._ledger.gone(thing)

    def keep(self, thing: Thing) -> None:
        """Leave a thing to whoever ordered it; its labels say when it may be removed."""
        self._ledger.gone(thing)

    def _clean(self) -> list[VmtestsError]:
        left: list[VmtestsError] = []
        if not self._ledger.things:
            return left
        with progress.step("removing what was made on Compute Engine") as running:
            for thing in reversed(self._ledger.things):
                running.note(str(thing))
                try:
                    self._leave(thing)
                except VmtestsError as error:  # a full disk, say, on which the ledger is: the others go all the same
                    left.append(error)
        return left

    def _leave(self, thing: Thing) -> None:
        if (share := self._shares.get(thing)) is None:
            self.remove(thing)
            return
        with share.turn():
            if share.leave():
                self.remove(thing)
            else:
                self._ledger.gone(thing)
