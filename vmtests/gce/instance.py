"""Instances: ordered, made in a zone that has one, switched, asked, and listened to."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from vmtests import progress
from vmtests.gce import series
from vmtests.gce.cloud import Cloud
from vmtests.gce.errors import NotFoundError, QuotaError, StockoutError, UnavailableError, UnsupportedError
from vmtests.gce.serialport import Chunk
from vmtests.gce.session import Session
from vmtests.gce.things import Brand, Kind, Thing
from vmtests.sizes import GIB

if TYPE_CHECKING:
    from google.cloud import compute_v1

_LEAST_RUN_SECONDS = 60
DELETED = "somebody, or its time limit, deleted it"
# By whom a machine is switched off, by the types of the operations that do; the guest's own doing is none of them.
_ENDS: Mapping[str, str] = {
    "compute.instances.preempted": "it was preempted",
    "compute.instances.hostError": "its host failed",
    "compute.instances.terminateOnHostMaintenance": "its host was maintained",
    "stop": "somebody stopped it",
    "suspend": "somebody suspended it",
    "delete": DELETED,
}
_BEGINS = frozenset(("insert", "start", "resume"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An instance as it is ordered; `disk_size` in bytes, `lifetime` in seconds, after which it deletes itself."""

    image: str
    machine: str
    disk_size: int
    lifetime: float
    metadata: Mapping[str, str] = field(repr=False)
    secure_boot: bool = False
    tpm: bool = False
    disk_type: str = ""
    network: str = ""
    subnetwork: str = ""
    internal: bool = False
    spot: bool = False

    def body(self, name: str, zone: str, brand: Brand) -> "compute_v1.Instance":
        """Return what is sent to Compute Engine."""
        from google.cloud import compute_v1

        disk_type = self.disk_type or series.disk_type(self.machine)
        return compute_v1.Instance(
            name=name,
            machine_type=f"zones/{zone}/machineTypes/{self.machine}",
            labels=brand.labels(),
            disks=[
                compute_v1.AttachedDisk(
                    boot=True,
                    auto_delete=True,
                    initialize_params=compute_v1.AttachedDiskInitializeParams(
                        source_image=self.image,
                        disk_size_gb=-(-self.disk_size // GIB),
                        disk_type=f"zones/{zone}/diskTypes/{disk_type}",
                        labels=brand.labels(),
                    ),
                )
            ],
            network_interfaces=[self._card(zone.rpartition("-")[0])],
            metadata=compute_v1.Metadata(
                items=[compute_v1.Items(key=key, value=value) for key, value in self.metadata.items()]
            ),
            # Whatever becomes of us, it is gone in time ("Limit the run time of a VM").
            scheduling=compute_v1.Scheduling(
                automatic_restart=False,
                **({"provisioning_model": "SPOT"} if self.spot else {}),
                **({"on_host_maintenance": "TERMINATE"} if self.spot or not series.migrates(self.machine) else {}),
                instance_termination_action="DELETE",
                max_run_duration=compute_v1.Duration(seconds=max(int(self.lifetime), _LEAST_RUN_SECONDS)),
            ),
            shielded_instance_config=compute_v1.ShieldedInstanceConfig(
                enable_secure_boot=self.secure_boot,
                enable_vtpm=self.tpm,
                enable_integrity_monitoring=self.secure_boot and self.tpm,
            ),
            display_device=compute_v1.DisplayDevice(enable_display=True),
        )

    def _card(self, region: str) -> "compute_v1.NetworkInterface":
        from google.cloud import compute_v1

        card = compute_v1.NetworkInterface(nic_type=series.card(self.machine))
        # A subnetwork says which network it is of.
        if name := self.network or ("" if self.subnetwork else "default"):
            card.network = name if "/" in name else f"global/networks/{name}"
        if name := self.subnetwork:
            card.subnetwork = name if "/" in name else f"regions/{region}/subnetworks/{name}"
        if not self.internal:
            card.access_configs = [compute_v1.AccessConfig(name="External NAT", type_="ONE_TO_ONE_NAT")]
        return card


def insert(session: Session, order: Order, name: str, zones: Sequence[str]) -> "Instance":
    """Make an instance in the first of `zones` that has such a machine left; raises CloudError.

    Only a zone that is out of machines, or has none of this type, is a reason to try the next; a quota that is used up
    is one to try those of another region.
    """
    cloud, project = session.cloud, session.settings.project
    method, numbers = cloud.instances.insert_unary, list[int]()
    left = list(zones)
    while left:
        zone = left.pop(0)
        thing = Thing(kind=Kind.INSTANCE, name=name, project=project, place=zone)
        body = order.body(name, zone, session.brand)
        request = {"zone": zone, "instance_resource": body}
        what = f"making the {thing}"
        try:
            with progress.step(what):
                session.make(thing, lambda: numbers.append(cloud.change(what, method, request)))  # noqa: B023
        except (StockoutError, UnsupportedError, QuotaError) as error:
            if isinstance(error, QuotaError):
                left = [other for other in left if region_of(other) != region_of(zone)]
            if not left:
                raise
            progress.stderr().print(f"vmtests: {error.message}; trying {left[0]}")
        else:
            return Instance(session, thing, numbers[-1])
    raise AssertionError("no zone")


def region_of(zone: str) -> str:
    """Return the region that a zone is in."""
    return zone.rpartition("-")[0]


class Instance:
    """An instance that was made; all methods raise CloudError, and may be called from any thread.

    `number` is its own in the cloud: another of the same name has another.
    """

    def __init__(self, session: Session, thing: Thing, number: int) -> None:
        self._session = session
        self.thing = thing
        self.number = number

    @property
    def _cloud(self) -> Cloud:
        return self._session.cloud

    @property
    def _request(self) -> dict[str, object]:
        return {"project": self.thing.project, "zone": self.thing.place, "instance": self.thing.name}

    def get(self) -> "compute_v1.Instance":
        """Return the resource."""
        return self._cloud.read(f"looking at the {self.thing}", self._cloud.instances.get, self._request)

    @property
    def status(self) -> str:
        """Its state, such as RUNNING or TERMINATED."""
        return str(self.get().status)

    @property
    def address(self) -> str:
        """The IPv4 address at which it is reached from outside, or inside its network where it has no other."""
        for card in self.get().network_interfaces:
            if self._session.settings.internal and card.network_i_p:
                return str(card.network_i_p)
            for config in card.access_configs:
                if config.nat_i_p:
                    return str(config.nat_i_p)
        raise NotFoundError(f"the {self.thing} has no external address")

    def reset(self) -> None:
        """Push the reset button: what the guest had not synced is lost."""
        self._change("resetting", self._cloud.instances.reset_unary)

    def stop(self) -> None:
        """Push the power button, and wait until the guest is off."""
        self._change("stopping", self._cloud.instances.stop_unary)

    def start(self) -> None:
        """Switch on."""
        self._change("starting", self._cloud.instances.start_unary)

    def _change(self, verb: str, method: object) -> None:
        self._cloud.change(f"{verb} the {self.thing}", method, dict(self._request))  # type: ignore[arg-type]

    def delete(self) -> None:
        """Delete it with its disk."""
        self._session.remove(self.thing)

    def serial(self, start: int = 0, port: int = 1) -> Chunk:
        """Return what there is of a serial port (1 is ttyS0) from a position on; BusyError when it does not run."""
        what = f"reading the serial port of the {self.thing}"
        request = {**self._request, "port": port, "start": start}
        # The next poll tries again.
        answer = self._cloud.read(what, self._cloud.instances.get_serial_port_output, request, patience=0.0)
        return Chunk(start=answer.start, next=answer.next_, data=answer.contents.encode(errors="replace"))

    def screenshot(self) -> bytes:
        """Return the screen, as an image file."""
        what = f"looking at the screen of the {self.thing}"
        answer = self._cloud.read(what, self._cloud.instances.get_screenshot, self._request)
        try:
            return base64.b64decode(answer.contents, validate=True)
        except ValueError as error:  # one that is no ASCII too
            raise UnavailableError(f"{what}: the answer is no image") from error

    def guest_attributes(self, namespace: str) -> dict[str, str]:
        """Return what the guest has published in a namespace; nothing when it has not yet."""
        what = f"asking for what the guest of the {self.thing} has published"
        request = {**self._request, "query_path": f"{namespace}/"}
        try:
            answer = self._cloud.read(what, self._cloud.instances.get_guest_attributes, request)
        except NotFoundError:
            return {}
        return {item.key: item.value for item in answer.query_value.items}

    def ended_by(self) -> str:
        """Return what has switched it off since it was last switched on; nothing when that was the guest."""
        cloud, what = self._cloud, f"asking why the {self.thing} is off"
        request = {
            "project": self.thing.project,
            "zone": self.thing.place,
            "filter": f'targetId = "{self.number}"',
        }
        method = cloud.zone_operations.list
        found = cloud.ask(what, lambda: list(method(request=request, retry=None, timeout=cloud.pace.answer)))
        reasons: list[str] = []
        for one in sorted(found, key=_begun):
            if one.operation_type in _BEGINS:
                reasons.clear()
            elif one.operation_type in _ENDS:
                reasons.append(_ENDS[one.operation_type])
        if reasons:
            return reasons[0]
        try:
            self.get()
        except NotFoundError:
            return DELETED
        return ""


def _begun(operation: "compute_v1.Operation") -> float:
    """Return when an operation was asked for, in seconds of the epoch."""
    try:
        return datetime.fromisoformat(operation.insert_time).timestamp()
    except ValueError:
        return 0.0
