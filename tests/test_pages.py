"""Pages of the site in a browser: no errors, no other host, nothing too wide, readable contrast, working clicks.

A sixth of the pages that people wrote are opened in a wide and a narrow window for what costs little. A smaller sample,
with pages of the reference, is looked at fully, light and dark, with axe. With OMNISAPIENS_ALL=1 every page is opened
and looked at fully, as before the site is published."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

from conftest import ROOT, required

sys.path.insert(0, str(ROOT / 'tools'))
import measures

VERSIONS = {'playwright-core': '1.65.1', 'axe-core': '4.14.1'}
# What a phone shows of these is measured as well, colours included
PHONES = [
    'index.html',
    'search.html',
    'rl/harpo.html',
    'rl/harpo_knobs.html',
    'studies/method_results.html',
    'api/rl/harpo.html',
]
LOOKED_AT = 40  # One page in so many is looked at fully besides
OPENED = 6  # One page that people wrote in so many is opened besides
PATIENCE = 1800  # Seconds that the browser may take


def modules():
    "The folder with the two packages from npm, filled once per pair of versions."
    cache = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache'))
    folder = cache / 'omnisapiens_nb' / '-'.join(['pages', *VERSIONS.values()])
    if (folder / 'done').exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    packages = [f'{name}@{version}' for name, version in VERSIONS.items()]
    command = ['npm', 'install', '--silent', '--no-audit', '--no-fund', '--prefix', folder, *packages]
    subprocess.run(command, check=True, cwd=folder)
    (folder / 'done').touch()
    return folder


def pages_of(site):
    "Names of all pages of the site."
    found = site.rglob('*.html')
    return sorted(path.relative_to(site).as_posix() for path in found)


def room_of(page):
    "The room of a page, apart for pages of the reference."
    *folders, _ = page.split('/')
    depth = 2 if folders[:1] == ['api'] else 1
    return '/'.join(folders[:depth])


def one_in(pages, many):
    "About one page in so many, by their names."
    return [page for page in pages if crc32(page.encode()) % many == 0]


def sample(pages):
    "Pages that are looked at fully: those for phones, one per room and its reference, and one in forty."
    first = {}
    for page in pages:
        first.setdefault(room_of(page), page)
    return sorted({*PHONES, *first.values(), *one_in(pages, LOOKED_AT)})


def chosen_pages(pages, fully):
    "Pages to open: those that are looked at fully, and a sixth of those that people wrote."
    written = [page for page in pages if not page.startswith('api/')]
    return sorted({*fully, *one_in(written, OPENED)})


def faults(site, *pages, clicks=False):
    "What the browser finds wrong on some pages; on those of `chosen_pages` where none is named."
    if not shutil.which('node'):
        required('no Node.js: it drives the browser')
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not chromium:
        required('no chromium: install it to look at the pages')
    every = pages_of(site)
    fully = every if os.environ.get('OMNISAPIENS_ALL') == '1' else sample(every)
    job = dict(pages=pages or chosen_pages(every, fully), fully=fully, phones=PHONES, clicks=clicks)
    workers = str(os.cpu_count() or 2)
    command = ['node', ROOT / 'tests' / 'pages.mjs', site, modules(), chromium, workers, json.dumps(job)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr[-3000:]
    sys.stderr.write(result.stderr)
    return [f'{told["page"]}: {told["what"]}' for told in map(json.loads, result.stdout.splitlines())]


def broken(site, folder, page, wrong):
    "A copy of the site with something wrong at the end of a page."
    copy = shutil.copytree(site, folder / 'site')
    file = copy / page
    text = file.read_text(encoding='utf-8')
    assert text.count('</article>') == 1
    file.write_text(text.replace('</article>', wrong + '</article>'), encoding='utf-8')
    return copy


def test_pages_are_sound(site):
    found = faults(site, clicks=True)
    assert not found, '\n'.join(found[:40])


def test_sample(site):
    "It has every room and its reference, all pages for phones, and about a tenth of the site."
    pages = pages_of(site)
    chosen = sample(pages)
    assert set(PHONES) <= set(chosen) <= set(pages)
    rooms = {room_of(page) for page in chosen}
    assert rooms == {room_of(page) for page in pages} and set(measures.ROOMS) <= rooms
    assert {f'api/{room}' for room in measures.ROOMS if room != 'guides'} <= rooms
    assert 20 < len(chosen) < len(pages) / 4
    opened = chosen_pages(pages, chosen)
    written = [page for page in pages if not page.startswith('api/')]
    assert set(chosen) <= set(opened) <= set(pages)
    assert len(written) / 5 < len(set(opened) & set(written)) < len(written) / 2
    assert chosen_pages(pages, pages) == pages


# What is told of every page, and how
CHEAP = {
    '<img src="none.png" alt="">': 'broken picture none.png',
    '<img src="_static/site.css">': 'no alternative text: _static/site.css',
    '<div style="width:600px">x</div>': 'pixels wide in a window of 390',
    '<mjx-merror>x</mjx-merror>': 'formula: x',
    '<img src="https://example.org/x.png" alt="">': 'request to https://example.org',
    '<script src="gone.js"></script>': '404 for rl/gone.js',
    '<script>console.error("on purpose")</script>': 'console: on purpose',
    '<script>throw new Error("by intent")</script>': 'error: by intent',
}


# What is told of a page of the sample
SIX = {
    '<img src="none.png" alt="">': 'broken picture none.png',
    '<div style="width:1400px">x</div>': 'pixels wide in a window of 1280',
    '<p style="color:#bbb;background:#fff">pale</p>': 'color-contrast',
    '<h6>deep</h6>': 'heading-order',
    '<img src="https://example.org/x.png" alt="">': 'request to https://example.org',
    '<script>console.error("on purpose")</script>': 'console: on purpose',
}


def test_faults_are_found(site, tmp_path):
    "A page of the sample broken in six ways, each of which is told."
    page = 'runs/folders.html'
    assert page in sample(pages_of(site))
    told = '\n'.join(faults(broken(site, tmp_path, page, ''.join(SIX)), page))
    for word in SIX.values():
        assert word in told, word


def test_cheap_faults_are_found_outside_the_sample(site, tmp_path):
    page = 'rl/loop.html'
    assert page not in sample(pages_of(site))
    told = '\n'.join(faults(broken(site, tmp_path, page, ''.join(CHEAP)), page))
    for word in CHEAP.values():
        assert word in told, word
