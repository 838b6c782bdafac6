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


def told_to_verl(folder, **switches):
    "What train.sh tells verl, by name; a stand-in for Python writes it down."
    stand_in = folder / 'bin' / 'python'
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    run = subprocess.run(
        ['bash', ROOT / 'recipes' / 'verl' / 'train.sh'],
        env=dict(PATH=f'{stand_in.parent}:/usr/bin:/bin') | switches,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split('=', 1) for line in run.stdout.splitlines() if '=' in line)


def test_paths_of_the_recipe_mean_the_same_to_every_worker(tmp_path):
    "A worker of Ray's stands where Ray was started; relative paths are made whole, names at the hub are left alone."
    (tmp_path / 'my policy').mkdir()
    (tmp_path / 'own').mkdir()
    told = told_to_verl(tmp_path / 'own', MODEL='../my policy', DATA='../rows', OUT='runs')
    assert told['actor_rollout_ref.model.path'] == str(tmp_path / 'my policy')
    assert told['data.train_files'] == str(tmp_path / 'rows' / 'train.parquet')
    assert told['data.val_files'] == str(tmp_path / 'rows' / 'validation.parquet')
    assert told['trainer.default_local_dir'] == str(tmp_path / 'own' / 'runs')
    (tmp_path / 'other').mkdir()
    usual = told_to_verl(tmp_path / 'other')
    assert usual['actor_rollout_ref.model.path'] == 'Qwen/Qwen2.5-7B-Instruct'
    assert usual['data.train_files'] == str(tmp_path / 'other' / 'verl_data' / 'train.parquet')


def test_log_of_the_run():
    "What tests/engines/verl.sh found was found with the versions that `make verl-env` installs."
    log = json.loads((ROOT / 'nbs' / 'results' / 'verl_run.json').read_text(encoding='utf-8'))
    pins = (ROOT / 'recipes' / 'verl' / 'constraints.txt').read_text(encoding='utf-8').splitlines()
    for name in ('verl', 'ray', 'torch', 'transformers'):
        assert f'{name}=={log[name].partition("+")[0]}' in pins
    assert log['command'] == 'make verl-run'
    assert (log['nodes'], log['processes'], len(log['rewards'])) == (2, 2, 5)
    assert log['resumed_from_whole'] < 1e-4 < 1e-2 < log['without_memory']
