"""The methods of instances, and what they do to the instances."""

import base64
import threading
from collections.abc import Callable, Iterator

from vmtests.emulator import naming
from vmtests.emulator.catalog import default_account, machine_type, zone_exists, zone_scopes
from vmtests.emulator.disks import Disk, Disks
from vmtests.emulator.http import ApiError, Json, Request, Route, invalid, not_found
from vmtests.emulator.hypervisor import Hypervisor
from vmtests.emulator.instance import SERIAL_PORTS, Addresses, Instance, Status
from vmtests.emulator.listing import aggregated, listed
from vmtests.emulator.naming import Place, check_fingerprint, check_name, metadata_of, parse_link, set_labels
from vmtests.emulator.network import new_addresses
from vmtests.emulator.operations import NO_REQUEST, Cloud, Operations
from vmtests.emulator.scheduling import scheduling_of
from vmtests.emulator.serialport import LIMIT, Ring
from vmtests.emulator.timers import Timers

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
        self._timers = timers
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
        yield Route("compute.instances.getSerialPortOutput", "GET", f"{one}/serialPort", self._serial_port)
        yield Route("compute.instances.getScreenshot", "GET", f"{one}/screenshot", self._screenshot)
        yield Route("compute.instances.getGuestAttributes", "GET", f"{one}/getGuestAttributes", self._guest_attributes)
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
            self._switch_off(instance, PREEMPTION_SECONDS)
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
        kind = machine_type(given.get("machineType"), project=project, zone=zone)
        scheduling = scheduling_of(given.get("scheduling"), kind)
        metadata = metadata_of(given.get("metadata"))
        labels: Json = {}
        set_labels(labels, given.get("labels"))
        taken = {one.addresses.internal for one in self._instances.values()}
        addresses = new_addresses(taken)
        card = self._card(given, place, addresses, nvme=kind.nvme)
        disk, attached, new = self._boot_disk(given, place)
        zone_link = self._cloud.link(f"projects/{project}/zones/{zone}")
        resource: Json = {
            "kind": "compute#instance",
            "id": naming.new_id(),
            "creationTimestamp": naming.now(),
            "name": place.name,
            "zone": zone_link,
            "selfLink": self._cloud.link(place.path),
            "machineType": f"{zone_link}/machineTypes/{kind.name}",
            "status": str(Status.PROVISIONING),
            "cpuPlatform": "AMD Milan" if kind.name.startswith(("n2d", "t2d")) else "Intel Ice Lake",
            "canIpForward": bool(given.get("canIpForward")),
            "deletionProtection": bool(given.get("deletionProtection")),
            "startRestricted": False,
            **labels,
            "metadata": metadata,
            "tags": _tags(given.get("tags")),
            "fingerprint": naming.fingerprint(place.path),
            "networkInterfaces": [card],
            "disks": [{**attached, "interface": "NVME" if kind.nvme else "SCSI"}],
            "scheduling": scheduling,
            **{name: given[name] for name in ("description", "hostname") if given.get(name)},
        }
        if accounts := given.get("serviceAccounts"):
            default = default_account(project)
            resource["serviceAccounts"] = [
                {**one, "email": default if one.get("email") == "default" else one.get("email", default)}
                for one in accounts
            ]
        for name in ("shieldedInstanceConfig", "displayDevice"):
            if isinstance(given.get(name), dict):
                resource[name] = given[name]
        instance = Instance(
            cloud=self._cloud,
            place=place,
            resource=resource,
            kind=kind,
            addresses=addresses,
            disk=disk,
            on_off=self._went_off,
        )
        self._instances[place] = instance
        disk.resource["users"] = [resource["selfLink"]]

        def work() -> None:
            if new:
                self._disks.make(disk)
            with self._cloud.changed:
                instance.set_status(Status.STAGING)
            instance.make_machine(self._hypervisor)
            self._switch_on(instance)

        return self._begin(request, instance, "insert", work, undo=lambda: self._discard(instance))

    def _boot_disk(self, given: Json, place: Place) -> tuple[Disk, Json, bool]:
        """Return the boot disk, how it is attached, and whether it is still to be made; raises ApiError."""
        disks = given.get("disks")
        if not isinstance(disks, list) or len(disks) != 1 or not isinstance(disks[0], dict):
            raise invalid("resource.disks", "…", "the emulator attaches one disk, the boot disk")
        attached, zone = disks[0], str(place.zone)
        if source := attached.get("source"):
            disk, new = self._disks.linked(source, project=place.project, zone=zone), False
            if disk.resource.get("users"):
                message = f"The disk resource '{disk.place.path}' is already being used"
                raise ApiError(400, "resourceInUseByAnotherResource", message)
        else:
            wanted = {**attached, **(attached.get("initializeParams") or {})}
            name = wanted.get("diskName") or place.name
            where = Place(project=place.project, zone=zone, collection="disks", name=name)
            disk, new = self._disks.reserve(where, wanted), True
        features = disk.resource.get("guestOsFeatures", [])
        if disk.resource.get("sourceImage") and {"type": "UEFI_COMPATIBLE"} not in features:
            if new:
                self._disks.remove(disk)
            why = "the emulator has UEFI firmware only, and the image is not marked UEFI_COMPATIBLE"
            raise invalid("resource.disks[0].initializeParams.sourceImage", disk.resource["sourceImage"], why)
        answer: Json = {
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": attached.get("mode", "READ_WRITE"),
            "source": disk.resource["selfLink"],
            "deviceName": attached.get("deviceName", "persistent-disk-0"),
            "index": 0,
            "boot": True,
            "autoDelete": bool(attached.get("autoDelete")),
            "diskSizeGb": disk.resource["sizeGb"],
            "architecture": disk.resource.get("architecture", "X86_64"),
        }
        if features:
            answer["guestOsFeatures"] = features
        return disk, answer, new

    def _card(self, given: Json, place: Place, addresses: Addresses, *, nvme: bool) -> Json:
        cards = given.get("networkInterfaces")
        card = cards[0] if isinstance(cards, list) and cards and isinstance(cards[0], dict) else {}
        region = str(place.zone).rpartition("-")[0]
        network = parse_link(card.get("network") or "global/networks/default", "networks", project=place.project)
        answer: Json = {
            "kind": "compute#networkInterface",
            "name": "nic0",
            "network": self._cloud.link(f"projects/{network.project}/global/networks/{network.name}"),
            "subnetwork": self._cloud.link(f"projects/{network.project}/regions/{region}/subnetworks/{network.name}"),
            "networkIP": addresses.internal,
            "stackType": "IPV4_ONLY",
            "fingerprint": naming.fingerprint(addresses.internal),
            "nicType": card.get("nicType") or ("GVNIC" if nvme else "VIRTIO_NET"),
        }
        if configs := card.get("accessConfigs"):
            name = configs[0].get("name") or "External NAT"
            answer["accessConfigs"] = [
                {
                    "kind": "compute#accessConfig",
                    "type": "ONE_TO_ONE_NAT",
                    "name": name,
                    "natIP": addresses.external,
                    "networkTier": "PREMIUM",
                }
            ]
        return answer

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
        self._cancel_expiry(instance)
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

    def _switch_on(self, instance: Instance) -> None:
        machine = instance.power()
        machine.start()
        with self._cloud.changed:
            # A machine may have ended before anybody could say that it runs.
            instance.set_status(Status.RUNNING if machine.on else Status.TERMINATED)
            if machine.on:
                self._set_expiry(instance)

    def _switch_off(self, instance: Instance, seconds: float) -> None:
        with self._cloud.changed:
            if instance.status is Status.TERMINATED:
                return
            instance.set_status(Status.STOPPING)
        self._cancel_expiry(instance)
        machine = instance.power()
        machine.power_button()
        with self._cloud.changed:
            gone = self._cloud.changed.wait_for(
                lambda: instance.status is Status.TERMINATED or self._cloud.closing.is_set(),
                seconds * self._hypervisor.patience,
            )
        if not gone or self._cloud.closing.is_set():
            machine.power_cut()

    def _went_off(self, instance: Instance) -> None:
        """Take note that a machine is off: it was told to, or its guest has switched itself off."""
        with self._cloud.changed:
            if instance.status in {Status.RUNNING, Status.STOPPING}:
                instance.set_status(Status.TERMINATED)
        self._cancel_expiry(instance)

    def _start(self, request: Request) -> Json:
        instance = self._find(request)

        def work() -> None:
            if instance.status is Status.RUNNING:
                return
            with self._cloud.changed:
                instance.set_status(Status.STAGING)
                instance.ports = [Ring() for _ in range(SERIAL_PORTS)]
                instance.preempted = False
            self._switch_on(instance)

        def undo() -> None:
            with self._cloud.changed:
                if instance.status is Status.STAGING:
                    instance.set_status(Status.TERMINATED)

        return self._begin(request, instance, "start", work, undo=undo)

    def _stop(self, request: Request) -> Json:
        instance = self._find(request)
        return self._begin(request, instance, "stop", lambda: self._switch_off(instance, STOP_SECONDS))

    def _reset(self, request: Request) -> Json:
        instance = self._find(request)
        if instance.status is not Status.RUNNING:
            raise instance.not_ready()
        return self._begin(request, instance, "reset", lambda: instance.power().reset())

    def _set_expiry(self, instance: Instance) -> None:
        limit = instance.resource["scheduling"].get("maxRunDuration")
        if not limit:
            return
        seconds = float(limit["seconds"])
        stamp = naming.timestamp(seconds)
        instance.resource["resourceStatus"] = {"scheduling": {"terminationTimestamp": stamp}}
        instance.expiry = self._timers.after(seconds, lambda: self._expire(instance))

    def _cancel_expiry(self, instance: Instance) -> None:
        with self._cloud.changed:
            if instance.expiry is not None:
                self._timers.cancel(instance.expiry)
                instance.expiry = None
                instance.resource.pop("resourceStatus", None)

    def _expire(self, instance: Instance) -> None:
        delete = instance.resource["scheduling"].get("instanceTerminationAction") == "DELETE"

        def work() -> None:
            if delete:
                self._remove(instance)
            else:
                self._switch_off(instance, STOP_SECONDS)

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
        instance.resource["tags"] = _tags(given)
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
        return aggregated(request, "compute#instanceAggregatedList", "instances", items, link, zone_scopes())

    def _resources(self, project: str) -> list[tuple[Place, Json]]:
        with self._cloud.changed:
            return [
                (place, dict(instance.resource))
                for place, instance in self._instances.items()
                if place.project == project
            ]

    def _serial_port(self, request: Request) -> Json:
        instance = self._find(request)
        port = request.number("port", 1)
        if not 1 <= port <= SERIAL_PORTS:
            raise invalid("port", port, f"must be from 1 to {SERIAL_PORTS}")
        if instance.status not in {Status.RUNNING, Status.STOPPING}:
            raise instance.not_ready()
        start, data = instance.ports[port - 1].read(request.number("start", 0))
        return {
            "kind": "compute#serialPortOutput",
            "selfLink": f"{instance.resource['selfLink']}/serialPort",
            "contents": data.decode(errors="replace"),
            "start": str(start),
            "next": str(start + len(data)),
        }

    def _screenshot(self, request: Request) -> Json:
        instance = self._find(request)
        if not instance.resource.get("displayDevice", {}).get("enableDisplay"):
            message = f"Invalid resource usage: 'Display device is not enabled on {instance.place.path}'."
            raise ApiError(400, "invalidUsage", message)
        with instance.turn:
            if instance.status is not Status.RUNNING:
                raise instance.not_ready()
            image = instance.power().screenshot()
        return {"kind": "compute#screenshot", "contents": base64.b64encode(image).decode()}

    def _guest_attributes(self, request: Request) -> Json:
        instance = self._find(request)
        path, key = request.query.get("queryPath"), request.query.get("variableKey")
        namespace, _, name = (path or key or "").partition("/")
        link = f"{instance.resource['selfLink']}/getGuestAttributes/{path or key or ''}"
        answer: Json = {"kind": "compute#guestAttributes", "selfLink": link}
        with self._cloud.changed:
            known = instance.writable_guest_attributes() or {}
            found = {
                (space, one): value
                for space, values in known.items()
                for one, value in values.items()
                if namespace in {"", space} and name in {"", one}
            }
        if not found:
            raise not_found(f"{instance.place.path}/guestAttributes/{path or key or ''}")
        if key is not None and path is None:
            return {**answer, "variableKey": key, "variableValue": next(iter(found.values()))}
        items = [{"namespace": space, "key": one, "value": value} for (space, one), value in sorted(found.items())]
        return {**answer, "queryPath": path or "", "queryValue": {"items": items}}


def _tags(given: object) -> Json:
    items = given.get("items") or [] if isinstance(given, dict) else []
    return {"fingerprint": naming.fingerprint(items), **({"items": items} if items else {})}
