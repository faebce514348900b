"""What is handed to a guest as systemd credentials: a way in, and units that help to follow it.

systemd-debug-generator(8) makes units of the credentials `systemd.extra-unit.*` and `systemd.unit-dropin.*` (systemd
≥ 256); an older guest ignores them. Nothing in the image changes.
"""

from vmtests.contract import Contract
from vmtests.host.architecture import GUEST

_PATH = "PATH=$$PATH:/run/current-system/sw/bin:/usr/sbin:/usr/bin:/bin"

# /dev/console is the last of those that are active (Linux, Documentation/ABI/testing/sysfs-tty).
# Where that is a screen, the host hears nothing of it.
_TO = (
    "to=/dev/console; read -r active </sys/class/tty/console/active; "
    'case "$$active" in *{console}) ;; *) to=/dev/{console} ;; esac'
)

_ANNOUNCE = """\
[Unit]
Description=Announce the end of the boot
DefaultDependencies=no
After={target}

[Service]
Type=exec
ExecStart=/bin/sh -c '{path}; state=$$(systemctl is-system-running --wait); {to}; failed=; \
[ "$$state" = running ] || failed=$$(systemctl list-units --failed --plain --no-legend --full | \
while read -r unit rest; do printf " %%s" "$$unit"; done); \
printf "\\r\\n%%s%%s %%s%%s\\r\\n" {first} {rest} "$$state" "$$failed" >$$to'
"""

# Tells that this guest makes units of credentials, so that it will announce itself; before any service can print. Each
# manager greets, stage 1's and the system's: by that file systemd itself knows where it is (bootup(7)).
_GREET = """\
[Unit]
Description=Greet the host
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c '{to}; from=userspace; [ ! -e /etc/initrd-release ] || from=initrd; \
printf "\\r\\n%%s%%s hello from %%s\\r\\n" {first} {rest} "$$from" >$$to'
"""


# The stock profile for clouds of NixOS has no getty on the console. Where there is one, it is left alone: whoever
# opens the line beside agetty is ended by its vhangup(2), which is why the question is asked by a unit without it.
_OFFER_SHELL = """\
[Unit]
Description=Offer a root shell on {console}
After=serial-getty@{console}.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c '{path}; systemctl is-active --quiet serial-getty@{console}.service || \
exec systemctl --no-block start vmtests-shell.service'
"""
_SHELL = """\
[Unit]
Description=Root shell on {console}
ConditionPathExists=/dev/{console}

[Service]
ExecStart=/bin/sh -c '{path}; cd; exec sh -i'
Environment=HOME=/root TERM=dumb
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/{console}
KillMode=process
KillSignal=SIGHUP
IgnoreSIGPIPE=no
Restart=always
"""

# What systemd ships as provision.conf, which NixOS leaves out (tmpfiles.d(5), systemd-tmpfiles(8)).
_TMPFILES = """\
d /root/.ssh 0700 root root -
f^ /root/.ssh/authorized_keys 0600 root root - ssh.authorized_keys.root
"""


# They wait for a metadata server, and sshd for the first of them.
_NEED_METADATA = (
    "google-guest-agent.service",
    "google-guest-agent-manager.service",
    "google-guest-compat-manager.service",
    "google-startup-scripts.service",
    "google-shutdown-scripts.service",
)
_NO_METADATA = b"""\
[Service]
ExecCondition=
ExecCondition=/bin/sh -c 'exit 1'
"""


def no_metadata() -> dict[str, bytes]:
    """Return the credentials that keep a cloud's agents from waiting for the metadata server that is not there."""
    return {f"systemd.unit-dropin.{unit}~vmtests": _NO_METADATA for unit in _NEED_METADATA}


def login(public_key: str, console: str, target: str) -> dict[str, bytes]:
    """Return the credentials that give root a shell on the serial line `console`, and let `public_key` in over ssh.

    The shell starts with `target`.
    """
    return {
        "agetty.autologin": b"root",
        "login.noauth": b"yes",
        "ssh.authorized_keys.root": public_key.encode(),
        "tmpfiles.extra": _TMPFILES.encode(),
        "systemd.extra-unit.vmtests-offer-shell.service": _OFFER_SHELL.format(console=console, path=_PATH).encode(),
        "systemd.extra-unit.vmtests-shell.service": _SHELL.format(console=console, path=_PATH).encode(),
        f"systemd.unit-dropin.{target}~vmtests-shell": b"[Unit]\nWants=vmtests-offer-shell.service\n",
    }


def announce(target: str, token: str, console: str = GUEST.console) -> dict[str, bytes]:
    """Return the credentials by which a guest prints `token` and its state once `target` is up and no job is left.

    The names of units that failed come behind it. It is printed on the system's console, or on the serial line
    `console` where that is another.

    It greets before its first service starts: one that did has to announce itself too. The units have the token in
    two parts: a manager that prints the command which it runs does not print the token.
    """
    middle = len(token) // 2
    parts = {"first": token[:middle], "rest": token[middle:], "to": _TO.format(console=console)}
    return {
        "systemd.extra-unit.vmtests-greet.service": _GREET.format(**parts).encode(),
        "systemd.unit-dropin.sysinit.target~vmtests": b"[Unit]\nWants=vmtests-greet.service\n",
        "systemd.extra-unit.vmtests-announce.service": _ANNOUNCE.format(target=target, path=_PATH, **parts).encode(),
        f"systemd.unit-dropin.{target}~vmtests": b"[Unit]\nWants=vmtests-announce.service\n",
    }


def voices(contract: Contract) -> dict[str, bytes]:
    """Return the credentials by which what stage 1 runs says on the console why it failed, not to the journal only.

    Through the kernel's log, at a level that it shows: a unit that may write to the console itself would end
    systemd's lines on running jobs (src/core/manager.c, `n_on_console`). `sysroot-.mount` stands for all units whose
    name begins so (systemd.unit(5), on drop-ins).
    """
    units = contract.units
    services = (
        *(units.make_upper, units.find_closure, units.activation, units.switch_root),
        *("systemd-fsck-root.service", "systemd-fsck@.service"),
    )
    named = dict.fromkeys(filter(None, services), "Service")
    names = {"sysroot.mount": "Mount", "sysroot-.mount": "Mount", **named}
    text = "StandardError=kmsg\nSyslogLevel=err\n"
    return {f"systemd.unit-dropin.{name}~vmtests-voice": f"[{kind}]\n{text}".encode() for name, kind in names.items()}


def first_boot() -> dict[str, bytes]:
    """Return the credentials that answer the wizard of the first boot, as mkosi hands them in (systemd-firstboot(1)).

    An image that has its own answers keeps them. Root gets no password that anybody could type.
    """
    return {
        "firstboot.locale": b"C.UTF-8",
        "firstboot.timezone": b"UTC",
        "passwd.hashed-password.root": b"!*",
    }


def debug_shell() -> dict[str, bytes]:
    """Return the credentials that open a root shell on ttyS1, where the boot loader adds no `systemd.debug_shell=`.

    The unit is systemd's own debug-shell.service: asked for twice, it is there once.
    """
    return {
        "systemd.unit-dropin.debug-shell.service~vmtests": b"[Service]\nTTYPath=/dev/ttyS1\n",
        "systemd.unit-dropin.sysinit.target~vmtests-debug": b"[Unit]\nWants=debug-shell.service\n",
    }


def all_of(public_key: str, contract: Contract, token: str) -> dict[str, bytes]:
    """Return the credentials that every guest of ours gets."""
    console, target = contract.boot.console, contract.units.ready
    return {
        **login(public_key, console, target),
        **no_metadata(),
        **announce(target, token, console),
        **voices(contract),
        **first_boot(),
    }
