"""A local Compute Engine that boots real machines: Compute v1, Cloud Storage v1 and the metadata server.

with Emulator() as emulator:
    print(emulator.endpoint)
"""

from vmtests.emulator.emulator import Emulator

__all__ = ["Emulator"]
