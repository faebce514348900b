"""Runs the benchmarks and writes what they say into the README, between the two comments that mark the place.

    bench/table.py --forks 500

Each benchmark is a process of its own and prints one JSON line. One that fails leaves the README as it is.
"""

import argparse
import datetime
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_PLACE = re.compile(r"(?<=<!-- bench -->\n).*?(?=<!-- /bench -->)", re.DOTALL)

Numbers = Mapping[str, float]


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and write the README's table.")
    parser.add_argument("--readme", type=Path, default=_HERE.parent / "README.md", metavar="FILE")
    parser.add_argument("--forks", type=int, default=100, metavar="N", help="forks in a row (default: %(default)s)")
    parser.add_argument("--alive", type=int, default=50, metavar="N", help="forks at once (default: %(default)s)")
    parser.add_argument("-n", type=int, default=5, metavar="N", help="boots of each kind (default: %(default)s)")
    arguments = parser.parse_args()
    text = arguments.readme.read_text()
    if not _PLACE.search(text):
        sys.exit(f"table: {arguments.readme} has no place for the table: <!-- bench --> and <!-- /bench -->")
    boots = _run("cold_boot.py", "-n", str(arguments.n))
    forks = _run("fork.py", "-n", str(arguments.forks), "--alive", str(arguments.alive))
    others = _run("others.py", "-n", str(arguments.n))
    table = render(boots, forks, others, today=datetime.datetime.now(tz=datetime.UTC).date().isoformat())
    arguments.readme.write_text(_PLACE.sub(lambda _: table, text))
    return 0


def _run(script: str, *args: str) -> Numbers:
    print(f"{script} {' '.join(args)}", file=sys.stderr, flush=True)
    ended = subprocess.run([sys.executable, _HERE / script, *args, "--json"], stdout=subprocess.PIPE, check=False)
    if ended.returncode:
        sys.exit(f"table: {script} ended with status {ended.returncode}")
    told: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return told


def render(boots: Numbers, forks: Numbers, others: Numbers, *, today: str) -> str:
    """Return the table, from what cold_boot.py, fork.py and others.py have printed."""
    rows: Sequence[tuple[str, str]] = [
        ("a cold boot, followed to its verdict", f"{boots['cold_boot_s']:.1f} s"),
        ("bare QEMU on the same arguments, to the same line", f"{boots['bare_qemu_s']:.1f} s"),
        ("the first over the second, median of pairs", f"{boots['boot_over_bare']:.2f}"),
        ("first answer of a cold boot", f"{others['cold_boot_s']:.1f} s"),
        ("… with labgrid's QEMUDriver and ShellDriver", f"{others['labgrid_s']:.1f} s"),
        ("… with a script for pexpect", f"{others['pexpect_s']:.1f} s"),
        ("… of a machine that is rebooted for each test", f"{others['reboot_s']:.1f} s"),
        ("… of a fork, ended again", f"{others['fork_s']:.2f} s"),
        (f"first answer of a fork, median of {forks['forks']}", f"{forks['fork_median_s']:.2f} s"),
        (f"memory of its own, of {forks['alive']} forks alive at once", f"{forks['private_mb']:.0f} MB"),
    ]
    host = f"Measured on {today} with {_cores()}, {platform.system()} {platform.release()}."
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), "", host, ""])


def _cores() -> str:
    models = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return f"{len(models)} processors ({models[0]})" if models else "unknown processors"


if __name__ == "__main__":
    sys.exit(main())
