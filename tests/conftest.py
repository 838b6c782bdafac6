"Where recorded reference values are, and what it means that they are not."
import json, os
from pathlib import Path
import pytest


@pytest.fixture(scope="session")
def shared():
    "The folder of reference values beside the project; required where OMNISAPIENS_REQUIRE_SHARED=1."
    folder = Path(__file__).parents[1].parent / "shared"
    if folder.is_dir(): return folder
    reason = f"no reference values at {folder}: put the folder `shared` beside the project"
    if os.environ.get("OMNISAPIENS_REQUIRE_SHARED") == "1": pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def golden(shared):
    "Read a file of recorded values by its name."
    return lambda name: json.loads((shared / "golden" / f"{name}.json").read_text(encoding="utf-8"))
