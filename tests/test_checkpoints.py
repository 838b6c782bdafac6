"""Checkpoints in the form in which the authors publish theirs. The folders are made here by torch.save, json and
safetensors alone, the answers are computed here by a forward pass of the tensors, and both are compared with what the
package makes of them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.runs.describe import describe_atlas
from omnisapiens_nb.runs.fine_tune import BAMRecipe, LMHeadRecipe, plan_stage, run_bam, run_lm_head
from omnisapiens_nb.runs.predict import open_responder, run_predict
from omnisapiens_nb.sft.bam_training import ANY, BAMConfig, is_bam, load_bam, release_bam
from omnisapiens_nb.sft.batches import Examples, choose_rows
from omnisapiens_nb.sft.fit import FitConfig
from omnisapiens_nb.sft.model import load_model
from omnisapiens_nb.sft.stages import ClassifyConfig, is_staged, load_stages, merge, save_stages, train_classifier

# The published label scheme
SCHEME = dict(
    sentiment_intensity='highly negative,negative,weakly negative,neutral,weakly positive,positive,highly positive',
    emotion='anger,disgust,fear,happy,neutral,calm,sad,surprise',
    mental_health_ptsd='no ptsd,ptsd',
    mental_health_depression='no depression,depression',
    mental_health_anxiety='no anxiety,anxiety',
    sarcasm='not sarcasm,sarcasm',
    humour='not humour,humour',
)
LABELS = {domain: labels.split(',') for domain, labels in SCHEME.items()}
HEAD_OF = dict(cremad=1, mmsd=5)  # Dataset to the number of its domain
WIDTHS = dict(video=8, audio=11)  # Of the descriptors that need no package: motion, prosody


def global_classes():
    "As the release writes them."
    found = {}
    index = 0
    for domain, labels in LABELS.items():
        found[domain] = []
        for label in labels:
            found[domain].append(dict(index=index, label=label))
            index += 1
    return found


def head_tensors(hidden, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for i, labels in enumerate(LABELS.values()):
        tensors[f'heads.{i}.weight'] = torch.randn(len(labels), hidden, generator=generator).half()
        tensors[f'heads.{i}.bias'] = torch.randn(len(labels), generator=generator).half()
    return tensors


def adapter_tensors(hidden, norm=True, seed=1):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for kind, width in WIDTHS.items():
        inner = 6 if kind == 'video' else 5
        shapes = {'mlp.0.weight': (inner, width), 'mlp.0.bias': (inner,)}
        shapes |= {'mlp.2.weight': (hidden, inner), 'mlp.2.bias': (hidden,), 'alpha': (1,)}
        if norm:
            shapes |= {'ln_feats.weight': (width,), 'ln_feats.bias': (width,)}
        for name, shape in shapes.items():
            tensors[f'{kind}_adapter.{name}'] = torch.randn(shape, generator=generator).half()
    return tensors


def write_folder(folder, plain, adapters=None):
    "A released folder: the Thinker of `plain` in float16 with its processor's files, heads, scheme, adapters."
    folder.mkdir()
    for path in plain.iterdir():
        if path.suffix not in ('.safetensors', '.md', '.jsonl') and path.name != 'film.json':
            (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(plain / 'model.safetensors')
    save_file({k: w.half() for k, w in weights.items()}, folder / 'model.safetensors', metadata=dict(format='pt'))
    config = json.loads((plain / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(config | dict(dtype='float16')))
    torch.save(head_tensors(config['text_config']['hidden_size']), folder / 'heads.bin')
    scheme = dict(num_classes=25, meta=dict(global_classes=global_classes()))
    (folder / 'label_scheme.json').write_text(json.dumps(scheme))
    (folder / 'training_meta.json').write_text(json.dumps(dict(epoch=3)))
    if adapters:
        torch.save(adapters, folder / 'adapters.bin')
    return folder


@pytest.fixture(scope='module')
def atlas(mini_atlas, tmp_path_factory):
    return describe_atlas(mini_atlas, tmp_path_factory.mktemp('described') / 'atlas')


@pytest.fixture(scope='module')
def folders(warm_start, tmp_path_factory):
    "A released SFT model and a released BAM model, as their authors write them."
    folder = tmp_path_factory.mktemp('checkpoints')
    hidden = json.loads((warm_start / 'config.json').read_text())['text_config']['hidden_size']
    sft = write_folder(folder / 'sft', warm_start)
    return sft, write_folder(folder / 'bam', warm_start, adapter_tensors(hidden))


def chosen(atlas, processor, key, count=4):
    store = open_atlas(atlas, 'test')
    rows = [i for i in choose_rows(store) if store[i]['dataset'] == key][:count]
    examples = Examples(store, processor, rows)
    return [examples[i] for i in range(len(rows))]


@torch.no_grad()
def pooled_by_hand(model, processor, example):
    "Mean of the penultimate hidden state over the tokens of one row, not padded."
    batch, _ = processor.collate([example])
    return model(**batch, output_hidden_states=True).hidden_states[-2][0].float().mean(0)


def head_by_hand(tensors, dataset, state):
    "Logits of a dataset's head, and the label of the largest."
    number = HEAD_OF[dataset]
    weight = tensors[f'heads.{number}.weight'].float()
    logits = weight @ state + tensors[f'heads.{number}.bias'].float()
    return logits, list(LABELS.values())[number][logits.argmax()]


def adapter_by_hand(tensors, kind, x):
    t = {name.removeprefix(f'{kind}_adapter.'): w.float() for name, w in tensors.items()}
    if 'ln_feats.weight' in t:
        x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * t['ln_feats.weight'] + t['ln_feats.bias']
    inside = (t['mlp.0.weight'] @ x + t['mlp.0.bias']).clamp(min=0)
    return t['alpha'] * (t['mlp.2.weight'] @ inside + t['mlp.2.bias'])


def test_what_a_folder_is_told_by(folders, warm_start):
    sft, bam = folders
    assert [is_staged(f) for f in (warm_start, sft, bam)] == [False, True, True]
    assert [is_bam(f) for f in (warm_start, sft, bam)] == [False, False, True]


def bare(name):
    "A weight's name without the parts that files leave out."
    return name.removeprefix('model.').removeprefix('language_model.')


def test_the_thinker_is_read_to_the_last_bit(folders, beside_release):
    sft, _ = folders
    other = 0
    stored = load_file(sft / 'model.safetensors')
    for dtype in (torch.float16, torch.float32):
        model, _ = load_model(sft, 'cpu', dtype=dtype)
        found = {bare(name): w for name, w in model.state_dict().items()}
        other += sum(not found[bare(name)].equal(w.to(dtype)) for name, w in stored.items())
    over = f'a folder written by the test: {len(stored)} tensors, in float16 and float32'
    beside_release('Checkpoint, the Thinker', over, other, 0)


def test_heads_answer_as_a_forward_pass_of_the_file_does(folders, atlas, beside_release):
    differences = []
    sft, _ = folders
    model, heads, processor = load_stages(sft, 'cpu', dtype=torch.float32)
    tensors = torch.load(sft / 'heads.bin', weights_only=True)
    respond, _ = open_responder(sft, 8)
    for key in HEAD_OF:
        examples = chosen(atlas, processor, key)
        for example in examples:
            state = pooled_by_hand(model, processor, example)
            logits, label = head_by_hand(tensors, key, state)
            found = heads(state[None], torch.tensor([HEAD_OF[key]]))[0]
            differences.append((found[found.isfinite()] - logits).abs().max().item())
            half, _, _ = load_stages(sft, 'cpu', dtype='auto')
            _, label = head_by_hand(tensors, key, pooled_by_hand(half, processor, example))
            assert respond([example]) == [f'\\boxed{{{label}}}']
    over = f'a forward pass by hand of a folder written by the test: {len(differences)} rows'
    beside_release('Checkpoint, logits of the heads', over, max(differences), 1e-5)


def test_an_answer_may_be_any_label_of_the_domain(folders, atlas, tmp_path):
    "As in the release: `calm` is no option of CREMA-D, and a head that is sure of it says so."
    sft, _ = folders
    folder = tmp_path / 'calm'
    folder.mkdir()
    for path in sft.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = torch.load(sft / 'heads.bin', weights_only=True)
    tensors['heads.1.bias'][LABELS['emotion'].index('calm')] = 500
    torch.save(tensors, folder / 'heads.bin')
    respond, processor = open_responder(folder, 8)
    (example, *_) = chosen(atlas, processor, 'cremad')
    assert 'calm' not in example.row['options'] and respond([example]) == ['\\boxed{calm}']


def test_adapters_add_what_a_forward_pass_of_the_file_adds(folders, beside_release):
    differences = []
    _, bam = folders
    *_, adapters = load_bam(bam, 'cpu', dtype=torch.float32)
    scaled, extractors = adapters[ANY]
    assert extractors == dict(video='motion', audio='prosody')
    tensors = torch.load(bam / 'adapters.bin', weights_only=True)
    for kind, width in WIDTHS.items():
        x = torch.randn(width, generator=torch.Generator().manual_seed(width))
        delta = scaled.bam.adapters[kind](x[None], torch.tensor([True]))[0]
        expected = adapter_by_hand(tensors, kind, x)
        differences.append(((delta - expected).abs().max() / expected.abs().max()).item())
    over = 'a forward pass by hand of a folder written by the test: both kinds, relative to the largest number'
    beside_release('Checkpoint, what the adapters add', over, max(differences), 1e-5)


def test_predict_and_merge_take_them(cli, cli_here, folders, atlas, tmp_path):
    sft, bam = folders
    for model in (sft, bam):
        out = run_predict(str(model), atlas, 'test', tmp_path / f'{model.name}.jsonl', rows=2, max_new_tokens=4)
        assert len(out.read_text().splitlines()) == 6
    result = cli('merge', '--model', sft, '--out', tmp_path / 'ours')
    assert result.returncode == 0, result.stderr
    _, ours, _ = load_stages(tmp_path / 'ours', 'cpu')
    _, theirs, _ = load_stages(sft, 'cpu')
    assert ours.whole_domain
    assert all(a.equal(b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values()))
    result = cli_here('merge', '--model', bam, '--out', tmp_path / 'no')
    assert result.returncode == 1 and '--form released' in result.stderr and 'Traceback' not in result.stderr


def test_undescribed_rows_are_told(folders, mini_atlas, tmp_path):
    with pytest.raises(SourceError, match='no row of the Atlas has descriptors'):
        run_predict(str(folders[1]), mini_atlas, 'test', tmp_path / 'x.jsonl', rows=1)


def test_released_form_of_ours_is_read_by_others(cli_here, warm_start, mini_atlas, atlas, tmp_path, beside_release):
    differences = []
    'Stage 1 of ours, written in the released form, and read by the functions of this file alone.'
    model, processor = load_model(warm_start, 'cpu')
    store = open_atlas(mini_atlas, 'train')
    rows = [i for i in choose_rows(store, limit=8) if store[i]['options']]
    wrapped, heads, _ = train_classifier(
        model, processor, Examples(store, processor, rows), ClassifyConfig(steps=2, batch=4, lr=5e-3)
    )
    save_stages(wrapped, heads, processor, tmp_path / 'stage')
    result = cli_here('merge', '--model', tmp_path / 'stage', '--out', tmp_path / 'out', '--form', 'released')
    assert result.returncode == 0, result.stderr
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert {'model.safetensors', 'heads.bin', 'label_scheme.json', 'training_meta.json'} <= names
    assert 'heads.safetensors' not in names
    stored = load_file(tmp_path / 'out' / 'model.safetensors')
    assert {w.dtype for w in stored.values()} == {torch.float16} and not any('lora' in name for name in stored)
    scheme = json.loads((tmp_path / 'out' / 'label_scheme.json').read_text())
    assert scheme['meta']['global_classes'] == global_classes()
    tensors = torch.load(tmp_path / 'out' / 'heads.bin', weights_only=True)
    assert {name: tuple(w.shape) for name, w in tensors.items()} == {
        name: tuple(w.shape) for name, w in head_tensors(model.config.text_config.hidden_size).items()
    }
    thinker, its_processor = load_model(tmp_path / 'out', 'cpu', dtype=torch.float32)
    for key in HEAD_OF:
        for example in chosen(atlas, processor, key, 2):
            before = pooled_by_hand(wrapped.eval(), processor, example)
            after = pooled_by_hand(thinker, its_processor, example)
            differences.append(((after - before).abs().max() / before.abs().max()).item())
            exact = heads(before[None], torch.tensor([HEAD_OF[key]]))[0]
            read, _ = head_by_hand(tensors, key, before)
            assert torch.allclose(exact[exact.isfinite()], read, atol=1e-5)
    over = f'a forward pass by hand, float32 against the float16 written: {len(differences)} pooled states, relative'
    beside_release('Checkpoint, ours in the released form', over, max(differences), 2e-3)


def test_bam_there_and_back(folders, tmp_path, beside_release):
    _, bam = folders
    other = 0
    again = release_bam(bam, tmp_path / 'again')
    for name in ('heads.bin', 'adapters.bin'):
        before = torch.load(bam / name, weights_only=True)
        after = torch.load(again / name, weights_only=True)
        assert before.keys() == after.keys()
        other += sum(not after[key].equal(w.float()) for key, w in before.items())
    merge(folders[0], tmp_path / 'sft again', 'released')
    before, after = (load_file(f / 'model.safetensors') for f in (folders[0], tmp_path / 'sft again'))
    other += sum(not after[name].equal(w) for name, w in before.items())
    over = 'a folder written by the test: every tensor of the Thinker, the heads and the adapters'
    beside_release('Checkpoint, read and written again', over, other, 0)


class Trap:
    def __reduce__(self):
        return print, ('opened',)


HIDDEN = 64  # Of the tiny model


def reordered():
    classes = global_classes()
    classes['humour'].reverse()
    return classes


def swapped():
    classes = global_classes()
    return {domain: classes[domain] for domain in ('emotion', *[d for d in classes if d != 'emotion'])}


def scheme(classes):
    return json.dumps(dict(meta=dict(global_classes=classes)))


def without(tensors, name):
    return {key: w for key, w in tensors.items() if key != name}


HEADS = head_tensors(HIDDEN)
ADAPTERS = adapter_tensors(HIDDEN)
FAULTS = {
    'label order': ('label_scheme.json', scheme(reordered()), 'another label order'),
    'domain order': ('label_scheme.json', scheme(swapped()), 'another label order'),
    'another scheme': ('label_scheme.json', scheme(['joy'] * 25), 'another label order'),
    'fewer classes': ('label_scheme.json', scheme(['anger', 'disgust']), '2 classes where 25'),
    'no scheme': ('label_scheme.json', '{}', 'meta.global_classes'),
    'not JSON': ('label_scheme.json', '{', 'meta.global_classes'),
    'a form not known': ('label_scheme.json', scheme([dict(id=3)]), 'neither a label nor'),
    'a missing head': ('heads.bin', without(HEADS, 'heads.6.weight'), 'heads.6.weight is missing'),
    'one head too many': (
        'heads.bin',
        HEADS | {'heads.7.weight': torch.ones(2, HIDDEN)},
        'heads.7.weight does not belong',
    ),
    'heads of another width': ('heads.bin', head_tensors(32), 'heads.0.weight has shape (7, 32) where (7, 64)'),
    'heads with a trap': ('heads.bin', HEADS | {'hook': Trap()}, 'would run what is in it'),
    'heads with numbers': ('heads.bin', HEADS | {'step': 3}, 'more than tensors'),
    'heads that are not finite': ('heads.bin', HEADS | {'heads.0.bias': torch.full((7,), torch.nan)}, 'not finite'),
    'a cut file': ('heads.bin', b'PK\x03\x04cut', 'copy it again'),
    'adapters of another state': ('adapters.bin', adapter_tensors(32), 'shape (32, 6) where (64, 6)'),
    'adapters of other descriptors': (
        'adapters.bin',
        ADAPTERS | {'audio_adapter.mlp.0.weight': torch.ones(5, 12)},
        '12 descriptors, which no extractor gives',
    ),
    'half an adapter': ('adapters.bin', without(ADAPTERS, 'video_adapter.mlp.2.bias'), 'mlp.2.bias is missing'),
    'half a norm': ('adapters.bin', without(ADAPTERS, 'audio_adapter.ln_feats.bias'), 'ln_feats.bias is missing'),
    'adapters with a trap': ('adapters.bin', ADAPTERS | {'hook': Trap()}, 'would run what is in it'),
    'complex heads': ('heads.bin', {name: w + 0j for name, w in HEADS.items()}, 'no dense tensor of real numbers'),
    'sparse heads': ('heads.bin', HEADS | {'heads.0.bias': torch.ones(7).to_sparse()}, 'no dense tensor'),
    'heads beyond float32': (
        'heads.bin',
        {name: w.double() * 1e300 for name, w in HEADS.items()},
        'not finite in float32',
    ),
    'a pointer': ('heads.bin', b'version https://git-lfs.github.com/spec/v1\n', 'a pointer of Git LFS'),
    'an empty file': ('heads.bin', b'', 'an empty file'),
    'a flat adapter': ('adapters.bin', ADAPTERS | {'audio_adapter.mlp.0.weight': torch.ones(55)}, 'has shape (55,)'),
    'a broken meta': ('training_meta.json', '{', 'not a readable file of JSON'),
    'a list as meta': ('training_meta.json', '[1, 2]', 'holds [1, 2] where a dictionary'),
    'a scale not known': ('training_meta.json', '{"bam_audio_norm": ["l2"]}', 'bam_audio_norm is'),
    'a broken configuration': ('config.json', '[1]', 'where a dictionary is expected'),
    'another model': ('config.json', '{"model_type": "qwen2"}', 'asks for'),
    'a model of no family': ('config.json', '{"model_type": "vits"}', "a model of the kind 'vits'"),
    'no adapter': ('adapters.bin', {}, 'neither video_adapter nor audio_adapter'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_what_does_not_fit_is_one_sentence(folders, tmp_path, capsys, fault):
    name, content, words = FAULTS[fault]
    folder = tmp_path / 'model'
    folder.mkdir()
    for path in folders[1].iterdir():
        (folder / path.name).symlink_to(path)
    (folder / name).unlink()
    if isinstance(content, dict):
        torch.save(content, folder / name)
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError) as caught:
        load_bam(folder, 'cpu')
    message = str(caught.value)
    assert words in message and f'{folder / name}' in message and '\n' not in message
    assert 'opened' not in capsys.readouterr().out


def test_a_folder_without_its_configuration(folders, tmp_path):
    for path in folders[0].iterdir():
        if path.name != 'config.json':
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(SourceError, match='config.json is missing'):
        load_model(tmp_path, 'cpu')


def test_training_goes_on_from_a_released_model(folders, atlas, tmp_path):
    "Stage 2 changes lm_head of a whole checkpoint; adapters are trained above it, and answer."
    sft, _ = folders
    common = dict(atlas=atlas, rows=4)
    second = LMHeadRecipe(
        stage='lm_head', model=str(sft), out=tmp_path / 'sft', train=FitConfig(steps=1, batch=2), **common
    )
    assert 'lm_head on' in plan_stage(second)
    run_lm_head(second)
    before, after = (load_stages(folder, 'cpu', dtype='auto') for folder in (sft, tmp_path / 'sft'))
    changed = {name for name, w in after[0].state_dict().items() if not w.equal(before[0].state_dict()[name])}
    assert changed == {'lm_head.weight'} and after[1].whole_domain
    run_bam(BAMRecipe(model=str(sft), out=tmp_path / 'bam', train=BAMConfig(steps=1, batch=2), **common))
    out = run_predict(str(tmp_path / 'bam'), atlas, 'test', tmp_path / 'bam.jsonl', rows=1, max_new_tokens=4)
    assert len(out.read_text().splitlines()) == 3
