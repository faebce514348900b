"""From the body of an insertion to the instance that it orders."""

from collections.abc import Callable, Collection

from vmtests.emulator import naming
from vmtests.emulator.catalog import default_account, machine_type
from vmtests.emulator.disks import Disk, Disks
from vmtests.emulator.http import ApiError, Json, invalid
from vmtests.emulator.instance import Addresses, Instance, Status
from vmtests.emulator.naming import Place, attributes_of, metadata_of, parse_link, set_labels
from vmtests.emulator.network import new_addresses
from vmtests.emulator.operations import Cloud
from vmtests.emulator.scheduling import scheduling_of


def order(
    cloud: Cloud,
    disks: Disks,
    given: Json,
    place: Place,
    *,
    taken: Collection[str],
    on_off: Callable[[Instance], None],
) -> Instance:
    """Return the instance that is ordered at `place`, with its boot disk, and nothing of it made yet.

    `taken` are the internal addresses that others have. Raises ApiError, and then nothing is reserved.
    """
    zone = str(place.zone)
    kind = machine_type(cloud, given.get("machineType"), project=place.project, zone=zone)
    scheduling = scheduling_of(given.get("scheduling"), kind)
    metadata = metadata_of(given.get("metadata"))
    labels: Json = {}
    set_labels(labels, given.get("labels"))
    addresses = new_addresses(taken)
    card = _card(cloud, given, place, addresses, nvme=kind.nvme)
    cloud.law.obey(given, attributes_of(metadata), place.path)
    disk, attached = _boot_disk(disks, given, place)
    if (form := disk.resource["type"].rpartition("/")[2]).startswith("pd-") and kind.hyperdisk:
        if disk.resource["status"] == "CREATING":
            disks.remove(disk)
        raise ApiError(400, "badRequest", f"[{form}] features are not compatible for creating instance.")
    zone_link = cloud.link(f"projects/{place.project}/zones/{zone}")
    resource: Json = {
        "kind": "compute#instance",
        "id": naming.new_id(),
        "creationTimestamp": naming.now(),
        "name": place.name,
        "zone": zone_link,
        "selfLink": cloud.link(place.path),
        "machineType": f"{zone_link}/machineTypes/{kind.name}",
        "status": str(Status.PROVISIONING),
        "cpuPlatform": "AMD Milan" if kind.name.startswith(("n2d", "t2d")) else "Intel Ice Lake",
        "canIpForward": bool(given.get("canIpForward")),
        "deletionProtection": bool(given.get("deletionProtection")),
        "startRestricted": False,
        **labels,
        "metadata": metadata,
        "tags": tags_of(given.get("tags")),
        "fingerprint": naming.fingerprint(place.path),
        "networkInterfaces": [card],
        "disks": [{**attached, "interface": "NVME" if kind.nvme else "SCSI"}],
        "scheduling": scheduling,
        **{name: given[name] for name in ("description", "hostname") if given.get(name)},
    }
    if accounts := given.get("serviceAccounts"):
        default = default_account(place.project)
        resource["serviceAccounts"] = [
            {**one, "email": default if one.get("email") == "default" else one.get("email", default)}
            for one in accounts
        ]
    for name in ("shieldedInstanceConfig", "displayDevice"):
        if isinstance(given.get(name), dict):
            resource[name] = given[name]
    disk.resource["users"] = [resource["selfLink"]]
    return Instance(
        cloud=cloud,
        place=place,
        resource=resource,
        kind=kind,
        addresses=addresses,
        disk=disk,
        on_off=on_off,
    )


def _boot_disk(disks: Disks, given: Json, place: Place) -> tuple[Disk, Json]:
    """Return the boot disk, which may be still to be made, and how it is attached; raises ApiError."""
    wanted = given.get("disks")
    if not isinstance(wanted, list) or len(wanted) != 1 or not isinstance(wanted[0], dict):
        raise invalid("resource.disks", "…", "the emulator attaches one disk, the boot disk")
    attached, zone = wanted[0], str(place.zone)
    if source := attached.get("source"):
        disk = disks.linked(source, project=place.project, zone=zone)
        if disk.resource.get("users"):
            message = f"The disk resource '{disk.place.path}' is already being used"
            raise ApiError(400, "resourceInUseByAnotherResource", message)
    else:
        filled = {**attached, **(attached.get("initializeParams") or {})}
        name = filled.get("diskName") or place.name
        where = Place(project=place.project, zone=zone, collection="disks", name=name)
        disk = disks.reserve(where, filled)
    features = disk.resource.get("guestOsFeatures", [])
    if disk.resource.get("sourceImage") and {"type": "UEFI_COMPATIBLE"} not in features:
        if not attached.get("source"):
            disks.remove(disk)
        why = "the emulator has UEFI firmware only, and the image is not marked UEFI_COMPATIBLE"
        raise invalid("resource.disks[0].initializeParams.sourceImage", disk.resource["sourceImage"], why)
    answer: Json = {
        "kind": "compute#attachedDisk",
        "type": "PERSISTENT",
        "mode": attached.get("mode", "READ_WRITE"),
        "source": disk.resource["selfLink"],
        "deviceName": attached.get("deviceName", "persistent-disk-0"),
        "index": 0,
        "boot": True,
        "autoDelete": bool(attached.get("autoDelete")),
        "diskSizeGb": disk.resource["sizeGb"],
        "architecture": disk.resource.get("architecture", "X86_64"),
    }
    if features:
        answer["guestOsFeatures"] = features
    return disk, answer


def _card(cloud: Cloud, given: Json, place: Place, addresses: Addresses, *, nvme: bool) -> Json:
    cards = given.get("networkInterfaces")
    card = cards[0] if isinstance(cards, list) and cards and isinstance(cards[0], dict) else {}
    region = str(place.zone).rpartition("-")[0]
    network = parse_link(card.get("network") or "global/networks/default", "networks", project=place.project)
    if not card.get("subnetwork"):
        cloud.law.check_network(network.project, network.name)
    answer: Json = {
        "kind": "compute#networkInterface",
        "name": "nic0",
        "network": cloud.link(f"projects/{network.project}/global/networks/{network.name}"),
        "subnetwork": cloud.link(f"projects/{network.project}/regions/{region}/subnetworks/{network.name}"),
        "networkIP": addresses.internal,
        "stackType": "IPV4_ONLY",
        "fingerprint": naming.fingerprint(addresses.internal),
        "nicType": card.get("nicType") or ("GVNIC" if nvme else "VIRTIO_NET"),
    }
    if configs := card.get("accessConfigs"):
        name = configs[0].get("name") or "External NAT"
        answer["accessConfigs"] = [
            {
                "kind": "compute#accessConfig",
                "type": "ONE_TO_ONE_NAT",
                "name": name,
                "natIP": addresses.external,
                "networkTier": "PREMIUM",
            }
        ]
    return answer


def tags_of(given: object) -> Json:
    """Return network tags with their fingerprint."""
    items = given.get("items") or [] if isinstance(given, dict) else []
    return {"fingerprint": naming.fingerprint(items), **({"items": items} if items else {})}
