"""Projects, zones, regions and machine types: what is always there."""

from collections.abc import Iterator

from vmtests.emulator.http import Json, Request, Route, invalid, not_found
from vmtests.emulator.listing import aggregated, listed
from vmtests.emulator.naming import Place, check_fingerprint, metadata_of, parse_link, project_number
from vmtests.emulator.operations import Cloud, Operations
from vmtests.emulator.zones import MACHINE_TYPES, ZONES, MachineType, region_of, zone_exists

_CREATED = "2024-01-01T00:00:00.000+00:00"


def default_account(project: str) -> str:
    """Return the e-mail address of a project's default service account."""
    return f"{project_number(project)}-compute@developer.gserviceaccount.com"


def machine_type(cloud: Cloud, link: object, *, project: str, zone: str) -> MachineType:
    """Return the machine type that a link names; raises ApiError."""
    place = parse_link(link, "machineTypes", project=project, zone=zone)
    if place.zone != zone or place.name not in MACHINE_TYPES or not cloud.law.has(zone, place.name):
        why = f"machine type with name '{place.name}' does not exist in zone '{zone}'"
        raise invalid("resource.machineType", link, why)
    return MACHINE_TYPES[place.name]


class Catalog:
    """Answers for projects, zones, regions and machine types."""

    def __init__(self, cloud: Cloud, operations: Operations) -> None:
        self._cloud = cloud
        self._operations = operations

    def routes(self) -> Iterator[Route]:
        """The methods of projects, zones, regions and machineTypes."""
        project = "projects/{project}"
        types = f"{project}/zones/{{zone}}/machineTypes"
        yield Route("compute.projects.get", "GET", project, self._project)
        yield Route(
            "compute.projects.setCommonInstanceMetadata",
            "POST",
            f"{project}/setCommonInstanceMetadata",
            self._operations.once(self._set_metadata),
        )
        yield Route("compute.zones.list", "GET", f"{project}/zones", self._zones)
        yield Route("compute.zones.get", "GET", f"{project}/zones/{{zone}}", self._get_zone)
        yield Route("compute.regions.list", "GET", f"{project}/regions", self._regions)
        yield Route("compute.regions.get", "GET", f"{project}/regions/{{region}}", self._get_region)
        yield Route("compute.machineTypes.list", "GET", types, self._types)
        yield Route("compute.machineTypes.get", "GET", f"{types}/{{machineType}}", self._get_type)
        template = f"{project}/aggregated/machineTypes"
        yield Route("compute.machineTypes.aggregatedList", "GET", template, self._aggregated_types)

    def _project(self, request: Request) -> Json:
        project = request.params["project"]
        return {
            "kind": "compute#project",
            "id": str(project_number(project)),
            "name": project,
            "creationTimestamp": _CREATED,
            "selfLink": self._cloud.link(f"projects/{project}"),
            "commonInstanceMetadata": self._metadata(project),
            "defaultServiceAccount": default_account(project),
            "xpnProjectStatus": "UNSPECIFIED_XPN_PROJECT_STATUS",
            "defaultNetworkTier": "PREMIUM",
        }

    def _metadata(self, project: str) -> Json:
        return self._cloud.project_metadata.setdefault(project, metadata_of({}))

    def _set_metadata(self, request: Request) -> Json:
        given, project = request.json(), request.params["project"]
        check_fingerprint(given.get("fingerprint"), self._metadata(project)["fingerprint"])
        self._cloud.project_metadata[project] = metadata_of(given)
        self._cloud.changed.notify_all()
        place = Place(project=project, zone=None, collection="", name="")
        number = str(project_number(project))
        return self._operations.begin(request, "setMetadata", place, number, lambda: None)

    def _zone(self, project: str, zone: str) -> Json:
        return {
            "kind": "compute#zone",
            "id": str(project_number(zone)),
            "name": zone,
            "description": zone,
            "status": "UP",
            "creationTimestamp": _CREATED,
            "region": self._cloud.link(f"projects/{project}/regions/{region_of(zone)}"),
            "selfLink": self._cloud.link(f"projects/{project}/zones/{zone}"),
        }

    def _region(self, project: str, region: str) -> Json:
        return {
            "kind": "compute#region",
            "id": str(project_number(region)),
            "name": region,
            "description": region,
            "status": "UP",
            "creationTimestamp": _CREATED,
            "zones": [self._cloud.link(f"projects/{project}/zones/{zone}") for zone in ZONES[region]],
            "selfLink": self._cloud.link(f"projects/{project}/regions/{region}"),
        }

    def _type(self, project: str, zone: str, kind: MachineType) -> Json:
        return {
            "kind": "compute#machineType",
            "id": str(project_number(kind.name)),
            "name": kind.name,
            "creationTimestamp": _CREATED,
            "description": f"{kind.cpus} vCPUs, {kind.memory_mib / 1024:g} GB RAM",
            "guestCpus": kind.cpus,
            "memoryMb": kind.memory_mib,
            "isSharedCpu": kind.shared,
            "maximumPersistentDisks": 128,
            "maximumPersistentDisksSizeGb": "263168",
            "architecture": "X86_64",
            "zone": zone,
            "selfLink": self._cloud.link(f"projects/{project}/zones/{zone}/machineTypes/{kind.name}"),
        }

    def _get_zone(self, request: Request) -> Json:
        project, zone = request.params["project"], request.params["zone"]
        if not zone_exists(zone):
            raise not_found(f"projects/{project}/zones/{zone}")
        return self._zone(project, zone)

    def _get_region(self, request: Request) -> Json:
        project, region = request.params["project"], request.params["region"]
        if region not in ZONES:
            raise not_found(f"projects/{project}/regions/{region}")
        return self._region(project, region)

    def _get_type(self, request: Request) -> Json:
        project, zone = self._get_zone(request)["selfLink"].split("/")[-3], request.params["zone"]
        name = request.params["machineType"]
        if name not in MACHINE_TYPES or not self._cloud.law.has(zone, name):
            raise not_found(f"projects/{project}/zones/{zone}/machineTypes/{name}")
        return self._type(project, zone, MACHINE_TYPES[name])

    def _zones(self, request: Request) -> Json:
        project = request.params["project"]
        items = [self._zone(project, zone) for zones in ZONES.values() for zone in zones]
        return listed(request, "compute#zoneList", items, self._cloud.link(f"projects/{project}/zones"))

    def _regions(self, request: Request) -> Json:
        project = request.params["project"]
        items = [self._region(project, region) for region in ZONES]
        return listed(request, "compute#regionList", items, self._cloud.link(f"projects/{project}/regions"))

    def _types(self, request: Request) -> Json:
        zone = self._get_zone(request)
        project = request.params["project"]
        items = [self._type(project, zone["name"], kind) for kind in MACHINE_TYPES.values()]
        return listed(request, "compute#machineTypeList", items, f"{zone['selfLink']}/machineTypes")

    def _aggregated_types(self, request: Request) -> Json:
        project = request.params["project"]
        zones = [zone for zones in ZONES.values() for zone in zones]
        items = [self._type(project, zone, kind) for zone in zones for kind in MACHINE_TYPES.values()]
        link = self._cloud.link(f"projects/{project}/aggregated/machineTypes")
        # A machine type says its zone by name alone, so the lists are made by hand from whole links.
        whole = [{**item, "zone": f"zones/{item['zone']}"} for item in items]
        answer = aggregated(
            request,
            "compute#machineTypeAggregatedList",
            "machineTypes",
            whole,
            link,
            [f"zones/{zone}" for zone in zones],
        )
        for scope in answer["items"].values():
            for item in scope.get("machineTypes", []):
                item["zone"] = item["zone"].partition("/")[2]
        return answer


def zone_scopes() -> list[str]:
    """Return every zone as a scope of an aggregated list."""
    return [f"zones/{zone}" for zones in ZONES.values() for zone in zones]
