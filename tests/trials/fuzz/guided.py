"""Fuzzes one parser, guided by which of its lines run: `python -m tests.trials.fuzz.guided NAME SECONDS`.

Needs atheris (libFuzzer for Python), which is for Linux and few versions of Python, so that nothing else here does.
Each way to fall down is told once, with an input; all goes on until as much of a processor was used.
"""

import os
import sys
import tempfile
import traceback
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["vmtests"]):
    from tests.trials.fuzz.limits import Judge, processor
    from tests.trials.fuzz.lines import hurried
    from tests.trials.fuzz.parsers import PARSERS


def main(name: str, seconds: float) -> None:
    """Fuzz a parser, and end the process: with 1 where it fell."""
    parser = PARSERS[name]
    judge, falls, begun = Judge(parser), set[str](), processor()
    good = parser.good()
    for one in good:
        parser.call(one)
    good += parser.found

    def end() -> None:
        said = f"{name}: {judge}; {processor() - begun:.0f} s: {len(falls)} ways to fall"
        os.write(1, f"{said}\n".encode())
        os._exit(1 if falls else 0)

    def look(data: bytes) -> None:
        try:
            judge(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
            if where not in falls:
                falls.add(where)
                told = "".join(traceback.format_exception(error)[-6:])
                os.write(1, f"{name}: {where}: {error}\n{told}input: {data[:4000]!r}\n".encode("utf-8", "replace"))
        if processor() - begun > seconds:
            end()

    with tempfile.TemporaryDirectory() as corpus, hurried():
        for number, one in enumerate(good):
            Path(corpus, str(number)).write_bytes(one)
        longest = max(4096, *(2 * len(one) for one in good))
        options = (f"-max_len={longest}", "-timeout=300", "-rss_limit_mb=0", "-print_final_stats=0", "-verbosity=0")
        atheris.Setup([sys.argv[0], *options, corpus], look)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
