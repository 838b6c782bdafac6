"""Two sides of one piece of work, measured in turn: our way and a plain one."""

import importlib
import re
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np


def need(
    package: str,  # As it is imported
    project: str,  # As it is installed
) -> str:  # Its name and version
    "A package that stands on the other side; stops with one sentence where it is not installed."
    try:
        importlib.import_module(package)
    except ImportError:
        sys.exit(f'this part is measured beside {project}: python -m pip install {project}')
    return f'{project} {version(project)}'


@dataclass(frozen=True)
class Took:
    "What a call took."

    seconds: float
    mebibytes: float | None = None  # That its process grew by at most; None where both sides share one
    result: object = None


def children() -> float:
    "A clock: processor seconds of the commands that ended so far."
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peak_mebibytes() -> float:
    "The most memory this process had, on Linux; `ru_maxrss` would begin with that of the process that started it."
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    kibibytes = re.search(r'VmHWM:\s+(\d+) kB', status)[1]
    return int(kibibytes) / 1024


def _alone(begin, inputs, clock):
    before = peak_mebibytes()
    work = begin(*inputs)
    start = clock()
    result = work()
    spent = clock() - start
    return Took(spent, peak_mebibytes() - before, result)


def apart(
    begin: Callable[..., Callable[[], object]],  # Imports and opens what is not timed, and gives the work
    *inputs,  # Of `begin`
    clock: Callable[[], float] = time.process_time,
) -> Took:  # Seconds of the work, and memory of both
    "Do a piece of work in a process of its own."
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        return pool.submit(_alone, begin, inputs, clock).result()


def took(
    function: Callable[[], object],  # What to measure; where it gives a `Took`, that counts
    calls: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> Took:  # Median of the seconds; the rest is of the last call
    "What a function takes the processor, whatever else the machine does."
    times = []
    for _ in range(calls):
        start = clock()
        found = function()
        spent = clock() - start
        if not isinstance(found, Took):
            found = Took(spent, result=found)
        times.append(found.seconds)
    return Took(float(np.median(times)), found.mebibytes, found.result)


def beside(
    what: str,  # Name of the row
    ours: Callable[[], object],  # Our way
    theirs: Callable[[], object],  # The plain way
    peer: str,  # What stands on that side
    times: float | None = None,  # Goal: how many times faster we are at least
    within: float | None = None,  # Goal: our seconds at most
    more: float | None = None,  # Goal: how many seconds we take more at most
    memory: float | None = None,  # Goal: our share of their memory at most; both sides give a `Took`
    same: Callable[[object], object] | None = None,  # What of their results is equal; None where they may differ
    share: float = 1,  # How much of the work the plain way does here; its time is scaled
    turns: int = 7,
    calls: int = 3,  # Of ours in each turn
    clock: Callable[[], float] = time.process_time,  # `time.perf_counter` where a side waits or has several processes
) -> dict[str, object]:  # Medians, the quartiles of the ratio, and the goal
    "Time both sides in turn."
    ours()  # The first call finds nothing in the caches
    pairs = [(took(ours, calls, clock), took(theirs, 1, clock)) for _ in range(turns)]
    if same and any(same(a.result) != same(b.result) for a, b in pairs):
        raise ValueError(f'{what}: the two sides do not give the same')
    seconds = np.array([(a.seconds, b.seconds / share) for a, b in pairs])
    fast, slow = np.median(seconds, axis=0)
    low, ratio, high = np.quantile(seconds[:, 1] / seconds[:, 0], [0.25, 0.5, 0.75])
    ours_needs, theirs_needs = (_median_mebibytes(side) for side in zip(*pairs))
    goals = {}
    if times is not None:
        goals[f'≥ {times:g}×'] = ratio >= times
    if within is not None:
        goals[f'≤ {within:g} s'] = fast <= within
    if more is not None:
        goals[f'≤ {more:g} s more'] = np.median(seconds[:, 0] - seconds[:, 1]) <= more
    if memory is not None:
        goals[f'≤ {memory:g} of the memory'] = ours_needs <= memory * theirs_needs
    return dict(
        what=what,
        ours=f'{fast:.3g} s',
        theirs=f'{slow:.3g} s',
        ratio=f'{ratio:.3g}',
        spread=f'{low:.3g} to {high:.3g}',
        goal=', '.join(goals),
        reached='yes' if all(goals.values()) else 'no',
        our_memory=_in_words(ours_needs),
        their_memory=_in_words(theirs_needs),
        peer=peer,
        share=share,
        turns=turns,
    )


def _median_mebibytes(side):
    measured = [turn.mebibytes for turn in side if turn.mebibytes is not None]
    return float(np.median(measured)) if measured else None


def _in_words(mebibytes):
    return '' if mebibytes is None else f'{mebibytes:.0f} MiB'
