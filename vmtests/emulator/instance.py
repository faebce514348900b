"""One instance: its resource, its machine, and what the machine says."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from vmtests.emulator import naming
from vmtests.emulator.disks import Disk
from vmtests.emulator.http import ApiError, Json, Reply, Request
from vmtests.emulator.hypervisor import Hypervisor, Machine, MachineSpec
from vmtests.emulator.metadata import GuestAttributes, Metadata
from vmtests.emulator.naming import Place, attributes_of, project_number
from vmtests.emulator.operations import Cloud
from vmtests.emulator.serialport import Ring
from vmtests.emulator.timers import Timer
from vmtests.emulator.zones import MachineType

SERIAL_PORTS = 4
GATEWAY = "10.128.0.1"


class Status(StrEnum):
    """The states of an instance that are seen here."""

    PROVISIONING = "PROVISIONING"
    STAGING = "STAGING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    TERMINATED = "TERMINATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The addresses of an instance: in its network, and on the host, where its ssh is reached."""

    internal: str
    external: str

    @property
    def mac(self) -> str:
        """The hardware address, which Compute Engine makes of the internal one."""
        return ":".join(["42:01", *(f"{int(part):02x}" for part in self.internal.split("."))])


@dataclass(slots=True, kw_only=True, eq=False)
class Instance:
    """An instance. `turn` is held by the operation that works on its machine; the rest is under the cloud's lock.

    It hears its machine as `hypervisor.Host`.
    """

    cloud: Cloud
    place: Place
    resource: Json
    kind: MachineType
    addresses: Addresses
    disk: Disk
    on_off: Callable[["Instance"], None]
    turn: threading.RLock = field(default_factory=threading.RLock)
    machine: Machine | None = None
    ports: list[Ring] = field(default_factory=lambda: [Ring() for _ in range(SERIAL_PORTS)])
    guest_attributes: GuestAttributes = field(default_factory=dict)
    preempted: bool = False
    went_off: bool = False
    """Whether the machine has ended since it was started last."""
    expiry: Timer | None = None
    server: Metadata = field(init=False)

    def __post_init__(self) -> None:
        self.server = Metadata(self.cloud.changed, self.tree, self.writable_guest_attributes, self.cloud.closing)

    # As its machine sees it.

    def serial(self, port: int, data: bytes) -> None:
        """Take bytes of a serial port."""
        self.ports[port - 1].feed(data)

    def off(self) -> None:
        """Learn that the machine is off."""
        self.on_off(self)

    def metadata(self, request: Request) -> Reply:
        """Answer the guest."""
        return self.server.answer(request)

    # Power; `turn` is held.

    def make_machine(self, hypervisor: Hypervisor) -> None:
        """Make the machine, off."""
        secure = self.resource.get("shieldedInstanceConfig", {})
        self.machine = hypervisor.machine(
            MachineSpec(
                name=self.place.name,
                domain=self.domain,
                identity=uuid.UUID(int=int(self.resource["id"]) << 64 | project_number(self.place.project)),
                cpus=self.kind.cpus,
                memory_mib=self.kind.memory_mib,
                disk=self.disk.path,
                nvme=self.kind.nvme,
                secure_boot=bool(secure.get("enableSecureBoot")),
                tpm=bool(secure.get("enableVtpm")),
                internal=self.addresses.internal,
                external=self.addresses.external,
            ),
            self,
        )

    def power(self) -> Machine:
        """Return the machine; raises ApiError when there is none yet, or no more."""
        if self.machine is None:
            raise self.not_ready()
        return self.machine

    def not_ready(self) -> ApiError:
        """Return the error for what needs the instance to be running."""
        return ApiError(400, "resourceNotReady", f"The resource '{self.place.path}' is not ready")

    # As others see it; the cloud's lock is held.

    @property
    def status(self) -> Status:
        """The state that the API tells."""
        return Status(self.resource["status"])

    def set_status(self, status: Status) -> None:
        """Change it, and tell everybody who waits."""
        self.resource["status"] = str(status)
        if status is Status.RUNNING:
            self.resource["lastStartTimestamp"] = naming.now()
        elif status is Status.TERMINATED:
            self.resource["lastStopTimestamp"] = naming.now()
        self.cloud.changed.notify_all()

    @property
    def hostname(self) -> str:
        """The whole name, as the zone's DNS has it."""
        return str(self.resource.get("hostname") or f"{self.place.name}.{self.domain}")

    @property
    def domain(self) -> str:
        """The domain that the zone's DNS has for the project."""
        return f"{self.place.zone}.c.{self.place.project}.internal"

    @property
    def attributes(self) -> dict[str, str]:
        """The metadata that was given to the instance."""
        return attributes_of(self.resource["metadata"])

    @property
    def project_attributes(self) -> dict[str, str]:
        """The metadata that was given to the whole project."""
        return attributes_of(self.cloud.project_metadata.get(self.place.project, {}))

    def writable_guest_attributes(self) -> GuestAttributes | None:
        """Return what the guest has said, None when it may say nothing."""
        enabled = self.attributes.get("enable-guest-attributes", "").lower() in {"true", "1", "yes", "y"}
        return self.guest_attributes if enabled else None

    def tree(self) -> Json:
        """Return what the metadata server says, as recursive JSON."""
        number = project_number(self.place.project)
        resource, scheduling = self.resource, self.resource["scheduling"]
        accounts = {
            account["email"]: {"aliases": ["default"], "email": account["email"], "scopes": account.get("scopes", [])}
            for account in resource.get("serviceAccounts", [])
        }
        if accounts:
            accounts["default"] = next(iter(accounts.values()))
        instance: Json = {
            "attributes": self.attributes,
            "cpuPlatform": resource["cpuPlatform"],
            "description": resource.get("description", ""),
            "disks": [
                {
                    "deviceName": disk["deviceName"],
                    "index": disk["index"],
                    "interface": disk["interface"],
                    "mode": disk["mode"],
                    "type": "PERSISTENT-BALANCED" if disk["type"] == "PERSISTENT" else disk["type"],
                }
                for disk in resource["disks"]
            ],
            "guestAttributes": {},
            "hostname": self.hostname,
            "id": int(resource["id"]),
            "image": self.disk.resource.get("sourceImage", "").partition("/v1/")[2],
            "licenses": [],
            "machineType": f"projects/{number}/machineTypes/{self.kind.name}",
            "maintenanceEvent": "NONE",
            "name": self.place.name,
            "networkInterfaces": [
                {
                    "accessConfigs": [{"externalIp": self.addresses.external, "type": "ONE_TO_ONE_NAT"}]
                    if any("accessConfigs" in card for card in resource["networkInterfaces"])
                    else [],
                    "dnsServers": ["169.254.169.254"],
                    "forwardedIps": [],
                    "gateway": GATEWAY,
                    "ip": self.addresses.internal,
                    "ipAliases": [],
                    "mac": self.addresses.mac,
                    "mtu": 1460,
                    "network": f"projects/{number}/networks/default",
                    "subnetmask": "255.255.240.0",
                    "targetInstanceIps": [],
                }
            ],
            "partnerAttributes": {},
            "preempted": str(self.preempted).upper(),
            "remainingCpuTime": -1,
            "scheduling": {
                "automaticRestart": str(scheduling["automaticRestart"]).upper(),
                "onHostMaintenance": scheduling["onHostMaintenance"],
                "preemptible": str(scheduling["preemptible"]).upper(),
            },
            "serviceAccounts": accounts,
            "tags": resource["tags"].get("items", []),
            "virtualClock": {"driftToken": "0"},
            "zone": f"projects/{number}/zones/{self.place.zone}",
        }
        project = {"attributes": self.project_attributes, "numericProjectId": number, "projectId": self.place.project}
        return {"instance": instance, "oslogin": {"authenticate": {"sessions": {}}}, "project": project}
