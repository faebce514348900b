"""What a project may not: policies of its organization, quotas, networks that are not there, missing permissions.

All is allowed until the emulator's own API says otherwise. The words of policies are those of "Organization policy
constraints", as Compute Engine refuses with them.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from vmtests.emulator.faults import OperationError
from vmtests.emulator.http import ApiError, Json, Request, Route, not_found
from vmtests.emulator.zones import ZONES, MachineType, region_of

_SHIELDED = ("enableSecureBoot", "enableVtpm", "enableIntegrityMonitoring")
# What is done to more than the thing itself ("Compute Engine IAM roles and permissions").
_AS_CREATE = {"insert": "create", "aggregatedList": "list", "getFromFamily": "get"}


class Rules(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What holds in all projects.

    `policies` are constraints that are enforced, `cpus` the processors that each region's quota allows, `networks`
    those that are there (None is any), `permissions` those that the caller has (None is all).
    """

    policies: list[str] = msgspec.field(default_factory=list)
    cpus: dict[str, int] = msgspec.field(default_factory=dict)
    networks: list[str] | None = None
    permissions: list[str] | None = None
    lacking: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Machine types that zones have not."""
    unreachable: list[str] = msgspec.field(default_factory=list)
    """Zones of which aggregated lists say that they did not answer."""


class Law:
    """Holds requests against the rules."""

    def __init__(self) -> None:
        self.rules = Rules()

    def routes(self, admin: str = "rules") -> Iterator[Route]:
        """The emulator's own methods."""
        yield Route("emulator.rules.get", "GET", admin, lambda _: msgspec.to_builtins(self.rules))
        yield Route("emulator.rules.update", "PUT", admin, self._set)

    def policy_routes(self) -> Iterator[Route]:
        """The method of the Organization Policy API that vmtests asks; `{policy}` ends with its verb."""
        yield Route(
            "orgpolicy.projects.policies.getEffectivePolicy",
            "GET",
            "projects/{project}/policies/{policy}",
            self._policy,
        )

    def network_routes(self) -> Iterator[Route]:
        """The methods of networks and subnetworks that say whether there is one."""
        project = "projects/{project}"
        yield Route("compute.networks.get", "GET", f"{project}/global/networks/{{network}}", self._network)
        template = f"{project}/regions/{{region}}/subnetworks/{{subnetwork}}"
        yield Route("compute.subnetworks.get", "GET", template, self._subnetwork)

    def _set(self, request: Request) -> Json:
        try:
            self.rules = msgspec.convert(request.json(), Rules)
        except msgspec.ValidationError as error:
            raise ApiError(400, "invalid", f"No rules: {error}") from error
        answer: Json = msgspec.to_builtins(self.rules)
        return answer

    def _policy(self, request: Request) -> Json:
        name = request.params["policy"].partition(":")[0]
        self._permit("orgpolicy.policy.get", request.path)
        listed = name == "compute.vmExternalIpAccess"
        rule = {"denyAll": True} if listed else {"enforce": True}
        rules = [rule] if name in self.rules.policies else []
        return {"name": f"projects/{request.params['project']}/policies/{name}", "spec": {"rules": rules}}

    def _network(self, request: Request) -> Json:
        project, name = request.params["project"], request.params["network"]
        self.check_network(project, name)
        return {"kind": "compute#network", "name": name}

    def _subnetwork(self, request: Request) -> Json:
        project, name, region = (request.params[key] for key in ("project", "subnetwork", "region"))
        if region not in ZONES or (self.rules.networks is not None and name not in self.rules.networks):
            raise not_found(f"projects/{project}/regions/{region}/subnetworks/{name}")
        return {"kind": "compute#subnetwork", "name": name}

    def check_network(self, project: str, name: str) -> None:
        """Raise ApiError when there is no such network."""
        if self.rules.networks is not None and name not in self.rules.networks:
            raise not_found(f"projects/{project}/global/networks/{name}")

    # Permissions.

    def permit(self, route: Route, request: Request) -> None:
        """Raise ApiError when the caller may not what the route does."""
        if self.rules.permissions is None or not route.id.startswith("compute."):
            return
        _, kind, verb = route.id.split(".")
        self._permit(f"compute.{kind}.{_AS_CREATE.get(verb, verb)}", request.path)

    def permit_instance(self, given: Json, path: str) -> None:
        """Raise ApiError when the caller may not all that the body of an insertion asks for."""
        for permission in _of_instance(given):
            self._permit(permission, path)

    def _permit(self, permission: str, path: str) -> None:
        if self.rules.permissions is None or permission in self.rules.permissions:
            return
        what = path.partition("/projects/")[2] or path
        message = f"Required '{permission}' permission for 'projects/{what}'"
        detail = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "IAM_PERMISSION_DENIED",
            "domain": "iam.googleapis.com",
            "metadata": {"permission": permission},
        }
        raise ApiError(403, "forbidden", message, details=[detail])

    # Policies and quotas.

    def obey(self, given: Json, metadata: Mapping[str, str], where: str) -> None:
        """Raise ApiError for an instance that a policy forbids; `where` is its name from `projects/` on."""
        project = where.split("/")[1]
        for name, why in _broken(given, metadata):
            if name in self.rules.policies:
                message = f"Constraint constraints/{name} violated for project projects/{project}. {why}"
                raise ApiError(412, "conditionNotMet", message)

    def quota(self, zone: str, kind: MachineType, others: Iterable[tuple[str, int]]) -> None:
        """Raise OperationError when `kind` is too much beside the `others`, zones and processors of each instance."""
        region = region_of(zone)
        limit = self.rules.cpus.get(region)
        used = sum(cpus for place, cpus in others if region_of(place) == region)
        if limit is None or used + kind.cpus <= limit:
            return
        info = {
            "metricName": "compute.googleapis.com/cpus",
            "limitName": "CPUS-per-project-region",
            "dimensions": {"region": region},
            "limit": float(limit),
        }
        message = f"Quota 'CPUS' exceeded.  Limit: {limit}.0 in region {region}."
        raise OperationError(403, "QUOTA_EXCEEDED", message, details=[{"quotaInfo": info}])

    def has(self, zone: str, kind: str) -> bool:
        """Say whether a zone has a machine type."""
        return kind not in self.rules.lacking.get(zone, ())


def _of_instance(given: Json) -> Iterator[str]:
    disks = given.get("disks") or [{}]
    cards = given.get("networkInterfaces") or [{}]
    if given.get("metadata"):
        yield "compute.instances.setMetadata"
    if given.get("labels"):
        yield "compute.instances.setLabels"
    if isinstance(disks[0], dict) and (wanted := disks[0].get("initializeParams")):
        yield "compute.disks.create"
        if wanted.get("sourceImage"):
            yield "compute.images.useReadOnly"
        if wanted.get("labels"):
            yield "compute.disks.setLabels"
    yield "compute.subnetworks.use"
    if isinstance(cards[0], dict) and cards[0].get("accessConfigs"):
        yield "compute.subnetworks.useExternalIp"


def _broken(given: Json, metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the constraints that an instance breaks, where they hold, and why."""
    shielded = given.get("shieldedInstanceConfig") or {}
    if not all(shielded.get(name) for name in _SHIELDED):
        why = "Secure Boot is not enabled in the 'shielded_instance_config' field."
        yield "compute.requireShieldedVm", why
    cards = given.get("networkInterfaces") or []
    if any(card.get("accessConfigs") for card in cards if isinstance(card, dict)):
        yield "compute.vmExternalIpAccess", "Add the instance to the constraint to use external IP with it."
    if metadata.get("enable-oslogin", "").upper() in {"FALSE", "N", "NO", "0"}:
        yield "compute.requireOsLogin", "The metadata key enable-oslogin has to be TRUE."
    if metadata.get("serial-port-enable", "").upper() in {"TRUE", "Y", "YES", "1"}:
        yield "compute.disableSerialPortAccess", "The metadata key serial-port-enable has to be FALSE."
