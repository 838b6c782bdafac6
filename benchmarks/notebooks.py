"""Time and memory of the notebooks, each in a process of its own with one thread, as nbdev_test runs them: python benchmarks/notebooks.py ENVIRONMENT [NOTEBOOK ...]

ENVIRONMENT names the part of nbs/results/notebooks.json that is written: `pinned` for the versions of constraints.txt, which measures every notebook, `stand-in` for Colab's own."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'tools'))
from colab import NBS, NOTEBOOKS, SETTINGS

LOG = NBS / 'results' / 'notebooks.json'
SHOWN = ('torch', 'numpy', 'pandas', 'pyarrow', 'transformers', 'trl')
RUN = 'import sys; from pathlib import Path; from nbdev.test import test_nb; sys.exit(not test_nb(Path(sys.argv[1]), skip_flags=sys.argv[2:])[0])'


def measure(name):
    "Seconds and peak memory of one notebook; stops where it fails."
    env = os.environ | dict(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, '-c', RUN, NBS / f'{name}.ipynb', *SETTINGS['tst_flags'].split()], env=env
    )
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f'{name} failed')
    return dict(seconds=round(time.monotonic() - start), peak_megabytes=round(usage.ru_maxrss / 1024))


def main(environment, *names):
    about = dict(
        command=f'python benchmarks/notebooks.py {environment}',
        cores=os.cpu_count(),
        threads=1,
        machine=platform.machine(),
        python=platform.python_version(),
    )
    every = (
        sorted(
            p.relative_to(NBS).with_suffix('').as_posix()
            for p in NBS.rglob('*.ipynb')
            if '.ipynb_checkpoints' not in p.parts
        )
        if environment == 'pinned'
        else NOTEBOOKS
    )
    for name in names or every:
        found = measure(name)
        log = json.loads(LOG.read_text(encoding='utf-8')) if LOG.exists() else {}
        earlier = log.get(environment, {}).get('notebooks', {})
        log[environment] = (
            about | {p: version(p) for p in SHOWN} | dict(notebooks=dict(sorted((earlier | {name: found}).items())))
        )
        LOG.write_text(json.dumps(log, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
