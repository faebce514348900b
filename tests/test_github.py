"""What GitHub reads of this repository, and of its examples, is as GitHub's own schemas say."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("actions", "action.yml"),
        ("workflows", ".github/workflows/*.yml"),
        ("workflows", "docs/examples/*/.github/**/*.yml"),
    ],
)
def test_files_obey_githubs_schema(schema: str, files: str) -> None:
    """Actions and workflows have no key that GitHub does not know."""
    # Imported by the one process that runs this: it takes as long as a hundred other tests.
    from check_jsonschema import main as check_jsonschema  # type: ignore[import-untyped]
    from click.testing import CliRunner

    found = [str(path) for path in ROOT.glob(files)]
    assert found
    told = CliRunner().invoke(check_jsonschema, ["--builtin-schema", f"vendor.github-{schema}", *found])
    assert 0 == told.exit_code, told.output
