"The site builds from the notebooks without warnings or broken links, and needs no other host."
import re
from conftest import ROOT


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
