"""What was tried against this package, how often, and what came of it.

python tools/faults.py    runs it all (an hour) and makes tests/faults/README.md and nbs/results/faults.json
python tools/faults.py --table    makes the README again from what is in nbs/results/faults.json
python tools/faults.py 'stops kills' test_exact    tries these lines again, and keeps the others

Each line of `TABLE` is a fault, what is promised, and where it is tried: tests, a target of tests/faults/fuzz.py, or a
kind of tests/faults/stops.py."""

import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOG = ROOT / 'nbs' / 'results' / 'faults.json'
README = ROOT / 'tests' / 'faults' / 'README.md'
RUNS = 50_000  # Of a fuzzer, per target
HANG = 10  # Seconds of one input that count as a hang
SENTENCE = 'one sentence with file, field or row, what is wrong and what to do'
TABLE = [
    (
        'a table, pickle or JSON file damaged at any place, two thousand damages',
        f'each row is kept or rejected with its reason, or {SENTENCE}',
        'test_faults',
    ),
    ('quotes, line breaks and broken lines in tables', 'a broken row costs itself alone', 'test_tables'),
    ('a clip that is a list, a script or an address', 'no other file or socket is opened', 'test_formats'),
    (
        'clips that are too long, too large or too short for what they say',
        'rejected by name before they are decoded',
        'test_gates',
    ),
    (
        'pickles and descriptors that ask for far more than they hold',
        'refused by name in seconds, without the memory',
        'test_hostile_files',
    ),
    ('settings and manifests cut short, of another type, of another program', SENTENCE, 'test_hostile_json'),
    (
        'model folders with code, pickled weights or settings that are none',
        f'no code runs; {SENTENCE}',
        'test_hostile_models',
    ),
    ('sounds that make no token', 'left out and counted', 'test_short_sounds'),
    (
        'a judge that fails, lies, is cut off or killed',
        'nothing is graded that was not; a rerun asks the rest',
        'test_judge',
    ),
    (
        'a server of answers that dies, refuses or is killed',
        'what was answered is kept; a rerun asks the rest',
        'test_endpoint',
    ),
    (
        'a server of rollouts that dies or falls silent in the middle (TRL with vLLM)',
        'one sentence, within a minute or when patience ends; the resumed run ends the same',
        'test_trl_server',
    ),
    (
        'training killed at random, a full disk',
        'the last good state is kept; the resumed run ends the same',
        'test_rl_runs',
    ),
    ('fine-tuning on two processes that breaks off', 'the resumed run ends the same', 'test_two_processes'),
    ('the tutorial killed in the middle', 'the same command goes on', 'test_tutorial'),
    ('two commands on one output', 'the second is told, and nothing is mixed', 'test_alone'),
    (
        'commands killed at a random moment, twenty times each',
        'nothing half done is taken for whole; the rerun ends the same',
        'stops kills',
    ),
    (
        'commands interrupted at a random moment, twenty times each',
        'one sentence; nothing half done is taken for whole; the rerun ends the same',
        'stops interrupts',
    ),
    (
        'a disk without room for the output, twenty times each command',
        'one sentence that names the output; nothing half done is taken for whole; with room, the rerun ends the same',
        'stops full',
    ),
    ('a folder in which one may not write, each command', 'one sentence that names it', 'stops refused'),
    ('other hashes of Python, tables in another order', 'the same bytes; the same rows', 'test_exact'),
    ('any text as an answer', 'read or not read; no crash, no hang', 'fuzz answers'),
    ('any bytes as a table', 'rows, faults of rows, or one sentence', 'fuzz tables'),
    ('any bytes as a JSON file', 'entries, or one sentence', 'fuzz objects'),
    ('any bytes as JSON Lines', 'rows, or faults of rows', 'fuzz lines'),
    ('any bytes as a clip', 'a known format, or none', 'fuzz formats'),
]


def tested(name):
    "How many tests of a file passed, were skipped and failed."
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        command = [sys.executable, '-m', 'pytest', '-q', f'--junitxml={report}', f'tests/{name}.py']
        subprocess.run(command, cwd=ROOT, env=os.environ | dict(OMP_NUM_THREADS='1', OMNISAPIENS_ALL='1'))
        suite = ElementTree.parse(report).getroot().find('testsuite')
    tests, failures, errors, skipped = (int(suite.get(key)) for key in ('tests', 'failures', 'errors', 'skipped'))
    return dict(tried=tests - skipped, skipped=skipped, failed=failures + errors)


def fuzzed(target):
    "How many inputs a fuzzer tried, and whether one of them failed."
    with tempfile.TemporaryDirectory() as folder:
        options = [f'-runs={RUNS}', f'-timeout={HANG}', f'-artifact_prefix={folder}/']
        command = [sys.executable, ROOT / 'tests' / 'faults' / 'fuzz.py', target, *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    runs = re.search(r'Done (\d+) runs', done.stderr)
    if not runs:
        sys.stderr.write(done.stderr[-2000:])
    return dict(tried=int(runs[1]) if runs else 0, skipped=0, failed=int(done.returncode != 0))


def stopped(kind):
    "How many stops of commands were tried and failed."
    command = [sys.executable, ROOT / 'tests' / 'faults' / 'stops.py', kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    sys.stderr.write(done.stdout + done.stderr[-2000:])
    return dict(skipped=0) | json.loads(done.stdout.splitlines()[-1])


def measured(where):
    kind, _, target = where.partition(' ')
    if kind == 'fuzz':
        return fuzzed(target)
    return stopped(target) if kind == 'stops' else tested(where)


def tried_again(chosen):
    "Rows of the log; those that are not chosen are kept from the last log."
    kept = {}
    if chosen:
        kept = {row['where']: row for row in json.loads(LOG.read_text(encoding='utf-8'))['rows']}
    for fault, promise, where in TABLE:
        is_tried = not chosen or where in chosen
        found = measured(where) if is_tried else {key: kept[where][key] for key in ('tried', 'skipped', 'failed')}
        yield dict(fault=fault, promise=promise, where=where, **found)


def table(rows):
    "Rows of the log in Markdown."
    yield '| fault | what is promised | where it is tried | tried | failed |'
    yield '| --- | --- | --- | --- | --- |'
    for row in rows:
        yield f'| {row["fault"]} | {row["promise"]} | `{row["where"]}` | {row["tried"]:,} | {row["failed"]} |'


def readme(log):
    "The table with its heading."
    lines = [
        '# What was tried against this package',
        '',
        f'Made by `make faults`, with Python {log["python"]} on {log["cores"]} cores. *Tried* counts tests, or the',
        'inputs that a fuzzer made up, or the stops of commands. Tests that need something that was not there are',
        'not counted.',
        '',
        *table(log['rows']),
    ]
    return '\n'.join(lines) + '\n'


def main():
    if sys.argv[1:] != ['--table']:
        rows = list(tried_again(sys.argv[1:]))
        version = '.'.join(map(str, sys.version_info[:3]))
        log = dict(command='make faults', python=version, cores=os.cpu_count(), rows=rows)
        LOG.write_text(json.dumps(log, indent=1) + '\n', encoding='utf-8')
    log = json.loads(LOG.read_text(encoding='utf-8'))
    README.write_text(readme(log), encoding='utf-8')
    sys.exit(any(row['failed'] for row in log['rows']))


if __name__ == '__main__':
    main()
