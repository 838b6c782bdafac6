"The results page of the study says what its log says: every table is computed again, and compared with the one that is stored."
import json
from execnb.shell import CaptureShell
from conftest import ROOT

PAGE = ROOT/"nbs"/"guides"/"15_study_results.ipynb"


def tables(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {c["id"]: "".join(o["data"]["text/plain"]) for c in cells for o in c.get("outputs", []) if "text/plain" in o.get("data", {}) and "image/png" not in o["data"]}


def test_tables_are_those_of_the_log(tmp_path, monkeypatch):
    monkeypatch.chdir(PAGE.parent)
    CaptureShell(path=PAGE.parent).execute(PAGE, dest=tmp_path/"again.ipynb", exc_stop=True)
    stored, again = tables(PAGE), tables(tmp_path/"again.ipynb")
    assert len(stored) > 10
    for cell in stored.keys() | again.keys(): assert again.get(cell) == stored.get(cell), cell
