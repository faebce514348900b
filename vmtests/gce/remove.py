"""Removing things by kind; what is not there any more counts as removed."""

import time

from vmtests.gce.cloud import Cloud
from vmtests.gce.errors import NotFoundError
from vmtests.gce.things import Kind, Thing


def remove(cloud: Cloud, thing: Thing, *, unsure: bool = False) -> bool:
    """Remove a thing and return whether it was there; raises CloudError.

    One that is `unsure` may still come: its absence is believed after `Pace.grace`.
    """
    deadline = time.monotonic() + (cloud.pace.grace if unsure else 0.0)
    while True:
        try:
            _delete(cloud, thing)
        except NotFoundError:
            if time.monotonic() + cloud.pace.poll > deadline:
                return False
            time.sleep(cloud.pace.poll)
        else:
            return True


def _delete(cloud: Cloud, thing: Thing) -> None:
    what = f"removing the {thing}"
    where = {"project": thing.project, "zone": thing.place}
    match thing.kind:
        case Kind.INSTANCE:
            # Its boot disk goes with it.
            cloud.change(what, cloud.instances.delete_unary, {**where, "instance": thing.name})
        case Kind.DISK:
            cloud.change(what, cloud.disks.delete_unary, {**where, "disk": thing.name})
        case Kind.IMAGE:
            cloud.change(what, cloud.images.delete_unary, {"project": thing.project, "image": thing.name})
        case Kind.OBJECT:
            blob = cloud.storage.bucket(thing.place).blob(thing.name)
            # It is deleted by its generation, else a bucket that keeps versions keeps it.
            cloud.ask(what, lambda: blob.reload(retry=None, timeout=cloud.pace.answer))
            cloud.ask(what, lambda: blob.delete(retry=None, timeout=cloud.pace.answer))
