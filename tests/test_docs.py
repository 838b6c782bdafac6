"The site builds from the notebooks without warnings or broken links, and needs no other host."
import re, shutil, subprocess, sys
from importlib.util import find_spec
import pytest
from conftest import ROOT, required


@pytest.fixture(scope="module")
def site():
    if not shutil.which("npm"): required("no npm: install Node.js to build the docs")
    if not find_spec("sphinx"): required("no sphinx: `make docs` installs it")
    result = subprocess.run([sys.executable, "docs/build.py"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return ROOT / "_site"


def test_every_notebook_has_a_page(site):
    pages = {p.stem for p in site.rglob("*.html")}
    for notebook in (ROOT / "nbs").rglob("*.ipynb"): assert re.sub(r"^\d+_", "", notebook.stem) in pages


def test_nothing_is_loaded_from_another_host(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        assert loaded == [], page


def test_tables_are_tables(site):
    for page in site.rglob("*.html"): assert "<p>|" not in page.read_text(encoding="utf-8"), page


def test_formulas_are_set(site):
    text = (site / "rl" / "harpo.html").read_text(encoding="utf-8")
    assert "tex-svg.js" in text and r"\[" in text


def test_solutions_are_folded(site):
    text = (site / "rl" / "harpo.html").read_text(encoding="utf-8")
    after = text[text.index('id="exercises"'):]
    assert after.count("tag_hide-cell") == after.count("<details") >= 3
    assert text.index("Which clamp is met first?") < text.index('collapsed admonition-title">Solution')
