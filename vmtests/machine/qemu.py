"""A machine that QEMU runs."""

import contextlib
import os
import shlex
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from vmtests.errors import GuestError, HostError, InputError, at_named
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.architecture import GUEST
from vmtests.host.firmware import Firmware
from vmtests.host.process import SandboxedProcess
from vmtests.host.scratch import remove
from vmtests.host.tools import Toolbox
from vmtests.host.user import give, unprivileged
from vmtests.machine import argv, disk, drives, handover, hpet, migration
from vmtests.machine.confine import check_over, disk_files, machine_view, needed_devices
from vmtests.machine.hardware import Hardware, Net
from vmtests.machine.life import Exit, Life, MachineExitError, resuming
from vmtests.machine.listener import Listener, Nobody
from vmtests.machine.netns import Namespace
from vmtests.machine.qmp import Qmp, QmpLostError, forwarded_port
from vmtests.machine.template import Template, copy_sparse
from vmtests.machine.tpm import start_tpm
from vmtests.sizes import MIB

CONSOLE_PORT, DEBUG_PORT, AGENT_PORT = 0, 1, 3
"""Serial ports: ttyS0, which the boot is followed on, ttyS1 for a debug shell; and the guest agent's."""

_END_SECONDS = 10.0  # a killed QEMU has to give its memory back; far more than it needs
_RESULTS = ("ttyS0.log", "ttyS1.log", "qemu.argv", "qemu.stderr", "swtpm.log")


class QemuMachine:
    """A machine with an image's disk, powered on; a context manager.

    The image is never written: the disk is an overlay that outlives a power cut and ends with `close`. With `own`
    the image is the disk, a qcow2 file that is written to and stays. QEMU runs in `namespace`, where one is given. Its
    own files are below `scratch`, in the results where none is given. `results` gets `ttyS0.log`, `ttyS1.log`,
    `qemu.argv` (one line for each power-on), `qemu.stderr` and screenshots, each with `name` and a dot in front when
    several machines share the directory. `listener` hears the first serial port, the firmware, and events; one who is
    only known later says so by `move`. One thread at a time may call the methods; `power_cut`, `send_serial`, `serial`
    and `alive` may be called from any.

    Everything that waits raises MachineExitError as soon as QEMU ends.
    """

    def __init__(
        self,
        *,
        toolbox: Toolbox,
        accelerator: Accelerator,
        firmware: Firmware | None,
        hardware: Hardware,
        image: Path,
        results: Path,
        listener: Listener | None = None,
        name: str = "",
        template: Template | None = None,
        own: bool = False,
        namespace: Namespace | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._name = name
        self._toolbox = toolbox
        self._accelerator = accelerator
        self._firmware = firmware
        self._hardware = hardware
        self._template = template
        self._image = disk.backing(image if template is None else template.disk)
        # Of a disk that is the machine's own, QEMU could name any file as the next one before a power cut.
        self._chain = tuple(disk_files(self._image.path))
        self._others = tuple(drives.readable(hardware, template))
        self._own = own
        self._namespace = namespace
        self._results = results.absolute()
        self._scratch = scratch
        self._listener: Listener = listener or Nobody()
        self._private: Path | None = None
        self._life: Life | None = None
        self._tpm: SandboxedProcess | None = None
        self._ssh_port: int | None = None
        self._powered_on = False

    def __enter__(self) -> Self:
        try:
            if self._life is None:
                self.spawn()
                self.load()
            self.execute("cont")
        except BaseException:
            self.close()
            raise
        return self

    def spawn(self) -> None:
        """Start QEMU, paused, and read nothing of it yet.

        `with` does this first; whoever makes machines ahead of time calls it himself. Raises HostError.
        """
        try:
            self._results.mkdir(parents=True, exist_ok=True)
            self._private = Path(tempfile.mkdtemp(prefix=".machine-", dir=self._scratch or self._results))
            mine = Template(self._private)
            if (template := self._template) is None:
                self.renew()
            else:
                drives.take(self._hardware, template, mine)
                drives.hand_in(self._hardware, mine)
            self._spawn()
        except OSError as error:
            self.close()
            what = f"{error.filename or self._results} cannot be written"
            raise at_named(what, error, "name another directory with --vm-results") from error
        except BaseException:
            self.close()
            raise

    def load(self) -> None:
        """Connect to QEMU, and load the template's state where there is one; the guest has run no instruction yet.

        `with` does this after `spawn`, and lets the guest run then.

        Raises MachineExitError when QEMU refuses its command line, HostError when it refuses the template.
        """
        try:
            life = self._running()
            assert life.qmp is not None
            with self._waiting(life):
                life.qmp.__enter__()
                if (template := self._template) is not None:
                    self._resume(template)
                    self._template = None  # the next power-on is a cold one
                if self._hardware.net is not Net.NONE:
                    self._ssh_port = forwarded_port(self.execute)
        except BaseException:
            self._end()
            raise

    def move(self, results: Path, listener: Listener) -> None:
        """Move to another directory of results and listener, before the guest's first instruction."""
        # One that has ended meanwhile tells so when it is entered.
        old = {file: self._result(file) for file in _RESULTS}
        self._results, self._name = results.absolute(), ""
        for file, path in old.items():
            if path.exists():
                path.replace(self._result(file))
        self._listener = listener
        if self._life is not None:
            self._life.listener = listener

    def forget(self) -> None:
        """Remove what it wrote to the results, as nobody has used this machine."""
        for file in _RESULTS:
            self._result(file).unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether QEMU runs."""
        return self._life is not None and not self._life.exited.is_set()

    @property
    def exit(self) -> Exit | None:
        """How QEMU ended; None while it runs."""
        return None if self._life is None else self._life.exit

    @property
    def ssh_port(self) -> int:
        """The port on 127.0.0.1 that leads to the guest's port 22; another one after each power-on."""
        if self._ssh_port is None:
            raise InputError("the machine has no network card", hint="give it Hardware(net=Net.ISOLATED)")
        return self._ssh_port

    def start(self) -> None:
        """Power on again, on the same disk and the same firmware variables.

        Raises MachineExitError when QEMU refuses its command line.
        """
        if self.alive:
            raise InputError("the machine is powered on already")
        self._end()
        self._spawn()
        self.load()
        self.execute("cont")

    def renew(self) -> None:
        """Make disk, firmware variables and TPM of a machine that is off anew, as before its first power-on.

        The image of one with `own` stays as it is. Raises HostError, OSError.
        """
        if self.alive:
            raise InputError("the machine is powered on")
        mine = Template(self._files)
        handover.clear(mine.directory)
        if not self._own:
            disk.make_overlay(self._toolbox, self._image, mine.disk, self._hardware.disk_size)
        drives.make(self._hardware, mine, self._firmware, self._toolbox)
        drives.hand_in(self._hardware, mine)

    @contextlib.contextmanager
    def snapshot(self, directory: Path) -> Iterator[Template]:
        """Keep the machine as it is now, as a template in `directory`, which is made; it goes on afterwards.

        It stands still for about a second, and while the context lasts. Raises HostError when the template cannot be
        written.
        """
        template = Template(directory.absolute())
        mine = Template(self._files)
        life = self._running()
        try:
            template.directory.mkdir(mode=0o700)
            self.execute("stop")
            try:
                self._stop_unused_timers()
                migration.send(self.execute, mine.state, life.exited)  # QEMU sees nothing of the other directory
                handover.move(mine.state, template.state)
                # QEMU has written everything out and let go of the disk until it goes on.
                copy_sparse(life.ram, template.ram)
                # Of a fork the memory is in the stream, and this file has to be as long as others expect.
                os.truncate(template.ram, self._hardware.memory_mib * MIB)
                drives.keep(self._hardware, mine, template, self._toolbox, self._image.path, self._template)
                handover.let_read(template.ram, template.state, *template.disks)
                yield template
            finally:
                self.execute("cont")
        except OSError as error:
            raise HostError(
                f"{error.filename or template.directory} cannot be written: {error.strerror}",
                hint="free some space, or set VMTESTS_CACHE",
            ) from error

    def _stop_unused_timers(self) -> None:
        if self._accelerator.name is not AcceleratorName.KVM:
            # A QEMU that does not let it has forks that cost more, and no other harm.
            with contextlib.suppress(HostError):
                hpet.stop_unused_timers(self.execute, self.give)

    def _resume(self, template: Template) -> None:
        with resuming():
            migration.receive(self.execute, template.state, self._running().exited)

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 30.0) -> object:
        """Run a QMP command and return its value; `timeout` is in seconds.

        Raises MachineExitError, and what `Qmp.execute` raises.
        """
        life = self._running()
        assert life.qmp is not None
        with self._waiting(life):
            return life.qmp.execute(command, arguments, timeout=timeout)

    def give(self, name: str, descriptor: int) -> None:
        """Hand QEMU a file descriptor, which its commands know by `name`; raises as `execute` does."""
        life = self._running()
        assert life.qmp is not None
        with self._waiting(life):
            life.qmp.give(name, descriptor)

    def serial(self, port: int = CONSOLE_PORT) -> socket.socket:
        """Return a socket that gets all bytes of a serial port from now on; what it sends is typed.

        Any number may be open. One that is not read is closed by us once `wires.TAP_LIMIT` bytes wait;
        closing it detaches it; it reads end of file when QEMU ends.
        """
        return self._running().wires.tap(port)

    def send_serial(self, data: bytes, port: int = CONSOLE_PORT) -> None:
        """Type bytes on a serial port."""
        self._running().wires.send(port, data)

    def written(self, port: int, limit: int = 512) -> bytes:
        """Return the last `limit` bytes that were written to a serial port."""
        with self._result(f"ttyS{port}.log").open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - limit, 0))
            return file.read()

    @property
    def disk(self) -> Path:
        """The machine's disk, a qcow2 file; unless it is the machine's own, it is there until `close`.

        Raises HostError where it is no longer laid over what it was made over.
        """
        if not self._own:
            check_over(self._disk, self._image.path)
        return self._disk

    @property
    def _disk(self) -> Path:
        return self._image.path if self._own else self._files / "disk.qcow2"

    def screenshot(self) -> Path:
        """Write the screen to a new PNG file in the results and return its path."""
        number = 1
        while (path := self._result(f"screenshot-{number}.png")).exists():
            number += 1
        self.dump_screen(path)
        return path

    def dump_screen(self, path: Path, *, timeout: float = 30.0) -> None:
        """Write the screen to a new PNG file; raises as `execute`, HostError, OSError."""
        taken = self._files / "screen.png"  # of the host's directories QEMU sees its own
        self.execute("screendump", {"filename": os.fspath(taken), "format": "png"}, timeout=timeout)
        handover.move(taken, path)

    def power_cut(self) -> None:
        """Kill QEMU, as when the plug is pulled, and wait until it is gone; `start` powers on again."""
        life = self._running()
        self._listener.expect_end()
        life.kill()
        if not life.exited.wait(_END_SECONDS):
            raise HostError(f"QEMU was killed and is still there after {_END_SECONDS:g} s")

    def signal(self, number: signal.Signals) -> None:
        """Send QEMU a signal, as somebody on the host may; what comes of it is not expected."""
        process = self._running().process
        assert process is not None
        process.signal(number)

    @property
    def late(self) -> float:
        """Seconds since power-on that QEMU could have run and got no processor of the host; 0 when it is off."""
        process = None if self._life is None else self._life.process
        return 0.0 if process is None else process.late

    def reset(self) -> None:
        """Push the reset button."""
        self.execute("system_reset")

    def powerdown(self) -> None:
        """Push the power button (ACPI); the guest decides what comes of it."""
        self._listener.expect_end()
        self.execute("system_powerdown")

    def wait_exit(self, timeout: float) -> Exit:
        """Wait until QEMU ends, at most `timeout` seconds; raises GuestError when it does not."""
        life = self._life
        if life is None:
            raise InputError("the machine was never powered on")
        if not life.exited.wait(timeout) or life.exit is None:
            raise GuestError(f"the machine is still on after {timeout:g} s", hint="power_cut() ends it at once")
        return life.exit

    def close(self) -> None:
        """End QEMU and remove the disk; what is in the results stays."""
        self._end()
        if self._private is not None:
            remove(self._private)
            self._private = None

    def _running(self) -> Life:
        life = self._life
        if life is None:
            raise InputError("the machine is not powered on")
        if life.exit is not None:
            raise MachineExitError(life.exit, self._command)
        return life

    @contextlib.contextmanager
    def _waiting(self, life: Life) -> Iterator[None]:
        """Turn a lost monitor into the reason for it, QEMU's end."""
        try:
            yield
        except QmpLostError as error:
            if life.exited.wait(_END_SECONDS) and life.exit is not None:
                raise MachineExitError(life.exit, self._command) from error
            raise

    @property
    def _files(self) -> Path:
        """The directory of the machine's own files."""
        if self._private is None:
            raise InputError("the machine is not powered on")
        return self._private

    @property
    def _command(self) -> Path:
        return self._result("qemu.argv")

    def _result(self, file: str) -> Path:
        return self._results / (f"{self._name}.{file}" if self._name else file)

    def _spawn(self) -> None:
        """Start QEMU with all its wires attached, its monitor not connected yet."""
        mine = Template(self._files)
        life = self._life = Life(self._listener, self._result("qemu.stderr"))
        with contextlib.ExitStack() as theirs:
            failed = theirs.enter_context(contextlib.ExitStack())
            failed.callback(self._end)

            # Ends of QEMU: our copies are closed once it has its own, so that its end is the end of each wire.
            def pair() -> tuple[socket.socket, int]:
                ours, other = socket.socketpair()
                theirs.enter_context(other)
                return ours, other.fileno()

            (console, console_fd), (debug, debug_fd) = pair(), pair()
            (firmware, firmware_fd), (qmp, qmp_fd) = pair(), pair()
            life.qmp = Qmp(qmp, life.on_qmp, name=self._hardware.hostname)
            stderr, stderr_fd = os.pipe()
            theirs.callback(os.close, stderr_fd)
            life.wires.add_port(console, lambda data: life.listener.feed(data))
            life.wires.add_port(debug, None)
            life.wires.add_port(firmware, lambda data: life.listener.feed_firmware(data))
            agent_fd = None
            if self._hardware.agent:
                agent, agent_fd = pair()
                life.wires.add_port(agent, None)
            life.wires.add_reader(stderr, life.on_stderr)
            logs = (self._result("ttyS0.log"), self._result("ttyS1.log"))
            for log in logs:
                log.touch()
            own = (mine.directory, self._disk, *logs)
            devices = needed_devices(self._accelerator, self._hardware)
            view = machine_view(self._firmware, self._chain, self._template, own, self._others, devices)
            user = unprivileged(self._toolbox.root(GUEST.qemu), view.readable, devices)
            give(user, *own)
            tpm_fd = None
            if self._hardware.tpm:
                self._tpm, tpm = start_tpm(self._toolbox, mine.tpm, self._result("swtpm.log"))
                tpm_fd = theirs.enter_context(tpm).fileno()
            # Nothing is left of it, whatever kills us; a fork maps the template's.
            life.ram = os.memfd_create("guest-ram")
            parts = argv.Parts(
                accelerator=self._accelerator,
                firmware=self._firmware,
                variables=mine.variables,
                disk=self._disk,
                further=drives.paths(self._hardware, mine),
                credential_files=drives.credential_files(self._hardware, mine),
                fw_cfg_files=drives.fw_cfg_files(self._hardware, mine),
                qmp_fd=qmp_fd,
                serial_fds=(console_fd, debug_fd),
                serial_logs=logs,
                firmware_fd=firmware_fd,
                ram=Path(f"/proc/self/fd/{life.ram}") if self._template is None else self._template.ram,
                template=self._template is not None,
                tpm_fd=tpm_fd,
                agent_fd=agent_fd,
            )
            view = replace(view, user=user, network=self._hardware.net is not Net.NONE)
            command = self._toolbox.argv(GUEST.qemu, *argv.qemu_args(self._hardware, parts), view=view)
            ours = (qmp_fd, console_fd, debug_fd, firmware_fd, life.ram, tpm_fd, agent_fd)
            inherited = [fd for fd in ours if fd is not None]
            if self._namespace is not None:
                command = [*self._namespace.argv, *command]
                inherited += self._namespace.fds
            with self._command.open("a") as file:
                file.write(shlex.join(command) + "\n")
            if self._powered_on:
                self._listener.new_boot("power-on")
            self._powered_on = True
            life.wires.start()
            life.process = SandboxedProcess(
                command,
                pass_fds=inherited,
                stderr=stderr_fd,
                on_exit=life.on_exit,
                name="qemu",
                # A fork would take 7 MB more, of the 65 that are its own, and be no faster.
                huge_pages=self._template is None,
            )
            life.process.start()
            failed.pop_all()

    def _end(self) -> None:
        """End QEMU and the TPM if they run, and give back all that one life has taken."""
        life, self._life, self._ssh_port = self._life, None, None
        if life is not None:
            if not life.exited.is_set():
                self._listener.expect_end()
            life.kill()
            if life.process is not None:
                life.process.join(_END_SECONDS)
            if life.process is None or not life.process.ran:
                life.abandon()
            if life.qmp is not None:
                life.qmp.close()
        if self._tpm is not None:
            self._tpm.kill()
            self._tpm.join(_END_SECONDS)
            self._tpm = None
        if life is not None:
            # What stays is ours again.
            stay = (self._result("ttyS0.log"), self._result("ttyS1.log"), *((self._disk,) if self._own else ()))
            give(None, *(path for path in stay if path.exists()))
