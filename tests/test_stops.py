"Commands that are killed, interrupted, without room or refused: nothing half done, and the rerun ends the same."

import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from omnisapiens_nb.atlas import media
from omnisapiens_nb.evaluation.evaluate import _move_all


def test_a_sample_of_stops():
    "The whole of it is tests/faults/stops.py, which `make faults` runs."
    command = [sys.executable, ROOT / 'tests' / 'faults' / 'stops.py', 'sample']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told['tried'] == 16 and told['failed'] == 0


def test_a_report_says_nothing_about_tables_of_another_run(tmp_path, monkeypatch):
    "While the files of a second report take their places, the first one is gone."
    for folder, words in ((tmp_path / 'out', 'first'), (tmp_path / 'out' / '.unfinished', 'second')):
        folder.mkdir()
        for name in ('report.html', 'scores.csv', 'tasks.csv'):
            (folder / name).write_text(words)
    replace = os.replace
    moved = []

    def stopped(source, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        replace(source, target)

    monkeypatch.setattr(os, 'replace', stopped)
    with pytest.raises(KeyboardInterrupt):
        _move_all(tmp_path / 'out' / '.unfinished', tmp_path / 'out')
    assert moved and not (tmp_path / 'out' / 'report.html').exists()


@pytest.fixture
def heard():
    "Ctrl-C is heard, also where whoever started the tests lets processes ignore it."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_not_lost_while_a_sound_is_written(heard, monkeypatch):
    "soundfile writes by calling back from C, where an error goes nowhere."
    sound = np.zeros(16_000)
    usual = media.write_wav(sound)
    buffers = []

    class Interrupted(io.BytesIO):
        def __init__(self):
            super().__init__()
            buffers.append(self)

        def write(self, data):
            signal.raise_signal(signal.SIGINT)
            return super().write(data)

    monkeypatch.setattr(media.io, 'BytesIO', Interrupted)
    with pytest.raises(KeyboardInterrupt):
        media.write_wav(sound)
    assert buffers[0].getvalue() == usual
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize('fault', [ValueError, AssertionError, OSError])
def test_an_interrupt_that_a_library_turns_into_another_error(heard, cli_here, monkeypatch, fault):
    def turned(*_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise fault('the shape cannot be told') from None

    monkeypatch.setattr('omnisapiens_nb.atlas.check.check', turned)
    result = cli_here('check', 'anywhere')
    assert result.returncode == 130
    assert result.stderr.startswith('error: interrupted;') and 'shape' not in result.stderr
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
