"""What can be known before anything is made: machine type and disk, the network, and policies of the organization.

What this login may not ask is not looked at: Compute Engine says it then when the instance is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from vmtests import progress
from vmtests.errors import InputError
from vmtests.gce import series
from vmtests.gce.cloud import Cloud
from vmtests.gce.errors import (
    POLICIES,
    CloudError,
    DeniedError,
    NotFoundError,
    PolicyError,
    UnavailableError,
    UnsupportedError,
)
from vmtests.gce.instance import Order, region_of
from vmtests.host.architecture import GUEST

_ORG_POLICY = "https://orgpolicy.googleapis.com"
_SERIAL = "serial-port-enable"
_OTHERS = frozenset(("ARM64", "X86_64")) - {GUEST.compute_engine}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What was found: the zones that have the machine type, and the policies that hold."""

    zones: tuple[str, ...]
    policies: frozenset[str]


def look(cloud: Cloud, machine: str, zones: Sequence[str]) -> Preflight:
    """Look at zones, network and policies; raises CloudError, InputError for what the machine cannot have."""
    settings = cloud.settings
    if settings.disk_type and not series.takes(machine, settings.disk_type):
        raise InputError(
            f"{machine} takes no boot disk of the type {settings.disk_type}",
            hint=f"without --gce-disk-type it is {series.disk_type(machine)}",
        )
    if region := settings.subnetwork.partition("/regions/")[2].partition("/")[0]:
        zones = [zone for zone in zones if region_of(zone) == region]
        if not zones:
            raise InputError(f"no zone is in the subnetwork's region, {region}", hint="--gce-zone names zones")
    with progress.step("looking at what the project allows"):
        found = _zones(cloud, machine, zones)
        _network(cloud, found[0])
        return Preflight(zones=found, policies=_policies(cloud))


def obey(found: Preflight, order: Order) -> Order:
    """Return the order without what a policy forbids and nobody needs; raises PolicyError for what is needed."""
    broken = []
    if "compute.requireShieldedVm" in found.policies and not (order.secure_boot and order.tpm):
        broken.append("compute.requireShieldedVm")
    if "compute.vmExternalIpAccess" in found.policies and not order.internal:
        broken.append("compute.vmExternalIpAccess")
    if "compute.requireOsLogin" in found.policies and order.metadata.get("enable-oslogin") == "FALSE":
        broken.append("compute.requireOsLogin")
    if "compute.disableSerialPortAccess" in found.policies and _SERIAL in order.metadata:
        broken.append("compute.disableSerialPortAccess")
    if broken:
        name = broken[0]
        raise PolicyError(f"{PolicyError.why}constraint {name}", hint=POLICIES[name], code="conditionNotMet")
    return order


def _zones(cloud: Cloud, machine: str, zones: Sequence[str]) -> tuple[str, ...]:
    """Return the zones that have machines of the type."""
    found, missing = [], None
    for zone in zones:
        request = {"project": cloud.settings.project, "zone": zone, "machine_type": machine}
        try:
            kind = cloud.read(f"looking for {machine} in {zone}", cloud.machine_types.get, request)
        except NotFoundError as error:
            if "/machineTypes/" not in error.message:
                hint = "look at --gce-project and --gce-zone: gcloud compute zones list says which zones there are"
                raise NotFoundError(error.message, hint=hint, code=error.code) from error
            missing = UnsupportedError(f"{UnsupportedError.why}{machine} in {', '.join(zones)}", code=error.code)
        except DeniedError:
            return tuple(zones)
        else:
            if kind.architecture in _OTHERS:
                raise InputError(f"{machine} is a machine of another architecture, {kind.architecture}")
            found.append(zone)
    if not found and missing is not None:
        raise missing
    if missing is not None:
        left_out = ", ".join(zone for zone in zones if zone not in found)
        progress.stderr().print(f"vmtests: no {machine} in {left_out}; trying {', '.join(found)} only")
    return tuple(found)


def _network(cloud: Cloud, zone: str) -> None:
    """Raise NotFoundError when there is no such network; one of another project is not ours to ask for."""
    settings = cloud.settings
    hint = "--gce-network=NAME, or --gce-subnetwork=NAME where a network has no automatic ones"
    request = {"project": settings.project}
    try:
        if (name := settings.subnetwork) and "/" not in name:
            more = {"region": region_of(zone), "subnetwork": name}
            cloud.read(f"looking for the subnetwork {name}", cloud.subnetworks.get, {**request, **more})
        elif "/" not in (name := settings.network or ("" if settings.subnetwork else "default")) and name:
            cloud.read(f"looking for the network {name}", cloud.networks.get, {**request, "network": name})
    except NotFoundError as error:
        raise NotFoundError(error.message, hint=hint, code=error.code) from error
    except DeniedError:
        return


def _policies(cloud: Cloud) -> frozenset[str]:
    """Return the policies that hold in the project ("Organization Policy API", projects.policies)."""
    found = set()
    for name in POLICIES:
        try:
            rules = _effective(cloud, name)
        except CloudError:
            break
        # What a list allows are machines that are there already: none that is to be made.
        if any(rule.enforce or rule.deny or rule.values.allowed for rule in rules):
            found.add(name)
    return frozenset(found)


class _Values(msgspec.Struct):
    allowed: list[str] = msgspec.field(default_factory=list, name="allowedValues")


class _Rule(msgspec.Struct):
    enforce: bool = False
    deny: bool = msgspec.field(default=False, name="denyAll")
    values: _Values = msgspec.field(default_factory=_Values)


class _Spec(msgspec.Struct):
    rules: list[_Rule] = msgspec.field(default_factory=list)


class _Effective(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


def _effective(cloud: Cloud, name: str) -> list[_Rule]:
    from google.auth.transport.requests import AuthorizedSession

    settings = cloud.settings
    base = settings.endpoint or _ORG_POLICY
    url = f"{base}/v2/projects/{settings.project}/policies/{name}:getEffectivePolicy"
    with AuthorizedSession(settings.credentials()) as session:  # type: ignore[no-untyped-call]
        answer = cloud.ask("asking for policies", lambda: session.get(url, timeout=cloud.pace.answer), patience=0.0)
    if not answer.ok:
        raise DeniedError(f"the policies cannot be looked at: HTTP status {answer.status_code}")
    try:
        return msgspec.json.decode(answer.content, type=_Effective).spec.rules
    except (ValueError, RecursionError) as error:
        raise UnavailableError(f"the policies cannot be looked at: {error}") from error
