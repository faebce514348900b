"""The scheduling of an instance: who may take it away, and when it ends by itself."""

from vmtests.emulator.http import Json, invalid
from vmtests.emulator.zones import MachineType

_RUN_SECONDS = (30, 120 * 86400)  # Compute Engine's "Limit the run time of a VM"
_ACTIONS = {"DELETE", "STOP"}


def scheduling_of(given: object, kind: MachineType) -> Json:
    """Return the scheduling of an instance with what was not given filled in; raises ApiError."""
    wanted = given if isinstance(given, dict) else {}
    spot = wanted.get("provisioningModel") == "SPOT" or bool(wanted.get("preemptible"))
    automatic = bool(wanted.get("automaticRestart", not spot))
    maintenance = wanted.get("onHostMaintenance", "TERMINATE" if spot else "MIGRATE")
    if spot and (automatic or maintenance != "TERMINATE"):
        raise invalid("scheduling", "SPOT", "a spot instance is not restarted, and terminated for maintenance")
    if not spot and kind.name.startswith("e2-") and maintenance == "TERMINATE":
        why = "efficient instances do not support onHostMaintenance=TERMINATE unless they are preemptible"
        raise invalid("scheduling.onHostMaintenance", maintenance, why)
    answer: Json = {
        "automaticRestart": automatic,
        "onHostMaintenance": maintenance,
        "preemptible": spot,
        "provisioningModel": "SPOT" if spot else wanted.get("provisioningModel", "STANDARD"),
    }
    if (action := wanted.get("instanceTerminationAction")) is not None:
        if action not in _ACTIONS:
            raise invalid("scheduling.instanceTerminationAction", action, "must be DELETE or STOP")
        answer["instanceTerminationAction"] = action
    if limit := wanted.get("maxRunDuration"):
        answer["maxRunDuration"] = {"seconds": str(_seconds(limit))}
        if action is None:
            why = "an instance termination action is needed with maxRunDuration"
            raise invalid("scheduling.instanceTerminationAction", action, why)
    return answer


def _seconds(limit: object) -> int:
    value = limit.get("seconds") if isinstance(limit, dict) else None
    least, most = _RUN_SECONDS
    try:
        seconds = int(str(value))
    except ValueError as error:
        raise invalid("scheduling.maxRunDuration.seconds", value, "it is not a number") from error
    if not least <= seconds <= most:
        raise invalid("scheduling.maxRunDuration.seconds", seconds, f"must be from {least} to {most}")
    return seconds
