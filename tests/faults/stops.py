"""Commands that are stopped and begun again: python tests/faults/stops.py KIND [TIMES [COMMAND …]]

KIND is one of

- `kills`: SIGKILL at a random moment
- `interrupts`: SIGINT at a random moment, as by Ctrl-C
- `full`: a disk with too little left, so that any file may be the one without room
- `refused`: a folder in which one may not write
- `sample`: one kill of each command, and one of each other kind for a few of them; no disk is mounted for that

Where a command can speak, it says one sentence and ends with the documented status. Before the rerun, each file under
its final name must be whole, and what marks a result as finished must have all of it. After the rerun all files must
be those of a run that nobody stopped, byte for byte: only the seconds in a study's `run.json`, and whether it was
resumed, may differ. The last line says how many stops were tried, and how many failed."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import starts

TIMES = dict(kills=20, interrupts=20, full=20, refused=1, sample=1)  # Stops of each command
LATER = 0.01  # Seconds, where the command had not begun
SOONER = 0.8  # A command that ended before it was stopped is stopped so much sooner next time
WRONG, INTERRUPTED = 1, 130  # Exit statuses
NOBODY = 65534  # A user who owns nothing
ROOM = 256 << 20  # Bytes of the disk while it is not full


class Stop(NamedTuple):
    "How a command was stopped, and how it ended."

    how: str
    status: int
    said: str


def _signalled(number, bench, command, whole, rng):
    "A signal at a random moment."
    _, seconds = whole
    moment = rng.uniform(0, seconds)
    while True:
        bench.open(command)
        start = starts.Start(bench.words(command), bench.said)
        time.sleep(moment)
        start.send(number)
        status = start.wait()
        if status == starts.UNBEGUN:
            moment += LATER
        elif status != 0:
            return Stop(f'after {moment:.2f} of {seconds:.2f} s', status, bench.said.read_text(errors='replace'))
        else:
            moment *= SOONER


def _naming(bench, stop):
    "A stop whose sentence has to name the output or a file in it."
    if str(bench.out) in stop.said:
        return stop
    return stop._replace(said=f'{stop.said}\nwhich does not name {bench.out}')


def _limit(most):
    "Let no file grow beyond a limit."
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def _resize(disk, size):
    subprocess.run(['mount', '-o', f'remount,size={size}', disk], check=True, capture_output=True)


def _used(folder):
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _filled(bench, command, whole, rng):
    "A disk with less room than the output needs; where none can be mounted, files that cannot grow beyond a limit."
    sizes, _ = whole
    is_disk = bench.out.parent.is_mount()
    room = rng.uniform(0, sum(sizes) if is_disk else max(sizes))
    while True:
        bench.open(command)
        if is_disk:
            _resize(bench.out.parent, _used(bench.out) + round(room))
            status, _, said = bench.run(command)
            _resize(bench.out.parent, ROOM)
        else:
            status, _, said = bench.run(command, prepare=partial(_limit, round(room)))
        if status != 0:
            return _naming(bench, Stop(f'with room for {room:.0f} of {sum(sizes)} bytes', status, said))
        room *= SOONER


def _refused(bench, command, whole, rng):
    "Another user, who may read and not write."
    bench.open(command)
    if os.getuid() == 0:
        status, _, said = bench.run(command, prepare=partial(os.setuid, NOBODY))
    else:
        bench.out.chmod(0o555)
        status, _, said = bench.run(command)
        bench.out.chmod(0o755)
    return _naming(bench, Stop('for another user', status, said))


KINDS = dict(
    kills=(partial(_signalled, signal.SIGKILL), -signal.SIGKILL),
    interrupts=(partial(_signalled, signal.SIGINT), INTERRUPTED),
    full=(_filled, WRONG),
    refused=(_refused, WRONG),
)  # How to stop a command, and its status then


def stop_once(bench, kind, command, wholes, whole, rng):
    "How a command was stopped, and what was wrong; empty if nothing was."
    stop, wanted = KINDS[kind]
    how, status, said = stop(bench, command, whole, rng)
    fault = bench.fault_of_end(status, said, wanted) if wanted > 0 else ''
    return how, fault or bench.fault_after(command, wholes)


def stops_of(bench, kind, name, times, rng):
    "Faults of a command that is stopped so many times."
    command = starts.COMMANDS[name]
    bench.open(command)
    before = starts.left(bench.out)
    files, seconds = bench.undisturbed(command)
    wholes = [before, files] if before else [files]
    whole = ([(bench.out / file).stat().st_size for file in files], seconds)
    faults = []
    for _ in range(times):
        how, fault = stop_once(bench, kind, command, wholes, whole, rng)
        if fault:
            faults.append(f'{name}, {how}: {fault}')
    return faults


@contextlib.contextmanager
def disk(folder):
    "A disk of its own at a folder, where one may mount it; whether there is one."
    folder.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', f'size={ROOM}', 'tmpfs', folder]
    try:
        is_mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(['umount', folder], check=True)


LEFT_OUT = (
    'study',
    'tutorial',
    'convert, a tar',
    'evaluate, again',
    'transcribe',
    'init-model, a copy',
    'merge',
    'merge, released',
)  # Of the sample: long, or like another
SAMPLE = [('kills', name) for name in starts.COMMANDS if name not in LEFT_OUT]
SAMPLE += [
    ('interrupts', 'curate'),
    ('interrupts', 'sft'),
    ('full', 'sft'),
    ('full', 'evaluate'),
    ('refused', 'curate'),
]


def planned(kind, names):
    "Kind and command of all that is to be tried."
    return SAMPLE if kind == 'sample' else [(kind, name) for name in names]


@contextlib.contextmanager
def opened(kind):
    "A bench for a kind of stops."
    with tempfile.TemporaryDirectory() as folder, starts.judge() as url:
        Path(folder).chmod(0o755)  # For the user who may only read
        bench = starts.Bench(folder, url)
        bench.make()
        if kind != 'full':
            yield bench
            return
        with disk(bench.folder / 'disk'):
            bench.out = bench.folder / 'disk' / 'out'
            yield bench


def main():
    kind = sys.argv[1]
    times = int(sys.argv[2]) if sys.argv[2:] else TIMES[kind]
    plan = planned(kind, sys.argv[3:] or starts.COMMANDS)
    starts.load()
    failed = 0
    with opened(kind) as bench:
        for kind, name in plan:
            begun = time.monotonic()
            faults = stops_of(bench, kind, name, times, random.Random(f'{name} 0'))
            failed += len(faults)
            seconds = time.monotonic() - begun
            print(f'{kind}, {name}: {len(faults)} of {times} failed, {seconds:.0f} s', *faults, sep='\n  ')
            sys.stdout.flush()
    print(json.dumps(dict(tried=times * len(plan), failed=failed)))
    sys.exit(bool(failed))


if __name__ == '__main__':
    main()
