"A user's mistakes at the command line: a sentence that says how to fix it, the right exit code, nothing left behind."

import json
import os
import shutil
import subprocess
import sys

import pytest

from omnisapiens_nb.atlas.store import open_atlas


@pytest.fixture
def meld(mini_sources, tmp_path):
    return shutil.copytree(mini_sources / 'meld', tmp_path / 'meld')


def write_right_answers(atlas, file):
    "Predictions that are the references themselves."
    rows = open_atlas(atlas, 'test')
    lines = [json.dumps(dict(id=row['id'], response=row['answer'])) for row in rows]
    file.write_text(''.join(line + '\n' for line in lines))


def empty_table(folder):
    (folder / 'test_sent_emo.csv').write_text('')


def lose_column(folder):
    file = folder / 'train_sent_emo.csv'
    file.write_text(file.read_text().replace('Emotion', 'Feeling', 1))


def lose_folder(folder):
    shutil.rmtree(folder)


def lose_table(folder):
    (folder / 'dev_sent_emo.csv').unlink()


@pytest.mark.parametrize('command', ['curate', 'tutorial'])
@pytest.mark.parametrize(
    'damage, said',
    [
        (lose_folder, 'no such folder'),
        (lose_table, 'dev_sent_emo.csv: no such file'),
        (empty_table, 'test_sent_emo.csv: the file is empty'),
        (lose_column, "no column 'Emotion'"),
    ],
)
def test_unreadable_source(cli_here, meld, tmp_path, command, damage, said):
    damage(meld)
    result = cli_here(command, '--source', f'meld={meld}', '--out', tmp_path / 'out')
    assert result.returncode == 1
    assert said in result.stderr and 'Traceback' not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
    assert [p.name for p in tmp_path.iterdir() if p.name != 'meld'] == []


@pytest.mark.parametrize('source', ['mled=.', 'meld', 'meld='])
def test_wrong_usage(cli_here, tmp_path, source):
    result = cli_here('curate', '--source', source, '--out', tmp_path / 'out')
    assert result.returncode == 2 and 'Traceback' not in result.stderr
    assert not (tmp_path / 'out').exists()


def test_truncated_wav_is_named_and_rejected(cli_here, mini_sources, tmp_path):
    folder = shutil.copytree(mini_sources / 'cremad', tmp_path / 'cremad')
    wav = sorted((folder / 'AudioWAV').glob('1001_*.wav'))[0]
    wav.write_bytes(wav.read_bytes()[:5000])
    result = cli_here('curate', '--source', f'cremad={folder}', '--out', tmp_path / 'out')
    assert result.returncode == 0
    assert f'{wav.name}: the file is truncated (5000 of ' in (tmp_path / 'out' / 'rejected.jsonl').read_text()


def test_all_rows_rejected(cli_here, mini_sources, tmp_path):
    folder = shutil.copytree(mini_sources / 'cremad', tmp_path / 'cremad')
    shutil.rmtree(folder / 'AudioWAV')
    result = cli_here('curate', '--source', f'cremad={folder}', '--out', tmp_path / 'out')
    assert result.returncode == 1 and 'is not in the folder' in result.stderr
    assert not (tmp_path / 'out').exists() and not (tmp_path / 'out.partial').exists()


def test_out_that_exists(cli_here, mini_sources, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine.txt').write_text('keep')
    for command in ('curate', 'tutorial'):
        result = cli_here(command, '--source', f'mustard={mini_sources / "mustard"}', '--out', tmp_path / 'out')
        assert result.returncode == 1 and 'choose another' in result.stderr
    assert (tmp_path / 'out' / 'mine.txt').read_text() == 'keep'


def test_wrong_recipe_and_missing_model(cli_here, tmp_path):
    (tmp_path / 'sft.yaml').write_text('atlas: nowhere\nout: b\nmodel: c\ntrain: {stepps: 1}\n')
    result = cli_here('sft', '--config', tmp_path / 'sft.yaml')
    assert result.returncode == 1 and 'train.stepps' in result.stderr
    result = cli_here('predict', '--model', tmp_path / 'none', '--atlas', tmp_path, '--out', tmp_path / 'p.jsonl')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert not (tmp_path / 'p.jsonl').exists()


def test_help_needs_no_torch(tmp_path):
    (tmp_path / 'torch.py').write_text("raise SystemExit('torch was imported')")
    for args in (['--help'], ['tutorial', '--help'], ['rl', '--help']):
        result = subprocess.run(
            [sys.executable, '-m', 'omnisapiens_nb.cli', *args],
            capture_output=True,
            text=True,
            env=os.environ | dict(PYTHONPATH=str(tmp_path)),
        )
        assert result.returncode == 0 and 'Usage' in result.stdout, result.stderr


def test_models_are_named_by_their_files(cli_here, tmp_path):
    files = []
    for name in ('a', 'b'):
        files.append(tmp_path / name / 'p.jsonl')
        files[-1].parent.mkdir()
        files[-1].write_text('')
    result = cli_here('evaluate', '--atlas', tmp_path, '--predictions', *files, '--out', tmp_path / 'out')
    assert result.returncode == 1 and "two files are called 'p'" in result.stderr


@pytest.mark.parametrize(
    'options, said',
    [
        (('--judge', 'friend'), 'choose openai, anthropic, local or offline'),
        (('--judge', 'openai'), 'needs the name of a model'),
        (('--judge', 'openai', '--judge-model', 'm', '--judge-url', 'localhost'), 'no address'),
        (('--judge', 'offline', '--strictness', 'published'), 'one strictness'),
        (
            ('--judge', 'openai', '--judge-model', 'm', '--judge-url', 'http://127.0.0.1:9/v1', '--strictness', 'lax'),
            "no rules 'lax'",
        ),
    ],
)
def test_a_judge_that_is_not_to_be_had(cli_here, mini_atlas, tmp_path, options, said):
    answers = tmp_path / 'a.jsonl'
    write_right_answers(mini_atlas, answers)
    result = cli_here('evaluate', '--atlas', mini_atlas, '--predictions', answers, '--out', tmp_path / 'out', *options)
    assert result.returncode == 1 and said in result.stderr and 'Traceback' not in result.stderr


@pytest.mark.parametrize(
    'recipe, said',
    [
        ('trainer: verl', 'trainer'),
        ('trainer: trl\nestimator: hapro', 'no estimator is called'),
        ('atlas: [', 'not YAML'),
        ('trainer: trl\nfour_bit: true', 'model: Field required'),
    ],
)
def test_wrong_rl_recipe(cli_here, tmp_path, recipe, said):
    (tmp_path / 'rl.yaml').write_text(recipe)
    for more in ((), ('--plan',)):
        result = cli_here('rl', '--config', tmp_path / 'rl.yaml', *more)
        assert result.returncode == 1 and said in result.stderr and 'Traceback' not in result.stderr


BAD_ROWS = [
    dict(utterance=None),
    dict(utterance=7),
    dict(utterance=''),
    dict(context=None),
    dict(context=[1]),
    dict(speaker=None),
    dict(sarcasm='perhaps'),
    dict(utterance='\ud800 x'),
]


def test_odd_values_of_one_row_cost_that_row_only(cli_here, mini_sources, tmp_path):
    data = json.loads((mini_sources / 'mustard' / 'sarcasm_data.json').read_text())
    for key, bad in zip(list(data), BAD_ROWS):
        data[key] |= bad
    entries = [*data.items(), next(iter(reversed(data.items()))), ('list', []), ('number', 3)]
    (tmp_path / 'mustard').mkdir()
    (tmp_path / 'mustard' / 'sarcasm_data.json').write_text(
        '{' + ','.join(f'{json.dumps(k)}: {json.dumps(v)}' for k, v in entries) + '}'
    )
    result = cli_here('curate', '--source', f'mustard={tmp_path / "mustard"}', '--out', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    counts = json.loads((tmp_path / 'out' / 'manifest.json').read_text())['counts']['mmsd']
    harmless = 2  # a context that is no list of lines only ties fewer rows together
    assert counts['read'] == len(entries) and counts['rejected'] == len(BAD_ROWS) - harmless + 3


def test_a_stray_quotation_mark_costs_its_own_row_only(cli_here, meld, tmp_path):
    table = meld / 'train_sent_emo.csv'
    lines = table.read_text().split('\n')
    lines[3] = lines[3].replace(',', ',"', 1)
    table.write_text('\n'.join(lines))
    result = cli_here('curate', '--source', f'meld={meld}', '--out', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    rejected = [json.loads(line) for line in (tmp_path / 'out' / 'rejected.jsonl').read_text().splitlines()]
    assert [(r['dataset'], r['row']) for r in rejected if 'CSV row' in r['reason']] == [
        ('meld_emotion', 3),
        ('meld_senti', 3),
    ]


def test_check_and_evaluate_as_a_user_calls_them(cli, mini_sources, tmp_path):
    atlas = tmp_path / 'atlas'
    assert cli('curate', '--source', f'mustard={mini_sources / "mustard"}', '--out', atlas).returncode == 0
    result = cli('check', atlas)
    assert result.returncode == 0 and '0 problems' in result.stdout
    files = [tmp_path / f'{name}.jsonl' for name in ('a', 'b')]
    for file in files:
        write_right_answers(atlas, file)
    result = cli('evaluate', '--atlas', atlas, '--predictions', *files, '--out', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'out' / 'report.html').is_file() and 'b,mmsd' in (tmp_path / 'out' / 'scores.csv').read_text()
    (atlas / 'data' / 'train-00000-of-00001.parquet').write_bytes(b'PAR1 and no more')
    result = cli('check', atlas)
    assert result.returncode == 1 and 'not a Parquet file' in result.stderr


def test_a_recipe_as_a_user_calls_it_into_an_empty_folder(cli, cli_here, mini_atlas, warm_start, tmp_path):
    (tmp_path / 'out').mkdir()
    recipe = dict(atlas=str(mini_atlas), model=str(warm_start), out=str(tmp_path / 'out'), train=dict(steps=1))
    (tmp_path / 'sft.yaml').write_text(json.dumps(recipe))
    result = cli('sft', '--config', tmp_path / 'sft.yaml')
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'out' / 'model.safetensors').is_file()
    result = cli_here('sft', '--config', tmp_path / 'sft.yaml')
    assert result.returncode == 1 and 'exists already' in result.stderr


def test_predictions_are_gone_on_with_or_refused(cli, cli_here, mini_atlas, warm_start, tmp_path):
    "One that is begun with other settings, by another version, or is none of ours, is left as it is."
    out = tmp_path / 'p.jsonl'
    partial = tmp_path / 'p.jsonl.run.partial'
    partial.mkdir()
    command = ('predict', '--model', warm_start, '--atlas', mini_atlas, '--out', out, '--max-new-tokens', 4)
    (partial / 'letter.txt').write_text('Dear reader')
    for name, text, said in (
        ('letter.txt', 'Dear reader', 'none of ours'),
        ('settings.json', json.dumps(dict(model='m')), 'begun by version 0.1.0'),
    ):
        (partial / 'letter.txt').unlink(missing_ok=True)
        (partial / name).write_text(text)
        result = cli_here(*command)
        assert result.returncode == 1 and said in result.stderr and 'Traceback' not in result.stderr
        assert [(file.name, file.read_text()) for file in partial.iterdir()] == [(name, text)]
    shutil.rmtree(partial)
    result = cli(*command, '--rows', 1)
    assert result.returncode == 0, result.stderr
    assert len(out.read_text().splitlines()) == 3


WITHOUT_TRAIN = """
import sys
from omnisapiens_nb.atlas.extras import EXTRAS
sys.modules |= dict.fromkeys(EXTRAS['train'])
from omnisapiens_nb.cli import main
main()
"""


def without_train(*args):
    "The command line where the packages of the extra `train` are not installed."
    command = [sys.executable, '-c', WITHOUT_TRAIN, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    'command',
    [
        ('init-model', '--atlas', 'a', '--out', 'b'),
        ('sft', '--config', 'c'),
        ('bam', '--config', 'c'),
        ('merge', '--model', 'm', '--out', 'b'),
        ('rl', '--config', 'c'),
        ('predict', '--model', 'm', '--atlas', 'a', '--out', 'b'),
        ('transcribe', '--model', 'm', '--atlas', 'a', '--out', 'b'),
        ('tutorial', '--out', 'b'),
        ('study', 'A', '--out', 'b'),
    ],
    ids=lambda command: command[0],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, command):
    monkeypatch.setenv('PYTHONPATH', os.getcwd())
    monkeypatch.chdir(tmp_path)
    result = without_train(*command)
    assert result.returncode == 1 and 'pip install "omnisapiens_nb[train]"' in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_an_atlas_needs_no_training(mini_sources, mini_atlas, tmp_path):
    assert without_train('--help').returncode == 0
    assert without_train('check', mini_atlas).returncode == 0
    assert without_train('cards', '--out', tmp_path / 'cards').returncode == 0
    assert 'exists already' in without_train('mini', '--out', mini_sources).stderr
    result = without_train('curate', '--source', f'mustard={mini_sources / "mustard"}', '--out', tmp_path / 'atlas')
    assert result.returncode == 0, result.stderr


HEAVY = ('numpy', 'pandas', 'pyarrow', 'pydantic', 'scipy', 'torch')
HELPS = """
import sys
from omnisapiens_nb.cli import main
sys.argv = ['omnisapiens-nb', '--help']
try:
    main()
finally:
    sys.stderr.write(' '.join(sys.modules))
"""


def test_help_waits_for_nothing():
    result = subprocess.run([sys.executable, '-c', HELPS], capture_output=True, text=True)
    assert result.returncode == 0 and 'curate' in result.stdout
    assert not set(HEAVY) & set(result.stderr.split())
