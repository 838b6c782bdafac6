"""A file as the release writes it: its own task names, no question, no options. It is checked, scored and judged as
ours is; a row that nobody can place is named with file and row; dataset or task alone is enough."""

import json
import re
from itertools import chain

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from omnisapiens_nb.atlas.check import check
from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.datasets import DATASETS, find_task, question_in, task_of
from omnisapiens_nb.atlas.exchange import jsonl_to_parquet, read_jsonl, write_jsonl
from omnisapiens_nb.atlas.mini.chsimsv2 import write_chsimsv2
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.intentqa import write_intentqa
from omnisapiens_nb.atlas.mini.mimeqa import write_mimeqa
from omnisapiens_nb.atlas.mini.mmpsy import write_mmpsy
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.schema import CLASSES, RELEASED, TASKS, task_named
from omnisapiens_nb.atlas.store import UNSIGNED, open_atlas, open_splits
from omnisapiens_nb.evaluation.evaluate import NO_GROUPS, evaluate, grader_of, score_models
from omnisapiens_nb.evaluation.metrics import metric_of
from omnisapiens_nb.evaluation.samples import read_samples, sample_summary, sample_table
from omnisapiens_nb.evaluation.scores import metric_fn, table_of
from omnisapiens_nb.rl.loop import readable
from omnisapiens_nb.rl.trl_trainer import atlas_prompts
from omnisapiens_nb.runs.predict import run_predict
from omnisapiens_nb.runs.train import start_model
from omnisapiens_nb.sft.batches import Examples, choose_rows
from omnisapiens_nb.sft.heads import choose_labels, domain_of
from omnisapiens_nb.sft.model import tiny_model
from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.stages import has_head

SIZES = {
    write_cremad: dict(actors=14),
    write_chsimsv2: dict(videos=(3, 1, 3), clips=3),
    write_mmpsy: dict(people=30),
    write_siq2: dict(videos=(8, 3, 2)),
    write_intentqa: dict(videos=(6, 2, 4)),
    write_mimeqa: dict(videos=12),
}
WRITERS = dict(cremad=write_cremad, chsimsv2=write_chsimsv2, mmpsy=write_mmpsy, siq2=write_siq2)
THEIR_TASKS = dict(
    cremad='emotion_cls',
    chsimsv2='chsimsv2_sentiment_intensity_cls',
    mmpsy_depression='mental_health_depression_cls',
    mmpsy_anxiety='mental_health_anxiety_cls',
    siq2='siq2_qna',
)


def released(rows, file, **changed):
    "Rows in the release's form and words, as one shard."
    written = []
    for row in rows:
        bare = {name: row[name] for name in RELEASED.names}
        descriptors = dict(ext_video_feats=[b'\x80\x02'] if row['videos'] else [], ext_audio_feats=[])
        written.append(bare | descriptors | dict(task=THEIR_TASKS[row['dataset']]) | changed)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(written, RELEASED), file)
    return file


@pytest.fixture(scope='module')
def forms(tmp_path_factory):
    "Folder of our Atlas, and of the same rows as the release writes them."
    folder = tmp_path_factory.mktemp('names')
    for name, write in WRITERS.items():
        write(folder / name, **SIZES[write])
    ours = curate({name: folder / name for name in WRITERS}, folder / 'ours').folder
    theirs = folder / 'theirs'
    for split in ('train', 'test'):
        released(open_atlas(ours, split), theirs / 'data' / f'{split}-00000-of-00001.parquet')
    return ours, theirs


def answer_file(atlas, path):
    "Predictions for the test split: right in two rows of three."
    columns = open_atlas(atlas, 'test').columns('id', 'answer')
    lines = []
    for number, (row_id, answer) in enumerate(zip(columns['id'], columns['answer'])):
        said = answer if number % 3 else 'who knows'
        lines.append(json.dumps(dict(id=row_id, response=f'<think>so</think>\\boxed{{{said}}}')))
    path.write_text('\n'.join(lines), encoding='utf-8')
    return path


def test_every_dataset_decides_and_every_spelling_is_known(beside_release):
    wrong = 0
    asked = (None, '', 'mood_cls', *TASKS, *THEIR_TASKS.values())
    for key, dataset in DATASETS.items():
        wrong += sum(task_of(key, task) != dataset.task for task in asked)
    over = f'{len(DATASETS)} datasets under {len(asked)} names of tasks each: how often the task is another'
    beside_release('Routing by dataset', over, wrong, 0)
    for key, task in THEIR_TASKS.items():
        assert find_task('mine', task) == DATASETS[key].task
        assert metric_of(task) is metric_of(DATASETS[key].task)
    assert metric_fn('siq2_q&a') is metric_fn('social_qa')


@pytest.mark.parametrize(
    'name', ['cls', 'qa', '', None, 'classification', 'mood_cls', 'emotion_qa', 'sarcasm_humour_cls']
)
def test_a_task_that_says_nothing(name):
    assert task_named(name) is None
    with pytest.raises(SourceError, match='neither the dataset'):
        task_of('mine', name)


def test_check_finds_no_problem(cli_here, forms):
    result = cli_here('check', forms[1])
    assert result.returncode == 0 and '0 problems' in result.stdout, result.stdout + result.stderr


def test_the_question_is_read_from_the_prompt(tmp_path, forms):
    for name, write in dict(intentqa=write_intentqa, mimeqa=write_mimeqa).items():
        write(tmp_path / name, **SIZES[write])
    others = curate({name: tmp_path / name for name in ('intentqa', 'mimeqa')}, tmp_path / 'atlas').folder
    for atlas in (forms[0], others):
        for row in chain(*open_splits(atlas).values()):
            assert question_in(row['problem']) == row['question']


def test_it_is_scored_and_judged_as_ours_is(forms, tmp_path, beside_release):
    scores = {}
    for name, atlas in zip(('ours', 'theirs'), forms):
        file = answer_file(atlas, tmp_path / f'{name}.jsonl')
        report, scored, of = evaluate(atlas, {'model': file}, tmp_path / name, grader=grader_of('offline'))
        assert scored == of and report.is_file()
        scores[name] = pd.read_csv(tmp_path / name / 'scores.csv').set_index(['model', 'dataset'])
    columns = ['task', 'rows', 'value', 'out_of_set', 'abstained']
    pd.testing.assert_frame_equal(scores['ours'][columns], scores['theirs'][columns])
    assert set(scores['theirs'].task) == {DATASETS[key].task for key in THEIR_TASKS}
    difference = (scores['ours'].value - scores['theirs'].value).abs().max()
    over = f'our form of the same rows: {len(scores["theirs"])} scores, by metrics and by the offline judge'
    beside_release('Parquet and names of tasks, evaluated', over, difference, 0)


@pytest.mark.parametrize(
    'changed',
    [
        dict(dataset='a set of my own'),
        dict(dataset=None),
        dict(dataset=' '),
        dict(task=None),
        dict(task='mood_cls'),
        dict(task=''),
        dict(dataset=' CREMAD ', task='EMOTION_CLS'),
    ],
)
def test_one_of_the_two_is_enough(forms, tmp_path, changed):
    rows = [row for row in open_atlas(forms[0], 'test') if row['dataset'] == 'cremad'][:4]
    file = released(rows, tmp_path / 'data' / 'test-00000-of-00001.parquet', **changed)
    (found,) = set(table_of(open_atlas(tmp_path, 'test')).task)
    assert found == 'emotion_cls'
    e = score_models(tmp_path, {'m': answer_file(tmp_path, tmp_path / 'm.jsonl')})
    (score,) = e.scores['m'].values()
    assert (score.task, score.rows, score.out_of_set) == ('emotion_cls', 4, 2)
    _, problems = check(file)
    assert len(problems) <= 2
    assert problems.empty == (changed == dict(task='mood_cls'))


@pytest.mark.parametrize(
    'changed',
    [
        dict(dataset='mine', task='mood_cls'),
        dict(dataset=None, task=None),
        dict(dataset='', task='QA'),
        dict(dataset='CREMA', task='emotion'),
    ],
)
def test_neither_is_named_with_file_and_row(forms, tmp_path, changed):
    rows = open_atlas(forms[0], 'test')[:3]
    file = released(rows[:2], tmp_path / 'data' / 'test-00000-of-00002.parquet')
    bad = released(rows, tmp_path / 'data' / 'test-00001-of-00002.parquet', **changed)
    message = f'{bad}, row 1: neither the dataset {changed["dataset"]!r} nor the task {changed["task"]!r} is known'
    with pytest.raises(SourceError, match=re.escape(message)) as raised:
        table_of(open_atlas(tmp_path, 'test'))
    assert 'cremad' in str(raised.value) and 'emotion_cls' in str(raised.value)
    total, problems = check(bad)
    counted = problems.set_index('problem').rows
    assert counted['an unknown dataset key with an unknown task, for which there is neither head nor metric'] == total
    assert check(file)[1].empty


def test_neither_is_one_sentence_to_a_user(cli_here, forms, tmp_path):
    rows = open_atlas(forms[0], 'test')[:3]
    bad = released(rows, tmp_path / 'data' / 'test-00000-of-00001.parquet', dataset='mine', task='mood_cls')
    predictions = answer_file(tmp_path, tmp_path / 'm.jsonl')
    result = cli_here('evaluate', '--atlas', tmp_path, '--predictions', predictions, '--out', tmp_path / 'out')
    assert result.returncode == 1
    (sentence,) = result.stderr.strip().splitlines()
    assert sentence.startswith(f'error: {bad}, row 1: neither')
    result = cli_here('check', tmp_path)
    assert result.returncode == 1 and 'unknown task' in result.stdout


def test_a_dataset_and_a_task_that_contradict(forms, tmp_path):
    rows = [row for row in open_atlas(forms[0], 'test') if row['dataset'] == 'cremad'][:3]
    for task in ('sentiment_intensity_cls', 'social_qa', 'mood_qa'):
        _, problems = check(released(rows, tmp_path / 'test-00000-of-00001.parquet', task=task))
        assert list(problems.problem) == ['the dataset and the task contradict each other']
        assert list(problems.rows) == [3]


@pytest.mark.parametrize('column', ['answer', 'class_label'])
def test_a_label_outside_the_domain(forms, tmp_path, column):
    rows = [row for row in open_atlas(forms[0], 'test') if row['dataset'] == 'chsimsv2'][:2]
    changed = {column: 'joy', 'dataset': 'mine'}
    file = released(rows, tmp_path / 'test-00000-of-00001.parquet', **changed)
    _, problems = check(file)
    place = 'answer' if column == 'answer' else 'class_label'
    assert f'the {place} is no label of its domain' in set(problems.problem)
    if column == 'answer':
        with pytest.raises(SourceError, match=f"{file}, row 1: the reference 'joy' is no label"):
            table_of(open_atlas(tmp_path, 'test'))


def test_path_form(forms, tmp_path):
    "JSON Lines with the release's names: read, checked, made into Parquet; a task that is a number is a sentence."
    file = write_jsonl(forms[1], 'test', tmp_path / 'paths')
    lines = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]
    bare = [{name: line[name] for name in (*RELEASED.names, 'texts')} for line in lines]
    file.write_text('\n'.join(map(json.dumps, bare)), encoding='utf-8')
    assert check(file)[1].empty
    back = jsonl_to_parquet({'test': file}, tmp_path / 'back')
    assert open_atlas(back, 'test').columns('task') == open_atlas(forms[1], 'test').columns('task')
    assert open_atlas(back, 'test').columns('question') == open_atlas(forms[0], 'test').columns('question')
    bare[1] |= dict(task=3)
    file.write_text('\n'.join(map(json.dumps, bare)), encoding='utf-8')
    with pytest.raises(SourceError, match="line 2: task is '3', no text"):
        list(read_jsonl(file))


def test_heads_go_by_the_dataset():
    sentiment = dict(dataset='meld_senti', task='emotion_cls', options=['negative', 'neutral', 'positive'])
    assert has_head(sentiment)
    assert domain_of('emotion_cls', 'meld_senti') == domain_of('sentiment_intensity_cls') == domain_of('sentiment_cls')
    logits = torch.arange(25.0)[None]
    assert choose_labels(logits, [sentiment]) == ['positive']
    by_task = dict(task='sentiment_intensity_cls', options=[label for _, label in CLASSES[:7]])
    assert choose_labels(logits, [by_task]) == ['highly positive']
    with pytest.raises(SourceError, match="neither the dataset 'mine' nor the task 'mood_cls'"):
        has_head(dict(dataset='mine', task='mood_cls', options=[]))


def test_an_own_question_is_kept(forms, tmp_path):
    "A file with the released columns and a question of its own, but no ids."
    rows = open_atlas(forms[1], 'test')[:2]
    table = pa.Table.from_pylist([{name: row[name] for name in RELEASED.names} for row in rows], RELEASED)
    pq.write_table(table.append_column('question', [['One?', 'Two?']]), tmp_path / 'test-00000-of-00001.parquet')
    atlas = open_atlas(tmp_path, 'test')
    assert atlas.columns('question', 'id') == dict(question=['One?', 'Two?'], id=['test/1', 'test/2'])
    assert [row['question'] for row in atlas] == ['One?', 'Two?']


def test_a_model_that_left_rows_out(forms, tmp_path):
    file = answer_file(forms[1], tmp_path / 'm.jsonl')
    lines = file.read_text(encoding='utf-8').splitlines()
    file.write_text('\n'.join(lines[5:]), encoding='utf-8')
    assert score_models(forms[1], {'m': file}).missing == 5


def test_several_samples_of_released_rows(forms, tmp_path):
    "Three samples and a paraphrase of every row, two of three alike: consistency 2/3, every paraphrase another answer."
    rows = table_of(open_atlas(forms[1], 'test'))
    lines = []
    for row in rows.itertuples():
        for wording, said in ((None, row.answer), (None, row.answer.upper()), (None, 'no idea'), ('short', 'no idea')):
            lines.append(json.dumps(dict(id=row.id, wording=wording, response=f'\\boxed{{{said}}}', tokens=len(said))))
    file = tmp_path / 'samples.jsonl'
    file.write_text('\n'.join(lines), encoding='utf-8')
    table = sample_table(rows, read_samples(file, rows.id))
    assert len(table) == len(rows) and set(table.samples) == {4}
    assert table.self_consistency.tolist() == pytest.approx([2 / 3] * len(rows))
    assert set(table.vote) == {1.0} and set(table.flip_rate) == {1.0}
    summary = sample_summary(dict(model=table)).model
    expected = sum(2 * len(answer) + 2 * len('no idea') for answer in rows.answer) / (4 * len(rows))
    assert summary['tokens'].value == pytest.approx(expected)


def odd_file(forms, folder, split='test', at=0, kinds=None, **changed):
    "Four rows as the release writes them, one changed in content, or all in a column's type."
    rows = [row for row in open_atlas(forms[0], split) if row['dataset'] == 'cremad'][:4]
    rows = [{name: row[name] for name in RELEASED.names} for row in rows]
    for row in rows if kinds else rows[at : at + 1]:
        row.update({name: value(row) if callable(value) else value for name, value in changed.items()})
    kinds = kinds or {}
    schema = pa.schema([(field.name, kinds.get(field.name, field.type)) for field in RELEASED])
    file = folder / f'{split}-00000-of-00001.parquet'
    pq.write_table(pa.Table.from_pylist(rows, schema), file)
    return file


def with_column(file, name, values):
    pq.write_table(pq.read_table(file).append_column(name, values), file)


CHAT = pa.list_(pa.struct([('role', pa.string()), ('content', pa.string())]))
STRUCTS = pa.list_(pa.struct([('bytes', pa.binary()), ('path', pa.string())]))


@pytest.mark.parametrize(
    ('column', 'kind', 'value', 'words'),
    [
        ('task', pa.list_(pa.string()), ['emotion_cls'], 'list<element: string>, not string; write one text'),
        ('answer', pa.int64(), 3, 'int64, not string; write one text'),
        ('answer', pa.float64(), 0.5, 'double, not string; write one text'),
        ('problem', CHAT, [dict(role='user', content='Why?')], 'not string; write one text'),
        ('modality_signature', pa.int64(), 1, 'int64, not string'),
        ('dataset', pa.binary(), b'cremad', 'binary, not string'),
        ('class_label', pa.bool_(), True, 'bool, not string'),
        ('audios', pa.int64(), 3, 'write a list of bytes for each row, [Path(name).read_bytes()]'),
        ('audios', pa.list_(pa.string()), ['a.wav'], 'write a list of bytes for each row'),
        ('audios', STRUCTS, [dict(bytes=b'x', path='a.wav')], 'keep only the bytes of each struct'),
        ('videos', pa.binary(), b'x', 'binary, not list'),
        ('ext_audio_feats', pa.string(), 'a.pt', 'write a list of bytes for each row'),
        ('ext_audio_feats', pa.list_(pa.list_(pa.float64())), [[1.0]], 'write a list of bytes for each row'),
    ],
)
def test_a_column_of_the_wrong_type_stops_the_file(forms, tmp_path, column, kind, value, words):
    file = odd_file(forms, tmp_path, kinds={column: kind}, **{column: value})
    with pytest.raises(SourceError, match=re.escape(f'{file}: the column {column} is ')) as raised:
        open_atlas(tmp_path, 'test')
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ('column', 'kind', 'value'),
    [
        ('problem', pa.large_string(), lambda row: row['problem']),
        ('task', pa.dictionary(pa.int8(), pa.string()), 'emotion_cls'),
        ('audios', pa.large_list(pa.large_binary()), lambda row: row['audios']),
        ('audios', pa.list_(pa.binary(), 1), lambda row: row['audios']),
        ('dataset', pa.null(), None),
        ('ext_audio_feats', pa.null(), None),
        ('ext_video_feats', pa.list_(pa.null()), []),
    ],
)
def test_types_that_read_back_alike_are_taken(forms, tmp_path, column, kind, value):
    plain = odd_file(forms, tmp_path)
    expected = open_atlas(tmp_path, 'test')[2]
    changed = odd_file(forms, tmp_path, kinds={column: kind}, **{column: value})
    assert plain == changed
    found = open_atlas(tmp_path, 'test')[2]
    if kind in (pa.null(), pa.list_(pa.null())):
        assert not found.pop(column)
        expected.pop(column)
    assert {name: found[name] for name in RELEASED.names if name in found} == {
        name: expected[name] for name in RELEASED.names if name in expected
    }


@pytest.fixture(scope='module')
def processor(forms):
    texts = [row['problem'] for row in open_atlas(forms[0], 'train')]
    return tiny_model(train_tokenizer(texts))[1]


@pytest.mark.parametrize(
    ('changed', 'words'),
    [
        (dict(audios=[b'notaudio']), 'cannot be decoded'),
        (dict(audios=[b'']), 'the file is empty'),
        (dict(audios=[None]), 'one of its audios is null'),
        (dict(audios=None), '1 <audio> in the prompt but 0 media'),
        (dict(audios=[]), '1 <audio> in the prompt but 0 media'),
        (dict(problem=None), 'the prompt is empty'),
        (dict(problem=' '), 'the prompt is empty'),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(forms, processor, tmp_path, changed, words):
    file = odd_file(forms, tmp_path, at=1, **changed)
    atlas = open_atlas(tmp_path, 'test')
    examples = Examples(atlas, processor, choose_rows(atlas))
    assert examples[0].mels
    with pytest.raises(SourceError, match=re.escape(f'{file}, row 2: ')) as raised:
        examples[1]
    assert words in str(raised.value)
    assert readable(examples, [0, 1]) == ([0], {'test/2': str(raised.value)})


@pytest.mark.parametrize('changed', [dict(audios=[None]), dict(audios=None), dict(problem=None)])
def test_trl_names_a_row_that_cannot_be_asked(forms, processor, tmp_path, changed):
    file = odd_file(forms, tmp_path, at=1, **changed)
    atlas = open_atlas(tmp_path, 'test')
    prompts = atlas_prompts(Examples(atlas, processor, choose_rows(atlas)))
    assert prompts[0]['prompt']
    with pytest.raises(SourceError, match=re.escape(f'{file}, row 2: ')):
        prompts[1]


def test_a_row_without_a_signature_is_scored(forms, tmp_path):
    odd_file(forms, tmp_path, at=2, modality_signature=None)
    assert table_of(open_atlas(tmp_path, 'test')).modality_signature.tolist()[2] == UNSIGNED
    report, scored, _ = evaluate(tmp_path, {'m': answer_file(tmp_path, tmp_path / 'm.jsonl')}, tmp_path / 'out')
    assert scored == 4 and UNSIGNED in report.read_text(encoding='utf-8')


def test_our_columns_are_made_up_one_by_one(forms, tmp_path):
    file = odd_file(forms, tmp_path)
    whole = open_atlas(tmp_path, 'test')[0]
    with_column(file, 'id', [['a', 'b', 'c', 'd']])
    atlas = open_atlas(tmp_path, 'test')
    assert atlas.released and 'id' not in atlas.made_up
    assert atlas[0] == whole | dict(id='a')
    assert check(file)[1].empty
    report, scored, _ = evaluate(tmp_path, {'m': answer_file(tmp_path, tmp_path / 'm.jsonl')}, tmp_path / 'out')
    assert scored == 4 and NO_GROUPS in report.read_text(encoding='utf-8')


@pytest.mark.parametrize(
    ('ids', 'problem', 'count', 'words'),
    [
        (pa.array(['a', None, 'b', 'c']), 'no id', 1, 'row 2: the id is empty'),
        (pa.array(['a', 'b', ' ', '']), 'no id', 2, 'row 3: the id is empty'),
        (pa.nulls(4), 'no id', 4, 'row 1: the id is empty'),
        (pa.array(['a', 'b', 'a', 'a']), 'an id that was there before', 2, "row 3: the id 'a' is also the id of"),
    ],
)
def test_ids_that_name_no_row(forms, tmp_path, ids, problem, count, words):
    file = odd_file(forms, tmp_path)
    with_column(file, 'id', ids)
    problems = check(file)[1].set_index('problem')
    assert dict(problems.rows) == {problem: count}
    with pytest.raises(SourceError, match=re.escape(f'{file}, {words}')):
        table_of(open_atlas(tmp_path, 'test'))


def test_numbers_as_ids_are_a_sentence(forms, tmp_path):
    file = odd_file(forms, tmp_path)
    with_column(file, 'id', pa.array([1, 2, 3, 4]))
    with pytest.raises(SourceError, match='the column id is int64, not string; .* or leave the column out'):
        check(file)


def test_questions_in_some_rows_only(forms, tmp_path):
    file = odd_file(forms, tmp_path)
    asked = open_atlas(tmp_path, 'test').columns('question')['question']
    with_column(file, 'question', pa.array([None, 'Mine?', None, '']))
    atlas = open_atlas(tmp_path, 'test')
    expected = [asked[0], 'Mine?', asked[2], '']
    assert asked[0] and atlas.columns('question')['question'] == expected
    assert [row['question'] for row in atlas] == expected


def test_a_file_without_rows(cli_here, forms, tmp_path):
    file = odd_file(forms, tmp_path)
    pq.write_table(pq.read_table(file)[:0], file)
    result = cli_here('check', file)
    assert result.returncode == 1 and 'no rows' in result.stdout
    with pytest.raises(SourceError, match=re.escape(f'{file}: no rows in it')):
        choose_rows(open_atlas(tmp_path, 'test'))
    with pytest.raises(SourceError, match=re.escape(f'{file}: no rows in it')):
        run_predict(tmp_path / 'no model', tmp_path, 'test', tmp_path / 'out.jsonl')


def test_a_damaged_page_is_named_with_its_row_group(forms, tmp_path):
    file = odd_file(forms, tmp_path)
    table = pq.read_table(file)
    pq.write_table(table, file, row_group_size=2, compression='zstd')
    at = pq.ParquetFile(file).metadata.row_group(1).column(0).dictionary_page_offset
    data = bytearray(file.read_bytes())
    data[at : at + 60] = b'\xff' * 60
    file.write_bytes(data)
    atlas = open_atlas(tmp_path, 'test')
    assert atlas[1]['problem']
    for read in (lambda: atlas[2], lambda: atlas.columns('problem')):
        with pytest.raises(SourceError, match=re.escape(f'{file}, row group 2: damaged')) as raised:
            read()
        assert 'copy the file again' in str(raised.value)


@pytest.mark.parametrize(
    ('changed', 'words'),
    [
        (dict(audios=['a\0b']), r"'a\x00b' cannot be a path"),
        (dict(audios=['a' * 5000]), 'cannot be a path (File name too long)'),
        (dict(ext_audio_feats=['a/' * 4000]), 'cannot be a path'),
        (dict(audios=['x' * 200 + '.wav']), 'no file'),
    ],
)
def test_paths_that_are_none(forms, tmp_path, changed, words):
    odd_file(forms, tmp_path)
    file = write_jsonl(tmp_path, 'test', tmp_path / 'paths')
    lines = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]
    lines[1] |= changed
    file.write_text('\n'.join(map(json.dumps, lines)), encoding='utf-8')
    with pytest.raises(SourceError, match=re.escape(f'{file}, line 2: ')) as raised:
        check(file)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ('changed', 'words'),
    [
        (dict(id=3), "id is '3', not string"),
        (dict(options='anger'), "options is 'anger', not list"),
        (dict(source_row='one'), "source_row is 'one', not int64"),
    ],
)
def test_our_columns_in_json_lines(forms, tmp_path, changed, words):
    odd_file(forms, tmp_path)
    file = write_jsonl(tmp_path, 'test', tmp_path / 'paths')
    lines = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]
    lines[1] |= dict(question=None, id=None)
    file.write_text('\n'.join(map(json.dumps, lines)), encoding='utf-8')
    back = open_atlas(jsonl_to_parquet({'test': file}, tmp_path / 'back'), 'test')
    assert back[1]['question'] == lines[0]['question'] and back[1]['id'] == 'test/2'
    lines[1] |= changed
    file.write_text('\n'.join(map(json.dumps, lines)), encoding='utf-8')
    with pytest.raises(SourceError, match=re.escape(f'{file}, row 2: {words}')):
        jsonl_to_parquet({'test': file}, tmp_path / 'other')
    if 'id' in changed:
        assert 'an id that is no text' in set(check(file)[1].problem)


def test_what_check_takes(forms, tmp_path):
    file = odd_file(forms, tmp_path)
    lines = write_jsonl(tmp_path, 'test', tmp_path / 'paths')
    capitals = [file.rename(tmp_path / 'TEST.PARQUET'), lines.rename(lines.with_name('TEST.JSONL'))]
    for path in capitals:
        assert check(path)[0] == 4
    capitals[1].rename(lines)
    total, problems = check(lines.parent)
    assert total == 4 and problems.empty
    table = tmp_path / 'x.csv'
    table.write_text('a,b', encoding='utf-8')
    with pytest.raises(SourceError, match='a file of another kind, by the end of its name; give an Atlas folder'):
        check(table)
    with pytest.raises(SourceError, match='no such folder or file'):
        check(tmp_path / 'y.parquet')
    with pytest.raises(SourceError, match='neither split-NNNNN'):
        check(forms[0] / 'data' / '..' / '..' / 'cremad')


@pytest.mark.parametrize('changed', [dict(answer=None), dict(answer=' '), dict(modality_signature=None)])
def test_a_row_with_nothing_to_learn_is_named(forms, tmp_path, changed):
    file = odd_file(forms, tmp_path, split='train', at=3, **changed)
    with pytest.raises(SourceError, match=re.escape(f'{file}, row 4: row train/4: ')):
        start_model(tmp_path, tmp_path / 'start')
