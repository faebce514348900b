"""Examples of each command, as its `--help` and the man page have them; a test parses every one."""

EXAMPLES = {
    "doctor": "vmtests doctor\nvmtests doctor --json",
    "build": (
        "vmtests build --out disk.raw\n"
        "vmtests build --module debug --module bloat:2G --out disk.raw --archive image.tar.gz\n"
        "vmtests build --spec image.json --out disk.raw"
    ),
    "inspect": "vmtests inspect disk.raw\nvmtests inspect image.tar.gz --all\nvmtests inspect disk.qcow2 --json",
    "sbom": "vmtests sbom --out reference.cdx.json\nvmtests sbom disk.raw",
    "boot": (
        "vmtests boot disk.raw\n"
        "vmtests boot reference --debug\n"
        "vmtests boot disk.raw --rewind initrd\n"
        "vmtests boot disk.raw --json --results results/nightly"
    ),
    "attach": "vmtests attach --list\nvmtests attach",
    "contract": "vmtests contract disk.raw -o contract.toml\nvmtests contract disk.raw --no-boot",
    "explain": (
        "gcloud compute instances get-serial-port-output VM | vmtests explain\n"
        "vmtests explain console.log --image disk.raw\n"
        "vmtests explain results/latest --json"
    ),
    "diff": (
        "vmtests diff reference reference+debug\n"
        "vmtests diff yesterday.raw today.raw --boot 5 --html diff.html\n"
        "vmtests diff results/20261127T020000Z results/latest"
    ),
    "bisect": (
        "vmtests bisect monday.raw tuesday.raw wednesday.raw thursday.raw\n"
        "vmtests bisect --list images.txt --budget 'initrd<12s'\n"
        "git rev-list --reverse v1..main | vmtests bisect --list - --make './build {} >&2 && echo {}.raw'\n"
        "vmtests bisect old.raw new.raw --run 'pytest -q --vm-image={}'"
    ),
    "report": (
        "vmtests report results/latest\n"
        "vmtests report results/latest --against results/20261127T020000Z --out tonight.html\n"
        "vmtests report results/latest --budget 'initrd<12s' --budget 'boot<40s'\n"
        "vmtests report --history results --no-slower"
    ),
    "faults": (
        "vmtests faults --list\nvmtests faults init-missing root-label-wrong\nvmtests faults --all --image disk.raw\n"
        "vmtests faults root-label-wrong --out broken.raw"
    ),
    "torture": "vmtests torture disk.raw",
    "emulator": "vmtests emulator --port 8080\nvmtests emulator --no-boot\nvmtests emulator --hold night.jsonl",
    "gce": (
        "vmtests gce run disk.raw --gce-project PROJECT\n"
        "vmtests gce record disk.raw --to night.jsonl\n"
        "vmtests gce gc --dry-run"
    ),
    "completion": (
        "vmtests completion bash > ~/.local/share/bash-completion/completions/vmtests\n"
        "vmtests completion zsh > ~/.zfunc/_vmtests\n"
        "vmtests completion fish > ~/.config/fish/completions/vmtests.fish"
    ),
}
"""Lines by command."""
