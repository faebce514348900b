"""Partition types and their names, of the Discoverable Partitions Specification.

https://uapi-group.org/specifications/specs/discoverable_partitions_specification/
"""

import uuid

TYPES = {
    uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"): "esp",
    uuid.UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172"): "xbootldr",
    uuid.UUID("21686148-6449-6e6f-744e-656564454649"): "bios-grub",
    uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"): "root-x86-64",
    uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"): "root-x86-64-verity",
    uuid.UUID("41092b05-9fc8-4523-994f-2def0408b176"): "root-x86-64-verity-sig",
    uuid.UUID("8484680c-9521-48c6-9c11-b0720656f69e"): "usr-x86-64",
    uuid.UUID("77ff5f63-e7b6-4633-acf4-1565b864c0e6"): "usr-x86-64-verity",
    uuid.UUID("e7bb33fb-06cf-4e81-8273-e543b413e2e2"): "usr-x86-64-verity-sig",
    uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"): "root-arm64",
    uuid.UUID("44479540-f297-41b2-9af7-d131d5f0458a"): "root-x86",
    uuid.UUID("933ac7e1-2eb4-4f13-b844-0e14e2aef915"): "home",
    uuid.UUID("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"): "srv",
    uuid.UUID("4d21b016-b534-45c2-a9fb-5c16e091fd2d"): "var",
    uuid.UUID("7ec6f557-3bc5-4aca-b293-16ef5df639d1"): "tmp",
    uuid.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"): "swap",
    uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"): "linux-generic",
    uuid.UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"): "linux-lvm",
    uuid.UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"): "linux-raid",
    uuid.UUID("ca7d7ccb-63ed-4c53-861c-1742536059cc"): "luks",
    uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"): "microsoft-basic-data",
}
"""Names of partition types, as systemd-repart spells them."""
