"""The content of an object of Cloud Storage while it comes: written to a file and hashed, never in memory."""

import base64
import hashlib
from pathlib import Path

import google_crc32c

from vmtests.emulator.http import ApiError, Body, Json

_CHUNK = 1 << 20


class Content:
    """The content of an object while it comes, written to `path` and hashed on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file = path.open("wb", buffering=0)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]
        self._md5.update(data)
        self._crc = google_crc32c.extend(self._crc, data)
        self.size += len(data)

    def take(self, body: Body) -> None:
        """Append a body, to its end."""
        while data := body.read(_CHUNK):
            self.write(data)

    @property
    def crc32c(self) -> str:
        """The checksum of what came so far, as the API writes it."""
        return base64.b64encode(self._crc.to_bytes(4)).decode()

    @property
    def md5(self) -> str:
        """The MD5 of what came so far, as the API writes it."""
        return base64.b64encode(self._md5.digest()).decode()

    def check(self, expected: Json) -> None:
        """Raise ApiError unless the content has the `crc32c` and `md5Hash` that are expected, where they are."""
        for name, actual in (("crc32c", self.crc32c), ("md5Hash", self.md5)):
            if (given := expected.get(name)) and given != actual:
                message = f'Provided {name} "{given}" doesn\'t match calculated {name} "{actual}".'
                raise ApiError(400, "invalid", message)

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def discard(self) -> None:
        """Close the file and remove it."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def parse_hash_header(text: str) -> Json:
    """Return what an `x-goog-hash` header says as the fields of an object; raises ApiError."""
    found: Json = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        kind, _, value = item.partition("=")
        try:
            base64.b64decode(value, validate=True)
        except ValueError as error:  # one that is no ASCII too
            raise ApiError(400, "invalid", f"Invalid value for header 'x-goog-hash': '{text}'.") from error
        if name := {"crc32c": "crc32c", "md5": "md5Hash"}.get(kind):
            found[name] = value
    return found
