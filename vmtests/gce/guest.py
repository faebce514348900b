"""What an instance's guest is handed by its metadata, and what it says on the serial console for it.

Images for Compute Engine run a `startup-script` (Compute Engine's "Running startup scripts"). The one here changes
nothing: it tells the host keys, by which ssh knows the guest, and says when the last job has ended. An image that runs
none tells its host keys by guest attributes, or on the console as cloud-init does.
"""

import re

from vmtests.boot.scanner import Scanner

SERIAL_SHELL_UNIT = "vmtests-shell.service"

_PATH = "PATH=$PATH:/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# In two parts: what prints the script, or runs it, does not print the token.
# Only systemd says when the last job has ended; of other inits a login prompt has to do.
_SCRIPT = """\
#!/bin/sh
{path}
announce() {{
  "$@" /bin/sh -c '
  {path}
  state=$($3)
  for file in /etc/ssh/ssh_host_*_key.pub; do
    [ -e "$file" ] || continue
    read -r kind key comment < "$file"
    printf "\\r\\n%s%s hostkey %s %s\\r\\n" "$1" "$2" "$kind" "$key"
  done > /dev/console
  [ -z "$state" ] || printf "\\r\\n%s%s %s\\r\\n" "$1" "$2" "$state" > /dev/console
' announce {first} {rest} "$end"
}}
end=
if [ -d /run/systemd/system ]; then
  end='systemctl is-system-running --wait'
  set -- --description='Announce the end of the boot'
  announce systemd-run "$@" --quiet --no-block --collect --unit=vmtests-announce
else
  announce env
fi
"""

_SHELL = (
    "systemctl is-active --quiet debug-shell.service {unit} || "
    "systemd-run --quiet --collect --unit={unit} --property=StandardInput=tty-force --property=StandardOutput=tty "
    "--property=StandardError=tty --property=TTYPath=/dev/{port} --property=KillMode=process "
    "--property=KillSignal=SIGHUP --property=IgnoreSIGPIPE=no --property=Restart=always --setenv=TERM=dumb "
    "--setenv=HOME=/root --setenv=PATH=\"$PATH\" /bin/sh -c 'cd; exec sh -i'"
)

_TYPE = r"(?P<type>ssh-[a-z0-9-]{2,20}|ecdsa-sha2-nistp\d{3})"
_KEY = rf"{_TYPE} (?P<key>[A-Za-z0-9+/]{{60,800}}={{0,2}})"
_BEGIN, _END = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"
_PLAIN = re.compile(_KEY)
_KEYS = 16


def metadata(public_key: str, token: str, *, os_login: bool = False) -> dict[str, str]:
    """Return the metadata of an instance into which root gets by `public_key`, over ssh and at the serial console.

    The guest says `token` and its state on the console when its last job has ended. With `os_login` nobody is let in.
    """
    if os_login:
        return {"enable-oslogin": "TRUE", "startup-script": startup_script(token)}
    return {
        "ssh-keys": f"root:{public_key}",
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "FALSE",
        "serial-port-enable": "TRUE",
        "enable-guest-attributes": "TRUE",
        "startup-script": startup_script(token),
    }


def startup_script(token: str) -> str:
    """Return the script that tells host keys, and the end of the boot."""
    middle = len(token) // 2
    return _SCRIPT.format(path=_PATH, first=token[:middle], rest=token[middle:])


def serial_shell(port: str) -> str:
    """Return the command that has a root shell on a serial port, such as `ttyS1`, until the guest restarts."""
    return _SHELL.format(unit=SERIAL_SHELL_UNIT, port=port)


class HostKeys:
    """Finds host keys in what the serial console says: those of the startup script, and those of cloud-init."""

    def __init__(self, token: str) -> None:
        self._told = re.compile(rf"{re.escape(token)} hostkey {_KEY}")
        self._scanner = Scanner()
        self._between = False
        self._found: dict[str, None] = {}

    @property
    def lines(self) -> tuple[str, ...]:
        """The keys that were found, as in `ssh_host_*_key.pub`."""
        return tuple(self._found)

    def feed(self, data: bytes) -> None:
        """Take bytes of the console."""
        for line in self._scanner.feed(data):
            text = line.text
            if _BEGIN in text or _END in text:
                self._between = _BEGIN in text
            match = self._told.search(text) or (_PLAIN.match(text) if self._between else None)
            if match and len(self._found) < _KEYS:
                self._found[f"{match['type']} {match['key']}"] = None
