"""Writes the paths of a closure and their registration; run by Nix as a builder."""

import json
import os
from pathlib import Path

attributes = json.loads(Path(os.environ["NIX_ATTRS_JSON_FILE"]).read_text(encoding="utf-8"))
out = Path(attributes["outputs"]["out"])
closure = sorted(attributes["closure"], key=lambda entry: entry["path"])
out.mkdir()
(out / "store-paths").write_text("".join(f"{entry['path']}\n" for entry in closure))
with (out / "registration").open("w") as registration:
    for entry in closure:
        references = sorted(entry["references"])
        record = (entry["path"], entry["narHash"], entry["narSize"], "", len(references), *references)
        registration.writelines(f"{field}\n" for field in record)
