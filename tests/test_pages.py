"""Every page of the site in a browser, wide and narrow, light and dark: no errors, no other host, nothing too
wide, readable contrast, and clicks that do what they say.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from conftest import ROOT, required

VERSIONS = {'playwright-core': '1.65.1', 'axe-core': '4.14.1'}


def modules():
    "The folder with the two packages from npm, filled once per pair of versions."
    folder = (
        Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache'))
        / 'omnisapiens_nb'
        / '-'.join(['pages', *VERSIONS.values()])
    )
    if (folder / 'done').exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    packages = [f'{name}@{version}' for name, version in VERSIONS.items()]
    subprocess.run(
        ['npm', 'install', '--silent', '--no-audit', '--no-fund', '--prefix', folder, *packages], check=True, cwd=folder
    )
    (folder / 'done').touch()
    return folder


def faults(site, *pages):
    "What the browser finds wrong, on all pages or on some."
    if not shutil.which('node'):
        required('no Node.js: it drives the browser')
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not chromium:
        required('no chromium: install it to look at the pages')
    command = ['node', ROOT / 'tests' / 'pages.mjs', site, modules(), chromium, str(os.cpu_count() or 2), *pages]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stderr[-3000:]
    return [f'{d["page"]}: {d["what"]}' for d in map(json.loads, result.stdout.splitlines())]


def test_pages_are_sound(site):
    found = faults(site)
    assert not found, '\n'.join(found[:40])


def test_faults_are_found(site, tmp_path):
    "A page broken in six ways, each of which is told."
    copy = shutil.copytree(site, tmp_path / 'site')
    page = copy / 'rl' / 'advantages.html'
    broken = (
        '<img src="none.png" alt=""><div style="width:1400px">x</div><p style="color:#bbb;background:#fff">pale</p><h6>deep</h6>'
        '<img src="https://example.org/x.png" alt=""><script>console.error("on purpose")</script>'
    )
    page.write_text(page.read_text(encoding='utf-8').replace('</article>', broken + '</article>', 1), encoding='utf-8')
    told = '\n'.join(faults(copy, 'rl/advantages.html'))
    for word in (
        'broken picture none.png',
        'pixels wide',
        'color-contrast',
        'heading-order',
        'request to https://example.org',
        'on purpose',
    ):
        assert word in told, word
