"Every stage takes every family of models: a tiny Qwen3-Omni and a tiny Qwen2 go the way of the tiny Thinker."

import json
import logging
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from makers import tiny_of
from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.evaluation.judge_local import local_judge
from omnisapiens_nb.evaluation.judge_prompts import Question
from omnisapiens_nb.rl import loop, trl_trainer
from omnisapiens_nb.rl.loop import token_logps
from omnisapiens_nb.runs.predict import load_judge, run_predict
from omnisapiens_nb.runs.train import TINY, start_model
from omnisapiens_nb.sft.batches import Examples, askable, choose_rows
from omnisapiens_nb.sft.families import FAMILIES, QWEN3_OMNI, family_at, final_norm
from omnisapiens_nb.sft.generate import generate
from omnisapiens_nb.sft.model import load_model, save_model
from omnisapiens_nb.sft.processor import CHAT_TEMPLATE, PAD, train_tokenizer
from omnisapiens_nb.sft.qwen3_omni import QWEN3
from omnisapiens_nb.sft.stages import ClassifyConfig, add_lora
from omnisapiens_nb.sft.text_models import PLAIN_TEMPLATE, TEXT_SPECIAL, TextProcessor, tiny_text_model

FAMILY_NAMES = ('qwen3-omni', 'language-model')
LORA = dict(r=2, lora_alpha=4)
TRL = dict(learning_rate=1e-3, logging_steps=1, report_to='none', disable_tqdm=True)
GROUPS = dict(per_device_train_batch_size=4, num_generations=2, max_completion_length=6)


def recipes(atlas, model, folder):
    "One short recipe for each way of training; the command that runs it comes first."
    common = dict(atlas=str(atlas), rows=6, device='cpu', dtype='float32')
    begun = common | dict(model=str(model))
    tuned = common | dict(model=str(folder / 'warm'))
    return dict(
        warm=('sft', begun | dict(train=dict(steps=2, batch=4))),
        adapter=('sft', begun | dict(lora=LORA, train=dict(steps=2, batch=4))),
        classify=('sft', begun | dict(stage='classify', train=dict(steps=2, batch=4, rank=2))),
        answers=('sft', begun | dict(stage='answers', lora=LORA, train=TRL | dict(max_steps=2))),
        loop=('rl', tuned | dict(train=dict(steps=2, prompts=2, rollouts=2, max_new_tokens=6, mini_batch=2))),
        loop_lora=('rl', tuned | dict(lora=LORA, train=dict(steps=1, prompts=2, rollouts=2, max_new_tokens=6))),
        trl=('rl', tuned | dict(trainer='trl', train=TRL | GROUPS | dict(max_steps=2))),
    )


def unlike(texts, *args, **kwargs):
    "Rewards that differ within a group, whatever a model of random weights writes."
    return [SimpleNamespace(total=float(i % 2)) for i in range(len(texts))]


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_the_whole_way(family, mini_atlas, tmp_path, cli_here, monkeypatch):
    monkeypatch.setattr(loop, 'score', unlike)
    monkeypatch.setattr(trl_trainer, 'score', unlike)
    start = tmp_path / 'start'
    made = cli_here('start', '--atlas', mini_atlas, '--family', family, '--out', start)
    assert made.returncode == 0, made.stderr
    for name, (command, recipe) in recipes(mini_atlas, start, tmp_path).items():
        file = tmp_path / f'{name}.yaml'
        file.write_text(yaml.safe_dump(recipe | dict(out=str(tmp_path / name))))
        ran = cli_here(command, '--config', file)
        assert ran.returncode == 0, (name, ran.stderr[-2000:])
        if name != 'classify':  # Which keeps its adapter apart
            trained, _ = load_model(tmp_path / name, 'cpu')
            before, _ = load_model(recipe['model'], 'cpu')
            pairs = zip(trained.parameters(), before.parameters(), strict=True)
            assert any(not torch.equal(now, then) for now, then in pairs), name
    files = []
    for name in ('loop', 'classify'):
        file = tmp_path / f'{name}.jsonl'
        run_predict(str(tmp_path / name), mini_atlas, 'test', file, rows=4, max_new_tokens=6)
        files.append(file)
    report = ('--out', tmp_path / 'report', '--judge', 'offline')
    scored = cli_here('evaluate', '--atlas', mini_atlas, '--predictions', *files, *report)
    assert scored.returncode == 0, scored.stderr
    assert (tmp_path / 'report').exists()


def test_rows_without_ears_are_counted(mini_atlas, tmp_path, caplog):
    "A model of words is asked remarks and open questions by their words; the same sentences of CREMA-D it is not."
    start = start_model(mini_atlas, tmp_path / 'start', family='language-model')
    _, processor = load_model(start, 'cpu')
    store = open_atlas(mini_atlas, 'test')
    with caplog.at_level(logging.WARNING):
        found = askable(store, processor, range(len(store)))
    table = pd.DataFrame(store.columns('dataset', 'modality_signature'))
    by_key = table.groupby('dataset').size()
    with_media = table[table.modality_signature != 'text'].groupby('dataset').size()
    assert found.left_out == dict(cremad=by_key['cremad'])
    assert found.as_words == {key: count for key, count in with_media.items() if key != 'cremad'}
    assert len(found.rows) == len(store) - by_key['cremad']
    assert 'left out (cremad' in caplog.text and 'asked by their words' in caplog.text
    examples = Examples(store, processor, found.rows)
    assert set(examples.signatures) == {'text'}
    for i in range(0, len(examples), 7):
        said = processor.tokenizer.decode(examples[i].prompt)
        assert (
            '<audio>' not in said and '<video>' not in said and 'recording' not in said.split('The above is')[-1][:40]
        )
    file = run_predict(str(start), mini_atlas, 'test', tmp_path / 'out.jsonl', max_new_tokens=2)
    assert len(file.read_text().splitlines()) == len(found.rows)


def test_rows_whose_file_states_no_signature(tmp_path):
    "A file with null in that column: the tags of the prompts say what there is."
    absent = ('images', 'videos', 'audios', 'class_label', 'ext_video_feats', 'ext_audio_feats')
    plain = dict.fromkeys(absent) | dict(
        task='humour_cls', dataset='mine', transcript=None, modality_signature=None, answer='humour'
    )
    rows = [plain | dict(id=f'mine/{tag}', problem=f'{tag}Is this funny?') for tag in ('', '<audio>\n')]
    (tmp_path / 'data').mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / 'data' / 'test-00000-of-00001.parquet')
    tokenizer = train_tokenizer(['Is this funny?'] * 9, special=TEXT_SPECIAL)
    found = askable(open_atlas(tmp_path, 'test'), TextProcessor(tokenizer), [0, 1])
    assert (found.rows, found.left_out) == ([0], dict(mine=1))


def test_adapters_on_adapters_and_odd_configurations(tmp_path):
    (tmp_path / 'adapter_config.json').write_text(json.dumps(dict(base_model_name_or_path=str(tmp_path))))
    with pytest.raises(SourceError, match='is an adapter too'):
        family_at(tmp_path)
    (tmp_path / 'adapter_config.json').unlink()
    for kind in (['qwen2'], dict(a=1), 3):
        (tmp_path / 'config.json').write_text(json.dumps(dict(model_type=kind)))
        with pytest.raises(SourceError, match='a model of the kind'):
            family_at(tmp_path)


def test_rows_of_sound_alone_are_refused_in_a_sentence(mini_sources, tmp_path):
    from omnisapiens_nb.atlas.curate import curate

    voices = curate(dict(cremad=mini_sources / 'cremad'), tmp_path / 'voices').folder
    start = start_model(voices, tmp_path / 'start', family='language-model')
    with pytest.raises(SourceError, match='takes only words; take a model that takes their media'):
        run_predict(str(start), voices, 'test', tmp_path / 'out.jsonl')


@pytest.mark.parametrize('family', TINY)
def test_every_family_can_judge(family, mini_atlas, tmp_path):
    start = start_model(mini_atlas, tmp_path / 'start', family=family)
    judge = local_judge(start, load=load_judge)
    question = Question('a', 'siq2', 'social_qa', 'Why does he wave?', 'to say goodbye', 'he leaves')
    verdicts = {}
    judge.answer([judge.request(question, 'common')], verdicts.__setitem__)
    assert list(verdicts) == [0] and verdicts[0].correct is None  # Random weights give no verdict, and say so


@pytest.mark.parametrize('kind', ['llama', 'gemma', 'gpt2'])
def test_models_of_other_makers(kind, mini_atlas, tmp_path):
    "Loaded by no name of ours, they train with LoRA, have a norm, and answer alike alone and in a batch."
    model, tokenizer = tiny_of(kind)
    save_model(model, TextProcessor(tokenizer), tmp_path / 'model')
    model, processor = load_model(tmp_path / 'model', 'cpu', dtype=torch.float32)
    wrapped = add_lora(model, ClassifyConfig(rank=2))
    trained = {name for name, weight in wrapped.named_parameters() if weight.requires_grad}
    assert trained and not any('lm_head' in name for name in trained)
    assert final_norm(wrapped).weight.shape == (32,)
    store = open_atlas(mini_atlas, 'train')
    rows = askable(store, processor, choose_rows(store, limit=2)).rows
    examples = [Examples(store, processor, rows)[i] for i in range(3)]
    together = generate(model, processor, examples, 5)
    assert together == [generate(model, processor, [example], 5)[0] for example in examples]
    logps, mask = token_logps(model, processor, examples, together)
    alone = [token_logps(model, processor, [e], [c])[0][0] for e, c in zip(examples, together)]
    for row, (line, one) in enumerate(zip(logps, alone)):
        assert torch.allclose(line[mask[row]], one[: int(mask[row].sum())], atol=1e-4)


def test_a_base_model_gets_the_plain_template(tmp_path, cli_here):
    model, tokenizer = tiny_of('llama')
    model.save_pretrained(tmp_path / 'base')
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / 'base')
    with pytest.raises(SourceError, match='has no chat template.*omnisapiens-nb init-model --model'):
        load_model(tmp_path / 'base', 'cpu')
    started = cli_here('start', '--model', tmp_path / 'base', '--out', tmp_path / 'start')
    assert started.returncode == 0, started.stderr
    copy, processor = load_model(tmp_path / 'start', 'cpu')
    assert processor.tokenizer.chat_template == PLAIN_TEMPLATE
    assert all(torch.equal(now, then) for now, then in zip(copy.parameters(), model.parameters(), strict=True))
    both = cli_here('start', '--model', 'x', '--atlas', 'y', '--out', tmp_path / 'z')
    assert both.returncode == 2 and 'or --model' in both.stderr


def test_a_second_start_of_text_is_not_written(tmp_path):
    "A tokenizer that puts its own first token in front must not do so behind a template that writes it."
    tokenizer = train_tokenizer(['why? yes no'] * 9, special=(*TEXT_SPECIAL, '<bos>'), template=PLAIN_TEMPLATE)
    tokenizer.bos_token = '<bos>'
    from tokenizers.processors import TemplateProcessing

    bos = tokenizer.convert_tokens_to_ids('<bos>')
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single='<bos> $A', special_tokens=[('<bos>', bos)])
    assert tokenizer('why?').input_ids[0] == bos
    row = dict(problem='why?', images=[], videos=[], audios=[])
    prompt = TextProcessor(tokenizer).encode(row).prompt
    assert prompt[0] == bos and prompt.count(bos) == 1


REFUSED = {
    'qwen2_5_vl': 'a vision-language model, whose pictures are read in a way not known here; take Qwen2.5-Omni',
    'wav2vec2': "a model of the kind 'wav2vec2'; take Qwen2.5-Omni",
    None: 'a model of the kind None',
}


@pytest.mark.parametrize('kind', REFUSED)
def test_models_of_no_family(kind, tmp_path, mini_atlas, cli_here):
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type=kind)))
    with pytest.raises(SourceError, match=REFUSED[kind]):
        load_model(tmp_path)
    asked = cli_here('predict', '--model', tmp_path, '--atlas', mini_atlas, '--out', tmp_path / 'out.jsonl')
    assert asked.returncode == 1 and REFUSED[kind] in asked.stderr and len(asked.stderr.splitlines()) == 1


def test_no_type_is_of_two_families():
    types = [kind for family in FAMILIES for kind in family.types]
    assert len(types) == len(set(types))


def test_a_whole_qwen3_omni_is_read_as_its_thinker(mini_atlas, tmp_path):
    "A release holds talker and vocoder too: its Thinker's weights have a prefix, and its configuration is inner."
    start = start_model(mini_atlas, tmp_path / 'start', family='qwen3-omni')
    thinker, processor = load_model(start, 'cpu')
    whole = tmp_path / 'whole'
    thinker.save_pretrained(whole, state_dict={f'thinker.{k}': v for k, v in thinker.state_dict().items()})
    inner = json.loads((start / 'config.json').read_text())
    (whole / 'config.json').write_text(json.dumps(dict(model_type='qwen3_omni_moe', thinker_config=inner)))
    processor.save_pretrained(whole)
    assert family_at(whole) is QWEN3_OMNI
    again, _ = load_model(whole, 'cpu')
    assert isinstance(again, Qwen3OmniMoeThinkerForConditionalGeneration)
    pairs = zip(thinker.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_the_tiny_ones_differ_in_tokens_alone():
    assert TINY['qwen3-omni'].template != CHAT_TEMPLATE and '<|audio_pad|>' in QWEN3.template
    tokenizer = train_tokenizer(['why?'] * 3, special=TEXT_SPECIAL)
    assert tokenizer.pad_token == PAD
    model, _ = tiny_text_model(tokenizer)
    assert model.num_parameters() < 500_000
