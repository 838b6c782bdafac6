"The house is in order: exports, README and notebooks in step, cells as long as agreed, pins in one place."
import json, re, statistics, subprocess, sys, tempfile
from configparser import ConfigParser
import pytest
from conftest import ROOT

NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = SETTINGS["DEFAULT"]


def cells(path, kind): return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]
def code_lines(cell): return [l for l in "".join(cell["source"]).splitlines() if l.strip() and not l.startswith("#|")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_shape(path):
    assert path.stat().st_size < 300_000
    code, prose = cells(path, "code"), cells(path, "markdown")
    lengths = [len(code_lines(c)) for c in code]
    assert max(lengths) <= 40
    assert 2 * len(prose) >= len([n for n in lengths if n]) - 4   # title, imports and the closing export stand without prose
    first = "".join(prose[0]["source"])
    assert re.match(r"# .+\n\n> .+", first) and "$" not in first


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_imports_stand_alone(path):
    for cell in cells(path, "code"):
        lines = [l for l in code_lines(cell) if not l.startswith((" ", ")"))]
        imports = [l for l in lines if re.match(r"(import|from) ", l) and "nbdev.nbdev_export" not in l]
        if imports: assert all(re.match(r"(import|from) |disable_progress_bar|with warnings", l) for l in lines), "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_folder_of_one_machine(path):
    "Temporary folders have another name each time."
    for cell in cells(path, "code"):
        for output in cell["outputs"]: assert tempfile.gettempdir() + "/" not in "".join((output | output.get("data", {})).get("text/plain", output.get("text", []))), cell["id"]


def test_code_cells_are_short():
    lengths = sorted(len(code_lines(c)) for p in NOTEBOOKS for c in cells(p, "code") if code_lines(c))
    assert statistics.median(lengths) <= 6
    assert lengths[int(.9 * len(lengths))] <= 16


def test_readme_is_in_step(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs" / "readme.py", tmp_path / "README.md"], check=True)
    assert (ROOT / "README.md").read_text(encoding="utf-8") == (tmp_path / "README.md").read_text(encoding="utf-8")


def test_one_owner():
    address = SETTINGS["git_url"]
    assert address == f"https://github.com/{SETTINGS['user']}/{SETTINGS['repo']}"
    for name in ("README.md", "CITATION.cff"):
        found = set(re.findall(r"https://github\.com/[\w-]+/omnisapiens_nb", (ROOT / name).read_text(encoding="utf-8")))
        assert found == {address}
    assert f"version: {SETTINGS['version']}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_every_requirement_is_pinned():
    name = lambda line: re.split(r"[<>=!~\[ ]", line.strip())[0].lower().replace("_", "-")
    pinned = {name(l) for l in (ROOT / "constraints.txt").read_text().splitlines() if "==" in l}
    wanted = {name(r) for key in SETTINGS if key.endswith("requirements") for r in SETTINGS[key].split()}
    assert wanted <= pinned, wanted - pinned


def test_imports_go_one_way():
    order = ["atlas", "evaluation", "sft", "rl"]
    for i, room in enumerate(order):
        for path in (ROOT / "omnisapiens_nb" / room).glob("*.py"):
            reached = set(re.findall(r"^\s*from \.\.(\w+)", path.read_text(encoding="utf-8"), re.M))
            assert not reached & set(order[i+1:]), path


def test_light_import():
    code = "import sys, omnisapiens_nb; print([m for m in ('torch', 'trl', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_displayed_formulas_stand_alone(path):
    for cell in cells(path, "markdown"):
        for block in re.split(r"\n\s*\n", "".join(cell["source"])):
            assert "$$" not in block or re.fullmatch(r"\$\$.*\$\$", block.strip(), re.S), block


def test_cards_are_in_step():
    from omnisapiens_nb.atlas.cards import DATASETS, card
    committed = {p.stem: p.read_text(encoding="utf-8") for p in (ROOT / "data_cards").glob("*.md")}
    assert committed == {key: card(key) for key in DATASETS}


def test_recipes_of_the_readme_are_valid():
    import yaml
    from omnisapiens_nb.steps import RLRecipe, SFTRecipe
    found = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    for kind, text in zip((SFTRecipe, RLRecipe), found, strict=True): kind.model_validate(yaml.safe_load(text))
