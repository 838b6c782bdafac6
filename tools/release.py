"""What equals the release, measured by the tests that call `beside_release`, into nbs/results/release.json:
python tools/release.py
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / 'nbs' / 'results' / 'release.json'
COMMAND = 'python tools/release.py'


def measuring() -> list[Path]:
    "Files of tests that measure ours against the release."
    every = sorted((ROOT / 'tests').glob('test_*.py'))
    return [path for path in every if 'beside_release' in path.read_text(encoding='utf-8')]


def largest(rows: list[dict]) -> list[dict]:
    "One row for each piece and test: the largest difference over its calls, in the order of the calls."
    found = {}
    for row in rows:
        key = tuple(row[name] for name in ('piece', 'cases', 'test', 'bound', 'why'))
        known = found.setdefault(key, row)
        if row['difference'] is not None and row['difference'] > known['difference']:
            known['difference'] = row['difference']
    return list(found.values())


def main():
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / 'rows.jsonl'
        record.touch()
        ran = subprocess.run(
            [sys.executable, '-m', 'pytest', '-q', *map(str, measuring())],
            cwd=ROOT,
            env=os.environ | dict(OMNISAPIENS_RELEASE=str(record)),
        )
        if ran.returncode:
            sys.exit('a test failed; nothing was written')
        rows = [json.loads(line) for line in record.read_text(encoding='utf-8').splitlines()]
    table = dict(command=COMMAND, rows=largest(rows))
    TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
