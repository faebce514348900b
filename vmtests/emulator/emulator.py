"""The emulator, put together."""

import contextlib
import secrets
import shlex
from pathlib import Path
from types import TracebackType
from typing import Self

from vmtests import progress
from vmtests.emulator import scratch
from vmtests.emulator.api import Admin, Api, storage_routes
from vmtests.emulator.catalog import Catalog
from vmtests.emulator.disks import Disks
from vmtests.emulator.faults import Faults
from vmtests.emulator.gateway import SerialGateway
from vmtests.emulator.http import Json
from vmtests.emulator.hypervisor import Hypervisor
from vmtests.emulator.images import Images
from vmtests.emulator.instances import Instances
from vmtests.emulator.objects import Objects
from vmtests.emulator.operations import Cloud, Operations
from vmtests.emulator.real import MEMORY_MIB, QemuHypervisor
from vmtests.emulator.server import Server, listen
from vmtests.emulator.timers import Timers
from vmtests.emulator.uploads import Uploads
from vmtests.errors import HostError, InputError
from vmtests.gce import tokens
from vmtests.host.host import Host
from vmtests.resources import cache_dir

HOST = "127.0.0.1"
_NAMES = frozenset({HOST, "localhost"})


class Emulator:
    """A local Compute Engine and Cloud Storage on the loopback interface; a context manager.

    with Emulator() as emulator:
        client = compute_v1.InstancesClient(client_options={"api_endpoint": emulator.endpoint}, …)

    `port` 0 chooses one that is free. Leaving it ends every instance and forgets all that was stored; a process
    that is killed takes its instances with it. Raises InputError for what is no port or too little memory, HostError
    when the port is taken or the host cannot run machines.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        hypervisor: Hypervisor | None = None,
        accelerator: str = "auto",
        memory_mib: int = MEMORY_MIB,
    ) -> None:
        self._port = port
        self._given = hypervisor
        self._accelerator = accelerator
        self._memory_mib = memory_mib
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        directory = self._stack.enter_context(scratch.directory(cache_dir() / "emulator"))
        self.hypervisor = self._given or self._qemu(directory / "machines")
        try:
            listening = listen(HOST, self._port)
        except OverflowError as error:
            raise InputError(f"{self._port} is not a port", hint="ports go up to 65535") from error
        except OSError as error:
            raise HostError(
                f"port {self._port} of {HOST} cannot be listened on: {error.strerror}",
                hint="--port 0 finds a free one",
            ) from error
        self.endpoint = f"http://{HOST}:{listening.getsockname()[1]}"
        """The address of all APIs, without a slash at the end."""
        self.token = secrets.token_urlsafe(24)
        """What a client has to know (`Authorization: Bearer TOKEN`); `token_file` holds it for this user's clients."""
        self.token_file = tokens.write(directory, listening.getsockname()[1], self.token)
        cloud = Cloud(base=f"{self.endpoint}/compute/v1/")
        self.faults: Faults = cloud.faults
        """What goes wrong on purpose."""
        for name in ("objects", "images", "disks"):
            (directory / name).mkdir()
        objects = Objects(directory / "objects", self.endpoint)
        operations = Operations(cloud)
        images = Images(cloud, operations, objects, directory / "images")
        disks = Disks(cloud, operations, images, self.hypervisor, directory / "disks")
        self.timers = self._stack.enter_context(Timers())
        self.instances = Instances(cloud, operations, disks, self.hypervisor, self.timers)
        compute = [
            *Catalog(cloud, operations).routes(),
            *operations.routes(),
            *images.routes(),
            *disks.routes(),
            *self.instances.routes(),
        ]
        self.gateway = self._stack.enter_context(SerialGateway(HOST, 0, self.instances.at))
        """The interactive serial console: an ssh server on `gateway.port`, with the key `gateway.host_key`."""
        about: Json = {
            "sshPort": self.hypervisor.ssh_port,
            "serialPort": self.gateway.port,
            "serialHostKey": self.gateway.host_key,
        }
        admin = Admin(cloud, self.instances, self.timers, about)
        uploads = Uploads(objects, self.endpoint)
        self.api = Api(cloud, compute, storage_routes(objects, uploads), admin.routes())
        self._stack.callback(uploads.close)
        self._stack.callback(self.instances.close)
        self._stack.callback(operations.close)
        self._stack.callback(self._close, cloud)
        self._stack.enter_context(
            Server(listening, self.api.answer, software="vmtests", hosts=_NAMES, token=self.token)
        )

    @property
    def environment(self) -> list[str]:
        """What makes an unmodified gcloud talk to the emulator, as lines for a shell."""
        return [
            f"export CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE={self.endpoint}/compute/v1/",
            f"export CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE={self.endpoint}/storage/v1/",
            f"export CLOUDSDK_AUTH_ACCESS_TOKEN_FILE={shlex.quote(str(self.token_file))}",
            "export CLOUDSDK_CORE_PROJECT=emulated",
        ]

    def _qemu(self, results: Path) -> Hypervisor:
        this_host = self._stack.enter_context(Host(accelerator=self._accelerator))
        hypervisor = QemuHypervisor(this_host, results, memory_mib=self._memory_mib)
        # What is wrong with this host is said now, not at the first instance.
        with progress.step("looking for an accelerator"):
            hypervisor.probe()
        return self._stack.enter_context(hypervisor)

    @staticmethod
    def _close(cloud: Cloud) -> None:
        cloud.closing.set()
        with cloud.changed:
            cloud.changed.notify_all()
        cloud.faults.close()
