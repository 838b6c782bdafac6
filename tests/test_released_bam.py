"BAM as the authors released it: recorded outputs, a training step by hand, and the command on a released Atlas."

import io
import json
import math
from itertools import chain
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.descriptors import NoDescriptors, read_descriptors
from omnisapiens_nb.atlas.exchange import convert
from omnisapiens_nb.atlas.holistic import PARTS
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.schema import DOMAINS, RELEASED
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.cli import app
from omnisapiens_nb.runs.fine_tune import BAMRecipe, read_recipe, run_bam
from omnisapiens_nb.runs.train import start_model
from omnisapiens_nb.sft.bam import BAM, Adapter, BAMForm, added_to_answers
from omnisapiens_nb.sft.bam_training import (
    BAMConfig,
    FrozenRow,
    FrozenRows,
    Scaled,
    adapted,
    load_adapters,
    load_bam,
    read_about,
    row_descriptors,
    train_bam,
)
from omnisapiens_nb.sft.batches import Examples, draw_batch
from omnisapiens_nb.sft.generate import writing
from omnisapiens_nb.sft.heads import Heads
from omnisapiens_nb.sft.model import load_model
from omnisapiens_nb.sft.stages import ClassifyConfig, add_lora, pooled_states, save_stages


@pytest.fixture(scope='module')
def recorded(golden):
    return golden('bam_released_code')


def pt(found):
    "What `torch.save` writes."
    file = io.BytesIO()
    torch.save(found, file)
    return file.getvalue()


def largest(pairs):
    "The largest absolute difference over pairs of tensors."
    return max((found - expected).abs().max().item() for found, expected in pairs)


def video(frames, start=0):
    "The landmarks that were recorded: x, y and confidence of a point from its numbers alone."
    parts = {}
    for n, (part, points) in enumerate(PARTS.items()):
        t, p, c = torch.meshgrid(torch.arange(frames), torch.arange(points), torch.arange(3), indexing='ij')
        parts[part] = ((7 * t + 3 * p + 11 * c + 5 * n + start) % 17).float() / 17
    return parts


def test_videos_are_pooled_as_recorded(recorded, beside_release):
    assert len(recorded['films']) == 3
    pairs = []
    for case in recorded['films']:
        found = read_descriptors(pt(video(case['frames'], case['start'])), 3318, 'released')
        pairs.append((found[::79], torch.tensor(case['every_79th'])))
        assert found.double().norm().item() == pytest.approx(case['length'], abs=1e-4)
        assert found.double().sum().item() == pytest.approx(case['total'], abs=1e-3)
    beside_release('Descriptors of videos, pooled', 'recorded: every 79th number of 3 videos', largest(pairs), 1e-6)


def test_a_video_without_a_hand_departs(recorded, beside_release):
    "The recorded vector ends in zeros for 2 · 21 · 3 numbers that have moved; ours says that there is none."
    assert recorded['film_without_left_hand']['zeros_at_the_end'] == 2 * PARTS['left_hand'] * 3
    parts = video(5)
    del parts['left_hand']
    with pytest.raises(NoDescriptors, match='no left_hand'):
        read_descriptors(pt(parts), 3318, 'released')
    assert len(read_descriptors(pt(parts), 3318)) == 3318
    why = 'the release moves all later numbers up and ends in zeros; here the row goes without, and is counted'
    beside_release('Descriptors of a video that lacks a part', 'recorded: one video', None, why=why)


def test_sounds_are_scaled_as_recorded(recorded, beside_release):
    pairs = []
    for case in recorded['sounds']:
        data = pt(dict(features=torch.tensor(case['features'])))
        width = torch.tensor(case['features']).shape[-1]
        if case['unit'] is None:
            with pytest.raises(NoDescriptors):
                read_descriptors(data, width, 'released')
            continue
        scaled = Scaled(BAM(dict(audio=width), 2), BAMForm.released())
        scaled.bam = Seen()
        found = read_descriptors(data, width, 'released')
        scaled(dict(audio=(found[None], torch.ones(1, dtype=torch.bool))))
        pairs.append((scaled.bam.last['audio'][0][0], torch.tensor(case['unit'])))
    beside_release('Descriptors of sounds, at length 1', f'recorded: {len(pairs)} sounds', largest(pairs), 1e-7)


class Seen(nn.Module):
    "Keeps what it was given."

    def forward(self, descriptors, generator):
        self.last = descriptors


def adapter_of(case):
    weights = {name: torch.tensor(values) for name, values in case['weights'].items()}
    norm = 'ln_feats.weight' in weights
    adapter = Adapter(5, 3, inner=4, norm=norm, dropout=case['dropout'], dropped='features')
    names = {'mlp': 'ffn', 'ln_feats': 'norm'}
    ours = {}
    for name, weight in weights.items():
        head, _, rest = name.partition('.')
        ours[f'{names[head]}.{rest}' if rest else name] = weight.reshape(()) if name == 'alpha' else weight
    adapter.load_state_dict(ours)
    return adapter


def test_adapters_add_what_was_recorded(recorded, beside_release):
    pairs = []
    everyone = torch.ones(6, dtype=torch.bool)
    assert {'ln_feats.bias' in case['weights'] for case in recorded['adapters']} == {True, False}
    for case in recorded['adapters']:
        adapter = adapter_of(case)
        features = torch.tensor(case['features'])
        generator = torch.Generator().manual_seed(case['seed'])
        trained = adapter.train()(features, everyone, generator)
        asked = adapter.eval()(features, everyone)
        pairs.append((trained, torch.tensor(case['train'])))
        pairs.append((asked, torch.tensor(case['eval'])))
        zeros = torch.tensor(case['zeros'])
        for row, kept in zip(trained, case['kept']):
            assert kept or torch.allclose(row, zeros[0], atol=1e-5)
        assert zeros.abs().max() > 0.1 and not all(case['kept'])
    over = (
        f'recorded: {len(recorded["adapters"])} adapters of 6 rows, dropped ones among them, in training and after it'
    )
    beside_release('BAM, what an adapter adds', over, largest(pairs), 1e-5)


class Frozen(nn.Module):
    "As much of a model as a classification asks for."

    def __init__(self, hidden):
        super().__init__()
        self.device = torch.device('cpu')
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(hidden_size=hidden))


def released_step(weights, heads, optimizers, parts):
    "One update by hand, over parts of two rows."
    for optimizer in optimizers:
        optimizer.zero_grad()
    for part in parts:
        states = torch.cat([row.hidden for row in part])
        classes = torch.cat([row.targets for row in part])
        if all(row.descriptors for row in part):
            x = torch.stack([row.descriptors['audio'] for row in part])
            x = x / x.norm(dim=1, keepdim=True)
            x = F.layer_norm(x, x.shape[1:], weights['norm.weight'], weights['norm.bias'])
            inner = F.relu(F.linear(x, weights['ffn.0.weight'], weights['ffn.0.bias']))
            states = states + weights['alpha'] * F.linear(inner, weights['ffn.2.weight'], weights['ffn.2.bias'])
        logits = heads.heads['emotion'](states)
        (F.cross_entropy(logits, classes - 7) / len(parts)).backward()
    for optimizer in optimizers:
        optimizer.step()


def rows_with_gaps(width, hidden):
    "States and descriptors at random; every fifth row has none."
    torch.manual_seed(0)
    rows = FrozenRows()
    for i in range(24):
        found = dict(audio=torch.randn(width)) if i % 5 else {}
        rows.append(FrozenRow(found, torch.randn(1, hidden), torch.tensor([7 + i % 8])))
    return rows


def test_a_checkpoint_has_the_heads_too(tmp_path):
    "Resumed after the third of four steps, adapters and heads are the same, bit for bit."
    rows, heads = rows_with_gaps(11, 6), Heads(6)
    config = BAMConfig.released(epochs=None, steps=4, save_every=3)
    common = (Frozen(6), heads, 'emotion_cls', rows, dict(audio='prosody'), config, tmp_path / 'state.pt')
    whole, log = train_bam(*common)
    again, log_again = train_bam(*common)
    assert log_again == log
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), atol=0, rtol=0)
    assert again.bam.rows < whole.bam.rows  # It did not begin anew


@pytest.fixture
def in_float64():
    "Adam divides each gradient by its size; in 32 bits, the last digits of a tiny one differ by machine and count."
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_training_by_hand(in_float64, beside_release):
    "Adam for heads and adapters each at its rate, parts of two rows, a row without descriptors empties its part."
    hidden, width = 6, 11
    rows = rows_with_gaps(width, hidden)
    heads = Heads(hidden)
    config = BAMConfig.released(epochs=None, steps=4, dropout=0.0, save_every=3)
    trained, _ = train_bam(Frozen(hidden), heads, 'emotion_cls', rows, dict(audio='prosody'), config)

    torch.manual_seed(config.seed)
    adapter = Adapter(width, hidden, norm=True, alpha=4.0)
    weights = dict(adapter.named_parameters())
    ours = Heads(hidden)
    ours.load_state_dict(heads.state_dict())
    optimizers = [torch.optim.Adam(ours.parameters(), lr=1e-4), torch.optim.Adam(weights.values(), lr=5e-4)]
    for step in range(4):
        batch = draw_batch(rows, 16, 'bam', config.seed, step)
        parts = [[rows[i] for i in batch[n::8]] for n in range(8)]
        released_step(weights, ours, optimizers, parts)
    pairs = [(weight, weights[name]) for name, weight in trained.bam.adapters['audio'].named_parameters()]
    pairs += list(zip(trained.heads.state_dict().values(), ours.state_dict().values(), strict=True))
    over = 'a loop written by hand: 4 steps of 8 parts, both rates, emptied parts'
    beside_release('BAM, training', over, largest(pairs), 1e-6)
    moved = (trained.heads.heads['emotion'].weight - heads.heads['emotion'].weight).abs().max()
    assert moved > 1e-4
    assert trained.bam.missing['audio'] > 0 and trained.bam.emptied['audio'] > 0


def test_of_several_recordings():
    "The first counts, or their mean; where the first holds nothing, the others do not step in."
    sounds = [torch.full((6373,), value) for value in (2.0, float('nan'), 8.0)]
    row = dict(id='train/1', ext_audio_feats=[pt(dict(features=sound)) for sound in sounds])
    wanted = dict(audio='compare')
    first = row_descriptors(row, wanted, BAMForm(recordings='first'))
    assert first['audio'].tolist() == [2.0] * 6373
    assert row_descriptors(row, wanted)['audio'].tolist() == [5.0] * 6373
    row['ext_audio_feats'] = row['ext_audio_feats'][1:]
    assert row_descriptors(row, wanted, BAMForm(recordings='first')) == {}
    assert row_descriptors(row, wanted)['audio'].tolist() == [8.0] * 6373
    for nothing in ([], None):
        assert row_descriptors(dict(id='train/1', ext_audio_feats=nothing), wanted) == {}


def test_the_recipe_is_the_launcher():
    recipe = read_recipe(ROOT / 'recipes' / '7b' / 'released' / 'bam.yaml', BAMRecipe)
    assert recipe.train == BAMConfig.released()
    assert recipe.extractors == dict(video='landmarks', audio='compare')


def test_a_misspelt_form_is_told(tmp_path):
    for form, words in (('{plaice: after_norm}', 'plaice'), ('{place: after}', "'before_norm' or 'after_norm'")):
        (tmp_path / 'bam.yaml').write_text(f'atlas: a\nout: b\nmodel: c\ntrain: {{form: {form}}}\n')
        with pytest.raises(SourceError, match=words):
            read_recipe(tmp_path / 'bam.yaml', BAMRecipe)


def released_row(row, number):
    "A row with the released columns alone, its descriptors as the release has them."
    row = {name: row[name] for name in RELEASED.names}
    row['task'] = dict(emotion_cls='emotion_cls', social_qa='siq2_qna')[row['task']]
    parts = video(3, number)
    if number % 3 == 1:
        parts['right_hand'] = None
    sound = torch.randn(1, 6373, generator=torch.Generator().manual_seed(number))
    row['ext_video_feats'] = [pt(parts)] if row['videos'] else None
    row['ext_audio_feats'] = [pt(dict(features=sound))] * 2 if row['audios'] and number % 5 else []
    return row


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "An Atlas of released columns alone, and a tiny model with heads."
    folder = tmp_path_factory.mktemp('released')
    write_cremad(folder / 'cremad', actors=3)
    write_siq2(folder / 'siq2', videos=(4, 1, 1))
    plain = folder / 'plain'
    curate({name: folder / name for name in ('cremad', 'siq2')}, plain)
    (folder / 'atlas').mkdir()
    for split, theirs in dict(train=['train'], test=['validation', 'test']).items():
        found = chain.from_iterable(open_atlas(plain, name) for name in theirs)
        rows = [released_row(row, number) for number, row in enumerate(found)]
        table = pa.Table.from_pylist(rows, schema=RELEASED)
        pq.write_table(table, folder / 'atlas' / f'{split}-00000-of-00001.parquet')
    start_model(folder / 'atlas', folder / 'start')
    model, processor = load_model(folder / 'start', 'cpu')
    wrapped = add_lora(model, ClassifyConfig(rank=2))
    save_stages(wrapped, Heads(model.config.text_config.hidden_size), processor, folder / 'sft')
    return folder


def recipe_of(folder, out, **train):
    train = dict(epochs=None, steps=3) | train
    return BAMRecipe(
        atlas=folder / 'atlas',
        out=folder / out,
        model=str(folder / 'sft'),
        extractors=dict(video='landmarks', audio='compare'),
        train=BAMConfig.released(**train),
    )


def test_a_released_atlas_goes_through_check_bam_predict_and_evaluate(folder):
    "By command, without `describe`; the Atlas has the released columns and no more, and tasks in the release's words."
    cli = CliRunner()
    assert open_atlas(folder / 'atlas').released
    assert set(open_atlas(folder / 'atlas').columns('task')['task']) == {'emotion_cls', 'siq2_qna'}
    checked = cli.invoke(app, ['check', str(folder / 'atlas')])
    assert checked.exit_code == 0 and '0 problems' in checked.output, checked.output
    (folder / 'bam.yaml').write_text(yaml.safe_dump(recipe_of(folder, 'bam').model_dump(mode='json')))
    made = cli.invoke(app, ['bam', '--config', str(folder / 'bam.yaml')])
    assert made.exit_code == 0, made.output
    _, _, _, adapters = load_bam(folder / 'bam', 'cpu')
    assert set(adapters) == {'cremad', 'siq2'}
    for scaled, extractors in adapters.values():
        assert scaled.form == BAMForm.released()
        assert extractors == {kind: dict(video='landmarks', audio='compare')[kind] for kind in scaled.bam.adapters}
    assert adapters['cremad'][0].heads is not None and adapters['siq2'][0].heads is None
    about = (folder / 'bam' / 'README.md').read_text(encoding='utf-8')
    assert '× video: no right_hand in it' in about
    asked = dict(model=folder / 'bam', atlas=folder / 'atlas', out=folder / 'bam.jsonl')
    answered = cli.invoke(app, ['predict', *(f'--{name}={value}' for name, value in asked.items())])
    assert answered.exit_code == 0, answered.output
    lines = [json.loads(line) for line in (folder / 'bam.jsonl').read_text(encoding='utf-8').splitlines()]
    assert len(lines) == len(open_atlas(folder / 'atlas', 'test'))
    scored = dict(atlas=folder / 'atlas', predictions=folder / 'bam.jsonl', out=folder / 'scores', judge='offline')
    evaluated = cli.invoke(app, ['evaluate', *(f'--{name}={value}' for name, value in scored.items())])
    assert evaluated.exit_code == 0, evaluated.output
    table = pd.read_csv(folder / 'scores' / 'scores.csv')
    assert set(table.dataset) >= {'cremad', 'siq2'} and table[table.model == 'bam'].value.notna().all()


def test_every_row_without_is_counted(folder):
    "What the card says against the files themselves."
    run_bam(recipe_of(folder, 'counted'))
    card = (folder / 'counted' / 'README.md').read_text(encoding='utf-8')
    rows = [row for row in open_atlas(folder / 'atlas') if row['dataset'] == 'siq2']
    silent = sum(not row['ext_audio_feats'] for row in rows)
    videos = [torch.load(io.BytesIO(row['ext_video_feats'][0])) for row in rows if row['videos']]
    handless = sum(parts['right_hand'] is None for parts in videos)
    without = len(rows) - len(videos) + handless
    assert silent and handless < len(videos)
    line = f'| siq2 | {len(rows)} | {without} without video, {silent} without audio ({handless} × video: no right_hand'
    assert line in card


def test_answers_by_hand(folder, beside_release):
    "Labels by the heads that were trained along, open answers with the delta behind the norm; both in one batch."
    run_bam(recipe_of(folder, 'asked'))
    model, heads, processor, adapters = load_bam(folder / 'asked', 'cpu')
    voices, questions = adapters['cremad'][0], adapters['siq2'][0]
    for p in voices.heads.parameters():
        nn.init.normal_(p)
    with torch.no_grad():
        questions.bam.adapters['video'].alpha.mul_(2)
    store = open_atlas(folder / 'atlas')
    examples = Examples(store, processor, range(len(store)))
    asked = next(e for e in examples if e.row['dataset'] == 'siq2')
    spoken = [e for e in examples if e.row['dataset'] == 'cremad'][:12]
    batch = [*spoken[:3], asked, *spoken[3:]]
    answers = adapted(model, heads, processor, adapters, 8)(batch)
    written = answers.pop(3)
    assert len(set(answers)) > 1
    labels = [label_by_hand(model, processor, voices, adapters['cremad'][1], e) for e in spoken]
    wrong = sum(answer != label for answer, label in zip(answers, labels, strict=True))
    beside_release('BAM, labels by heads trained along', f'a computation by hand: {len(labels)} answers', wrong, 0)
    delta = delta_of(questions, row_descriptors(asked.row, adapters['siq2'][1], BAMForm.released()))
    by_place = {}
    for place in ('before_norm', 'after_norm'):
        with torch.no_grad(), added_to_answers(model, delta, place):
            by_place[place] = writing(model, processor, 8)([asked])[0]
    assert written != by_place['before_norm']
    over = 'a computation by hand: one open answer, the delta behind the final norm'
    beside_release('BAM, open answers', over, float(written != by_place['after_norm']), 0)


@torch.no_grad()
def label_by_hand(model, processor, scaled, extractors, example):
    "Likeliest option by the heads that were trained along."
    delta = delta_of(scaled, row_descriptors(example.row, extractors, BAMForm.released()))
    logits = scaled.heads.heads['emotion'](pooled_states(model, processor, [example]) + delta)[0]
    labels = DOMAINS['emotion']
    likeliest = max(example.row['options'], key=lambda option: logits[labels.index(option)])
    return f'\\boxed{{{likeliest}}}'


@torch.no_grad()
def delta_of(scaled, found):
    "What the descriptors of one row add, kind by kind."
    total = 0
    for kind, x in found.items():
        x = x / x.norm() if kind == 'audio' else x
        adapter = scaled.bam.adapters[kind]
        total = total + adapter.alpha * adapter.ffn(adapter.norm(x[None]))
    return total


def test_ours_reads_the_same_files(folder):
    "Our form pools otherwise, and a hand that was never seen is no reason to go without."
    recipe = recipe_of(folder, 'ours').model_copy(update=dict(train=BAMConfig(steps=3)))
    run_bam(recipe)
    card = (folder / 'ours' / 'README.md').read_text(encoding='utf-8')
    assert 'no right_hand' not in card
    _, _, _, adapters = load_bam(folder / 'ours', 'cpu')
    assert {scaled.form for scaled, _ in adapters.values()} == {BAMForm()}


class Trap:
    def __reduce__(self):
        return print, ('never',)


@pytest.mark.parametrize(
    'data, words',
    [
        (pt(Trap()), 'holds more than tensors'),
        (pt(video(3))[:3000], 'damaged'),
        (pt(video(3) | dict(face=torch.ones(3, 468, 3))), 'face has the shape'),
        (pt(dict(features=torch.ones(88))), '88 descriptors where 3318'),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder, tmp_path, data, words):
    "One sentence with file and row; nothing of the run is left in the way of another."
    rows = [{name: row[name] for name in RELEASED.names} for row in open_atlas(folder / 'atlas')]
    place = next(i for i, row in enumerate(rows) if row['videos'])
    rows[place]['ext_video_feats'] = [data]
    (tmp_path / 'atlas').mkdir()
    shard = tmp_path / 'atlas' / 'train-00000-of-00001.parquet'
    pq.write_table(pa.Table.from_pylist(rows, schema=RELEASED), shard)
    recipe = recipe_of(folder, 'bad').model_copy(update=dict(atlas=tmp_path / 'atlas', out=tmp_path / 'bad'))
    with pytest.raises(SourceError, match=words) as told:
        run_bam(recipe)
    assert str(told.value).startswith(f'{shard}, row {place + 1}: train/{place + 1}, video: ')
    assert '\n' not in str(told.value)


def test_the_path_form_brings_the_same_descriptors(folder, tmp_path):
    "Files beside JSON Lines are called .pt, and come back as they were."
    convert(folder / 'atlas', tmp_path / 'paths')
    names = {path.suffix for path in (tmp_path / 'paths' / 'media').iterdir()}
    assert '.pt' in names and '.bin' not in names
    convert(tmp_path / 'paths', tmp_path / 'back')
    for split in ('train', 'test'):
        before, after = open_atlas(folder / 'atlas', split), open_atlas(tmp_path / 'back', split)
        for column in ('ext_video_feats', 'ext_audio_feats'):
            assert [row[column] or [] for row in after] == [row[column] or [] for row in before]


def test_adapters_of_an_older_version_are_ours(folder, tmp_path):
    "Their file says nothing of a form."
    run_bam(recipe_of(folder, 'older').model_copy(update=dict(train=BAMConfig(steps=3))))
    path = folder / 'older' / 'siq2.safetensors'
    about = {name: value for name, value in read_about(path).items() if name not in ('form', 'heads', 'unusable')}
    save_file(load_file(path), tmp_path / 'siq2.safetensors', metadata=dict(bam=json.dumps(about)))
    hidden = load_file(path)['bam.adapters.video.ffn.2.bias'].shape[0]
    scaled, _ = load_adapters(tmp_path / 'siq2.safetensors', hidden)
    assert scaled.form == BAMForm() and scaled.heads is None


def test_epochs_count_rows():
    "Three epochs of the launcher."
    assert BAMConfig.released().steps_for(101) == math.ceil(3 * 101 / 16)
