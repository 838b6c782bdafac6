"""Time and memory of the notebooks, each in a process of its own with one thread, as nbdev_test runs them.

python benchmarks/notebooks.py ENVIRONMENT [NOTEBOOK ...]

ENVIRONMENT names the part of nbs/results/notebooks.json that is written: `pinned` for the versions of
constraints.txt, which measures every notebook, `stand-in` for Colab's own."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / 'tools'))
import measures
from colab import NBS, NOTEBOOKS, SETTINGS, name_of

LOG = NBS / 'results' / 'notebooks.json'
SHOWN = ('torch', 'numpy', 'pandas', 'pyarrow', 'transformers', 'trl')
ONE_THREAD = dict(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')
RUN = (
    'import sys; from pathlib import Path; from nbdev.test import test_nb; '
    'sys.exit(not test_nb(Path(sys.argv[1]), skip_flags=sys.argv[2:])[0])'
)


def measure(
    name: str,  # Of a notebook, below nbs/
) -> dict[str, int]:
    "Seconds and peak memory of one notebook; stops where it fails."
    command = [sys.executable, '-c', RUN, NBS / f'{name}.ipynb', *SETTINGS['tst_flags'].split()]
    start = time.monotonic()
    child = subprocess.Popen(command, env=os.environ | ONE_THREAD)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f'{name} failed')
    return dict(seconds=round(time.monotonic() - start), peak_megabytes=round(usage.ru_maxrss / 1024))


def about(
    environment: str,  # Part of the log
) -> dict:
    "The machine and the versions."
    found = dict(
        command=f'python benchmarks/notebooks.py {environment}',
        cores=os.cpu_count(),
        threads=1,
        machine=platform.machine(),
        python=platform.python_version(),
    )
    return found | {package: version(package) for package in SHOWN}


def every(
    environment: str,  # Part of the log
) -> list[str]:
    "Names of the notebooks that an environment measures."
    if environment == 'pinned':
        return sorted(map(name_of, measures.notebooks()))
    return list(NOTEBOOKS)


def main(
    environment: str,  # Part of the log
    *names: str,  # Notebooks below nbs/; all where none is named
):
    "Measure notebooks, and write each into the log as soon as it is done."
    for name in names or every(environment):
        found = measure(name)
        log = json.loads(LOG.read_text(encoding='utf-8')) if LOG.exists() else {}
        earlier = log.get(environment, {}).get('notebooks', {})
        together = dict(sorted((earlier | {name: found}).items()))
        log[environment] = about(environment) | dict(notebooks=together)
        LOG.write_text(json.dumps(log, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
