"""What is handed to a guest as systemd credentials: a way in, and units that help to follow it.

systemd-debug-generator(8) makes units of the credentials `systemd.extra-unit.*` and `systemd.unit-dropin.*` (systemd
≥ 256); an older guest ignores them. Nothing in the image changes.
"""

_PATH = "PATH=$$PATH:/run/current-system/sw/bin:/usr/sbin:/usr/bin:/bin"

_ANNOUNCE = """\
[Unit]
Description=Announce the end of the boot
DefaultDependencies=no
After={target}

[Service]
Type=exec
ExecStart=/bin/sh -c '{path}; state=$$(systemctl is-system-running --wait); \
printf "\\r\\n%%s%%s %%s\\r\\n" {first} {rest} "$$state" >/dev/console'
"""

# Tells that this guest makes units of credentials, so that it will announce itself; before any service can print.
_GREET = """\
[Unit]
Description=Greet the host
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'printf "\\r\\n%%s%%s %%s\\r\\n" {first} {rest} hello >/dev/console'
"""


def login(public_key: str) -> dict[str, bytes]:
    """Return the credentials that log root in on the serial line and let `public_key` in over ssh."""
    return {
        "agetty.autologin": b"root",
        "login.noauth": b"yes",
        "ssh.authorized_keys.root": public_key.encode(),
    }


def announce(target: str, token: str) -> dict[str, bytes]:
    """Return the credentials by which a guest prints `token` and its state once `target` is up and no job is left.

    It greets before its first service starts: one that did has to announce itself too. The units have the token in
    two parts: a manager that prints the command which it runs does not print the token.
    """
    middle = len(token) // 2
    parts = {"first": token[:middle], "rest": token[middle:]}
    return {
        "systemd.extra-unit.vmtests-greet.service": _GREET.format(**parts).encode(),
        "systemd.unit-dropin.sysinit.target~vmtests": b"[Unit]\nWants=vmtests-greet.service\n",
        "systemd.extra-unit.vmtests-announce.service": _ANNOUNCE.format(target=target, path=_PATH, **parts).encode(),
        f"systemd.unit-dropin.{target}~vmtests": b"[Unit]\nWants=vmtests-announce.service\n",
    }


def debug_shell() -> dict[str, bytes]:
    """Return the credentials that open a root shell on ttyS1, where the boot loader adds no `systemd.debug_shell=`.

    The unit is systemd's own debug-shell.service: asked for twice, it is there once.
    """
    return {
        "systemd.unit-dropin.debug-shell.service~vmtests": b"[Service]\nTTYPath=/dev/ttyS1\n",
        "systemd.unit-dropin.sysinit.target~vmtests-debug": b"[Unit]\nWants=debug-shell.service\n",
    }
