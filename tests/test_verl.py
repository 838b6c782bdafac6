"""HARPO in verl itself, in the environment that `make verl-env` makes.

tests/verl_check.py is run there once, and each of its checks is a test here."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

PYTHON = ROOT / '.venv-verl' / 'bin' / 'python'
SCRIPT = ROOT / 'tests' / 'verl_check.py'
CHECKS = re.findall(r'^def (check_\w+)', SCRIPT.read_text(encoding='utf-8'), re.M)


@pytest.fixture(scope='module')
def report():
    if not PYTHON.is_file():
        pytest.skip('no verl (over two gigabytes): make verl-env')
    switches = dict(OMP_NUM_THREADS='1', VERL_USE_EXTERNAL_PLUGINS='auto', VERL_USE_EXTERNAL_MODULES='')
    run = subprocess.run([PYTHON, SCRIPT], cwd=ROOT, env=os.environ | switches, capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith('{"verl"')]
    assert run.returncode == 0 and lines, run.stderr[-3000:]
    return json.loads(lines[0])


@pytest.mark.parametrize('check', CHECKS)
def test_in_verl(report, check):
    assert report['verl'] == '0.9.1' and check in report['ran']
    assert check not in report['failed'], report['failed'][check]


def test_nothing_else_needs_verl():
    "The package is imported without verl; only the plugin, and only where there is one, imports it."
    imports = re.compile(r'^\s*(from|import) verl\b', re.M)
    modules = (ROOT / 'omnisapiens_nb').rglob('*.py')
    naming = [path.name for path in modules if imports.search(path.read_text(encoding='utf-8'))]
    assert naming == ['verl_plugin.py']
    code = "import sys, omnisapiens_nb.rl.verl_plugin as p; assert 'verl' not in sys.modules; p.register_verl()"
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert out.returncode == 1 and 'ImportError' in out.stderr and 'make verl-env' in out.stderr
