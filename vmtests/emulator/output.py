"""What an instance gives out: its serial ports, its screen, and what its guest has said."""

import base64
import codecs

from vmtests.emulator.http import ApiError, Json, Request, invalid, not_found
from vmtests.emulator.instance import SERIAL_PORTS, Instance, Status


def serial_port(instance: Instance, request: Request) -> Json:
    """Return the output of a serial port from a position on (`compute.instances.getSerialPortOutput`)."""
    port = request.number("port", 1)
    if not 1 <= port <= SERIAL_PORTS:
        raise invalid("port", port, f"must be from 1 to {SERIAL_PORTS}")
    if instance.status not in {Status.RUNNING, Status.STOPPING}:
        raise instance.not_ready()
    start, data = instance.ports[port - 1].read(request.number("start", 0))
    # A character whose last bytes are still to come is left for the next page: two halves would be two wrong ones.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    contents = decoder.decode(data)
    half, _ = decoder.getstate()
    return {
        "kind": "compute#serialPortOutput",
        "selfLink": f"{instance.resource['selfLink']}/serialPort",
        "contents": contents,
        "start": str(start),
        "next": str(start + len(data) - len(half)),
    }


def screenshot(instance: Instance) -> Json:
    """Return the screen (`compute.instances.getScreenshot`), as PNG."""
    if not instance.resource.get("displayDevice", {}).get("enableDisplay"):
        message = f"Invalid resource usage: 'Display device is not enabled on {instance.place.path}'."
        raise ApiError(400, "invalidUsage", message)
    if instance.status is not Status.RUNNING:
        raise instance.not_ready()
    with instance.turn:
        # The turn may have been waited for.
        if instance.status is not Status.RUNNING:
            raise instance.not_ready()
        image = instance.power().screenshot()
    return {"kind": "compute#screenshot", "contents": base64.b64encode(image).decode()}


def guest_attributes(instance: Instance, request: Request) -> Json:
    """Return what the guest has said (`compute.instances.getGuestAttributes`)."""
    path, key = request.query.get("queryPath"), request.query.get("variableKey")
    namespace, _, name = (path or key or "").partition("/")
    link = f"{instance.resource['selfLink']}/getGuestAttributes/{path or key or ''}"
    answer: Json = {"kind": "compute#guestAttributes", "selfLink": link}
    with instance.cloud.changed:
        known = instance.writable_guest_attributes() or {}
        found = {
            (space, one): value
            for space, values in known.items()
            for one, value in values.items()
            if namespace in {"", space} and name in {"", one}
        }
    if not found:
        raise not_found(f"{instance.place.path}/guestAttributes/{path or key or ''}")
    if key is not None and path is None:
        return {**answer, "variableKey": key, "variableValue": next(iter(found.values()))}
    items = [{"namespace": space, "key": one, "value": value} for (space, one), value in sorted(found.items())]
    return {**answer, "queryPath": path or "", "queryValue": {"items": items}}
