"""The methods of instances, and what they do to the instances."""

import threading
from collections.abc import Callable, Iterator

from vmtests.emulator.catalog import zone_scopes
from vmtests.emulator.disks import Disks
from vmtests.emulator.http import ApiError, Json, Request, Route, not_found
from vmtests.emulator.hypervisor import Hypervisor
from vmtests.emulator.instance import SERIAL_PORTS, Instance, Status
from vmtests.emulator.listing import aggregated, listed
from vmtests.emulator.naming import Place, check_fingerprint, check_name, metadata_of, set_labels
from vmtests.emulator.operations import NO_REQUEST, Cloud, Operations
from vmtests.emulator.order import order, tags_of
from vmtests.emulator.output import guest_attributes, screenshot, serial_port
from vmtests.emulator.power import Power
from vmtests.emulator.serialport import LIMIT, Ring
from vmtests.emulator.timers import Timers
from vmtests.emulator.zones import zone_exists

STOP_SECONDS = 90.0
"""How long a guest may take to switch itself off before the power is taken away."""

PREEMPTION_SECONDS = 30.0
"""The same, when it is preempted."""


class Instances:
    """All instances."""

    def __init__(
        self, cloud: Cloud, operations: Operations, disks: Disks, hypervisor: Hypervisor, timers: Timers
    ) -> None:
        self._cloud = cloud
        self._operations = operations
        self._disks = disks
        self._hypervisor = hypervisor
        self._power = Power(cloud, timers, self._expire)
        self._instances: dict[Place, Instance] = {}

    def routes(self) -> Iterator[Route]:
        """The methods of instances."""
        template, once = "projects/{project}/zones/{zone}/instances", self._operations.once
        one = f"{template}/{{instance}}"
        yield Route("compute.instances.list", "GET", template, self._list)
        yield Route("compute.instances.insert", "POST", template, once(self._insert))
        yield Route("compute.instances.get", "GET", one, self._get)
        yield Route("compute.instances.delete", "DELETE", one, once(self._delete))
        yield Route("compute.instances.start", "POST", f"{one}/start", once(self._start))
        yield Route("compute.instances.stop", "POST", f"{one}/stop", once(self._stop))
        yield Route("compute.instances.reset", "POST", f"{one}/reset", once(self._reset))
        yield Route("compute.instances.setLabels", "POST", f"{one}/setLabels", once(self._set_labels))
        yield Route("compute.instances.setMetadata", "POST", f"{one}/setMetadata", once(self._set_metadata))
        yield Route("compute.instances.setTags", "POST", f"{one}/setTags", once(self._set_tags))
        yield Route(
            "compute.instances.setDeletionProtection",
            "POST",
            f"{template}/{{resource}}/setDeletionProtection",
            once(self._set_deletion_protection),
        )
        yield Route(
            "compute.instances.updateDisplayDevice", "PATCH", f"{one}/updateDisplayDevice", once(self._set_display)
        )
        yield Route(
            "compute.instances.getSerialPortOutput",
            "GET",
            f"{one}/serialPort",
            lambda request: serial_port(self._find(request), request),
        )
        yield Route(
            "compute.instances.getScreenshot",
            "GET",
            f"{one}/screenshot",
            lambda request: screenshot(self._find(request)),
        )
        yield Route(
            "compute.instances.getGuestAttributes",
            "GET",
            f"{one}/getGuestAttributes",
            lambda request: guest_attributes(self._find(request), request),
        )
        template = "projects/{project}/aggregated/instances"
        yield Route("compute.instances.aggregatedList", "GET", template, self._aggregated)

    def named(self, name: str) -> Instance:
        """Return an instance by its name alone; raises ApiError."""
        with self._cloud.changed:
            for place, instance in self._instances.items():
                if place.name == name:
                    return instance
        raise not_found(f"instances/{name}")

    def preempt(self, instance: Instance) -> None:
        """Take the machine away, as from an instance that runs on spare capacity."""

        def work() -> None:
            with self._cloud.changed:
                instance.preempted = True
                self._cloud.changed.notify_all()
            self._power.switch_off(instance, PREEMPTION_SECONDS)
            if instance.resource["scheduling"].get("instanceTerminationAction") == "DELETE":
                self._remove(instance)

        self._begin(NO_REQUEST, instance, "compute.instances.preempted", work)

    def wrap_serial(self, instance: Instance, count: int = LIMIT + (64 << 10)) -> None:
        """Have the first serial port say `count` bytes of nothing in particular, so that its ring wraps."""
        line = b"emulator: this line only fills the buffer of the serial port\r\n"
        for _ in range(0, count, len(line)):
            instance.serial(1, line)

    def close(self) -> None:
        """End every machine."""
        with self._cloud.changed:
            instances = list(self._instances.values())
        closing = [threading.Thread(target=self._end, args=(instance,)) for instance in instances]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def _end(self, instance: Instance) -> None:
        with instance.turn:
            if instance.machine is not None:
                instance.machine.close()

    # Making and removing.

    def _insert(self, request: Request) -> Json:
        given = request.json()
        project, zone = request.params["project"], request.params["zone"]
        if not zone_exists(zone):
            raise not_found(f"projects/{project}/zones/{zone}")
        place = Place(project=project, zone=zone, collection="instances", name=check_name(given.get("name")))
        if place in self._instances:
            raise ApiError(409, "alreadyExists", f"The resource '{place.path}' already exists")
        self._cloud.law.permit_instance(given, request.path)
        taken = {one.addresses.internal for one in self._instances.values()}
        instance = order(self._cloud, self._disks, given, place, taken=taken, on_off=self._power.went_off)
        others = [(str(other.zone), one.kind.cpus) for other, one in self._instances.items()]
        self._instances[place] = instance

        def work() -> None:
            self._cloud.law.quota(zone, instance.kind, others)
            if instance.disk.resource["status"] == "CREATING":
                self._disks.make(instance.disk)
            with self._cloud.changed:
                instance.set_status(Status.STAGING)
            instance.make_machine(self._hypervisor)
            self._power.switch_on(instance)

        return self._begin(request, instance, "insert", work, undo=lambda: self._discard(instance))

    def _delete(self, request: Request) -> Json:
        instance = self._find(request)
        if instance.resource["deletionProtection"]:
            what = f"Resource cannot be deleted if it's protected against deletion: {instance.place.path}"
            message = f"Invalid resource usage: '{what}'."
            raise ApiError(400, "invalidUsage", message)
        return self._begin(request, instance, "delete", lambda: self._remove(instance))

    def _remove(self, instance: Instance) -> None:
        """End the machine and forget the instance, with its disk where that is to go with it."""
        with self._cloud.changed:
            instance.set_status(Status.STOPPING)
        self._power.cancel_expiry(instance)
        if instance.machine is not None:
            instance.machine.close()
        with self._cloud.changed:
            instance.machine = None
            self._instances.pop(instance.place, None)
            instance.disk.resource.pop("users", None)
            self._cloud.changed.notify_all()
        if instance.resource["disks"][0]["autoDelete"] or instance.disk.resource["status"] == "CREATING":
            self._disks.remove(instance.disk)

    def _discard(self, instance: Instance) -> None:
        """Remove an instance that could not be made, unless somebody else has."""
        with instance.turn:
            if self._instances.get(instance.place) is instance:
                self._remove(instance)

    # Power.

    def _start(self, request: Request) -> Json:
        instance = self._find(request)

        def work() -> None:
            if instance.status is Status.RUNNING:
                return
            with self._cloud.changed:
                instance.set_status(Status.STAGING)
                instance.ports = [Ring() for _ in range(SERIAL_PORTS)]
                instance.preempted = False
            self._power.switch_on(instance)

        def undo() -> None:
            with self._cloud.changed:
                if instance.status is Status.STAGING:
                    instance.set_status(Status.TERMINATED)

        return self._begin(request, instance, "start", work, undo=undo)

    def _stop(self, request: Request) -> Json:
        instance = self._find(request)
        return self._begin(request, instance, "stop", lambda: self._power.switch_off(instance, STOP_SECONDS))

    def _reset(self, request: Request) -> Json:
        instance = self._find(request)
        if instance.status is not Status.RUNNING:
            raise instance.not_ready()
        return self._begin(request, instance, "reset", lambda: instance.power().reset())

    def _expire(self, instance: Instance) -> None:
        delete = instance.resource["scheduling"].get("instanceTerminationAction") == "DELETE"

        def work() -> None:
            if delete:
                self._remove(instance)
            else:
                self._power.switch_off(instance, STOP_SECONDS)

        self._begin(NO_REQUEST, instance, "delete" if delete else "stop", work)

    # Small changes.

    def _set_labels(self, request: Request) -> Json:
        given, instance = request.json(), self._find(request)
        check_fingerprint(given.get("labelFingerprint"), instance.resource["labelFingerprint"])
        set_labels(instance.resource, given.get("labels"))
        return self._changed(request, instance, "setLabels")

    def _set_metadata(self, request: Request) -> Json:
        given, instance = request.json(), self._find(request)
        check_fingerprint(given.get("fingerprint"), instance.resource["metadata"]["fingerprint"])
        instance.resource["metadata"] = metadata_of(given)
        return self._changed(request, instance, "setMetadata")

    def _set_tags(self, request: Request) -> Json:
        given, instance = request.json(), self._find(request)
        check_fingerprint(given.get("fingerprint"), instance.resource["tags"]["fingerprint"])
        instance.resource["tags"] = tags_of(given)
        return self._changed(request, instance, "setTags")

    def _set_deletion_protection(self, request: Request) -> Json:
        instance = self._find(request, "resource")
        instance.resource["deletionProtection"] = request.query.get("deletionProtection", "true").lower() == "true"
        return self._changed(request, instance, "setDeletionProtection")

    def _set_display(self, request: Request) -> Json:
        given, instance = request.json(), self._find(request)
        instance.resource["displayDevice"] = {"enableDisplay": bool(given.get("enableDisplay"))}
        return self._changed(request, instance, "updateDisplayDevice")

    def _changed(self, request: Request, instance: Instance, action: str) -> Json:
        self._cloud.changed.notify_all()
        return self._operations.begin(request, action, instance.place, instance.resource["id"], lambda: None)

    def _begin(
        self,
        request: Request,
        instance: Instance,
        action: str,
        work: Callable[[], None],
        undo: Callable[[], None] | None = None,
    ) -> Json:
        """Begin an operation that has the instance for itself."""

        def alone() -> None:
            with instance.turn:
                if self._instances.get(instance.place) is not instance:
                    raise not_found(instance.place.path)
                work()

        return self._operations.begin(request, action, instance.place, instance.resource["id"], alone, undo=undo)

    # Reading.

    def _find(self, request: Request, param: str = "instance") -> Instance:
        return self.at(request.params["project"], request.params["zone"], request.params[param])

    def at(self, project: str, zone: str, name: str) -> Instance:
        """Return an instance by its name or number; raises ApiError."""
        place = Place(project=project, zone=zone, collection="instances", name=name)
        with self._cloud.changed:
            if (instance := self._instances.get(place)) is not None:
                return instance
            for other in self._instances.values():
                same = (other.place.project, other.place.zone) == (place.project, place.zone)
                if same and other.resource["id"] == place.name:
                    return other
        raise not_found(place.path)

    def _get(self, request: Request) -> Json:
        with self._cloud.changed:
            return dict(self._find(request).resource)

    def _list(self, request: Request) -> Json:
        project, zone = request.params["project"], request.params["zone"]
        if not zone_exists(zone):
            raise not_found(f"projects/{project}/zones/{zone}")
        items = [item for place, item in self._resources(project) if place.zone == zone]
        link = self._cloud.link(f"projects/{project}/zones/{zone}/instances")
        return listed(request, "compute#instanceList", items, link)

    def _aggregated(self, request: Request) -> Json:
        project = request.params["project"]
        items = [item for _, item in self._resources(project)]
        link = self._cloud.link(f"projects/{project}/aggregated/instances")
        return aggregated(
            request,
            "compute#instanceAggregatedList",
            "instances",
            items,
            link,
            zone_scopes(),
            unreachable=self._cloud.law.rules.unreachable,
        )

    def _resources(self, project: str) -> list[tuple[Place, Json]]:
        with self._cloud.changed:
            return [
                (place, dict(instance.resource))
                for place, instance in self._instances.items()
                if place.project == project
            ]
