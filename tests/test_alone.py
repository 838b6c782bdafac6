"Two commands on one output: the second is refused before it touches anything, and one of many at once is let in."

import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from omnisapiens_nb.atlas.folders import claimed

COMMANDS = {
    'tutorial': ['tutorial', '--out', 'OUT'],
    'curate': ['curate', '--source', 'mustard=SOURCES/mustard', '--out', 'OUT'],
    'convert': ['convert', 'ATLAS', '--out', 'OUT'],
    'describe': ['describe', '--atlas', 'ATLAS', '--out', 'OUT'],
    'transcribe': ['transcribe', '--atlas', 'ATLAS', '--out', 'OUT', '--model', 'none'],
    'mini': ['mini', '--out', 'OUT'],
    'init-model': ['init-model', '--atlas', 'ATLAS', '--out', 'OUT'],
    'merge': ['merge', '--model', 'MODEL', '--out', 'OUT'],
    'predict': ['predict', '--model', 'MODEL', '--atlas', 'ATLAS', '--out', 'OUT'],
    'evaluate': ['evaluate', '--atlas', 'ATLAS', '--predictions', 'FILE', '--out', 'OUT'],
    'study': ['study', 'A', '--out', 'OUT', '--quick'],
    'sft': ['sft', '--config', 'tiny/warm_start.yaml'],
    'bam': ['bam', '--config', 'tiny/bam.yaml'],
    'rl by TRL': ['rl', '--config', 'tiny/rl_trl.yaml'],
}
FEW = 6  # Processes that begin at once


def words_of(command, folder, sources):
    "A command with its places filled in, and a recipe that writes to `out`."
    places = dict(OUT='out', ATLAS='atlas', MODEL='model', FILE='answers.jsonl')
    for word in command:
        if word.endswith('.yaml'):
            recipe = yaml.safe_load((ROOT / 'recipes' / word).read_text()) | dict(out=str(folder / 'out'))
            (folder / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
            word = folder / 'recipe.yaml'
        elif word in places:
            word = folder / places[word]
        yield str(word).replace('SOURCES', str(sources))


def test_every_command_that_writes_is_tried():
    from omnisapiens_nb.cli import app

    named = {info.name or info.callback.__name__.replace('_', '-') for info in app.registered_commands}
    tried = {command[0] for command in COMMANDS.values()}
    assert named - tried == {'check', 'cards', 'start'}  # The first writes nothing, the last is init-model's older name


@pytest.mark.parametrize('name', COMMANDS)
def test_a_second_command_is_refused(cli_here, mini_sources, tmp_path, name):
    words = list(words_of(COMMANDS[name], tmp_path, mini_sources))
    before = sorted(tmp_path.iterdir())
    with claimed(tmp_path / 'out'):
        result = cli_here(*words)
    assert result.returncode == 1, result.stderr
    assert f'{tmp_path / "out"}: another command is at work on it' in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_one_of_many_is_let_in(tmp_path):
    script = """
import sys
from omnisapiens_nb.atlas.folders import claimed
from omnisapiens_nb.atlas.reading import SourceError
print('ready', flush=True)
sys.stdin.readline()
try:
    with claimed(sys.argv[1]):
        print('in', flush=True)
        sys.stdin.readline()
except SourceError:
    print('refused', flush=True)
"""
    command = [sys.executable, '-c', script, tmp_path / 'out']
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    several = [subprocess.Popen(command, **pipes) for _ in range(FEW)]
    for process in several:
        assert process.stdout.readline() == 'ready\n'
    for process in several:
        process.stdin.write('\n')
        process.stdin.flush()
    said = [process.stdout.readline() for process in several]
    assert sorted(said) == ['in\n'] + ['refused\n'] * (FEW - 1)
    for process in several:
        process.communicate('\n')
    assert not any(tmp_path.iterdir())
