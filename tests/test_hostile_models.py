"Folders of models that ask for more than to be read."

import ast
import json
import logging
import shutil

import pytest
import torch
from conftest import ROOT
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from omnisapiens_nb.atlas.reading import SourceError, check_weights
from omnisapiens_nb.atlas.transcripts import load_recogniser, tiny_recogniser
from omnisapiens_nb.evaluation.judge_local import local_judge
from omnisapiens_nb.sft.heads import Heads
from omnisapiens_nb.sft.model import load_model, save_model
from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.stages import load_stages, save_stages
from omnisapiens_nb.sft.text_models import TEXT_SPECIAL, tiny_text_model


@pytest.mark.parametrize('file', ['tokenizer_config.json', 'preprocessor_config.json'])
def test_code_in_a_model_folder_is_not_run(file, tmp_path, warm_start, monkeypatch):
    "A folder that names a class of its own, in a file beside it: nobody is asked, and nothing is run."
    folder = shutil.copytree(warm_start, tmp_path / 'model')
    (folder / 'own.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")\nclass Own: pass\n')
    kind = 'AutoTokenizer' if file.startswith('tokenizer') else 'AutoFeatureExtractor'
    own = ['own.Own', None] if kind == 'AutoTokenizer' else 'own.Own'
    settings = json.loads((folder / file).read_text())
    kept = {key: value for key, value in settings.items() if key not in ('tokenizer_class', 'feature_extractor_type')}
    (folder / file).write_text(json.dumps(kept | dict(auto_map={kind: own})))
    monkeypatch.setattr('builtins.input', lambda *_: pytest.fail('somebody was asked'))
    with pytest.raises(SourceError, match='asks to run code of its own'):
        load_model(folder)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    ('said', 'wrong'),
    [
        ('{"frames": 2, "size": 5', 'the file: Invalid JSON'),
        ('[2, 56]', 'the file: Input should be an object'),
        ('{"frames": 2, "size": 1000000}', 'size: Input should be less than or equal to 4096'),
        ('{"frames": "many"}', 'frames: Input should be a valid integer'),
        ('{"frames": 2, "sise": 56}', 'sise: Extra inputs are not permitted'),
        ('{"profile": {"seconds": -1}}', 'profile.seconds: Input should be greater than 0'),
    ],
)
def test_settings_that_are_none(said, wrong, tmp_path, warm_start):
    folder = shutil.copytree(warm_start, tmp_path / 'model')
    (folder / 'film.json').write_text(said)
    with pytest.raises(SourceError) as told:
        load_model(folder)
    assert f'{folder / "film.json"}: {wrong}' in str(told.value)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A tiny language model, and an adapter with heads on it; not to be changed."
    folder = tmp_path_factory.mktemp('small')
    model, processor = tiny_text_model(train_tokenizer(['Is this funny?'] * 9, special=TEXT_SPECIAL))
    save_model(model, processor, folder / 'model')
    model, processor = load_model(folder / 'model')
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=['q_proj']))
    save_stages(adapted, Heads(64), processor, folder / 'adapter')
    return folder


def pickled(folder, name, old):
    "Weights as a pickle in the place of safetensors."
    torch.save(load_file(folder / f'{name}.safetensors'), folder / f'{old}.bin')
    (folder / f'{name}.safetensors').unlink()


def test_pickled_weights_are_refused(small, tmp_path):
    "Everywhere a model is loaded: by a stage, as a judge, as a recogniser, below an adapter."
    folder = shutil.copytree(small / 'model', tmp_path / 'model')
    adapter = shutil.copytree(small / 'adapter', tmp_path / 'adapter')
    settings = json.loads((adapter / 'adapter_config.json').read_text())
    (adapter / 'adapter_config.json').write_text(json.dumps(settings | dict(base_model_name_or_path=str(folder))))
    pickled(folder, 'model', 'pytorch_model')
    heard = tiny_recogniser(tmp_path / 'recogniser')
    pickled(heard, 'model', 'pytorch_model')
    calls = [(load_model, folder), (local_judge, folder), (load_recogniser, heard), (load_model, adapter)]
    for load, place in calls:
        with pytest.raises(SourceError, match='pytorch_model.bin: weights as a pickle, .* only safetensors are read'):
            load(place)


@pytest.mark.parametrize('load', [load_model, load_stages])
def test_a_pickled_adapter_is_refused(load, small, tmp_path):
    folder = shutil.copytree(small / 'adapter', tmp_path / 'adapter')
    pickled(folder, 'adapter_model', 'adapter_model')
    with pytest.raises(SourceError, match='none is read from a pickle|weights as a pickle'):
        load(folder)


@pytest.mark.parametrize('part', ['pytorch_model.bin', '../model.safetensors', '/etc/passwd', 'a\\b.safetensors'])
def test_a_part_that_is_no_safetensors_beside_the_list(part, small, tmp_path):
    folder = shutil.copytree(small / 'model', tmp_path / 'model')
    whole = folder / 'model.safetensors'
    names = list(load_file(whole))
    (tmp_path / 'model.safetensors').write_bytes(whole.read_bytes())
    pickled(folder, 'model', 'pytorch_model')
    index = dict(metadata={}, weight_map=dict.fromkeys(names, part))
    (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
    with pytest.raises(SourceError, match='index.json: names .* where a safetensors file beside it is expected'):
        load_model(folder)
    (folder / 'model.safetensors.index.json').write_text('[1')
    with pytest.raises(SourceError, match='index.json: the file: Invalid JSON'):
        check_weights(folder)
    whole.write_bytes((tmp_path / 'model.safetensors').read_bytes())
    (folder / 'model.safetensors.index.json').unlink()
    settings = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(settings | dict(transformers_weights=part)))
    with pytest.raises(SourceError, match='transformers_weights is'):
        load_model(folder)


@pytest.mark.parametrize('load', [load_model, load_stages])
def test_the_model_below_an_adapter_is_said(load, small, tmp_path, caplog):
    folder = shutil.copytree(small / 'adapter', tmp_path / 'adapter')
    with caplog.at_level(logging.WARNING):
        load(folder)
    said = [record.getMessage() for record in caplog.records if 'adapter_config.json' in record.getMessage()]
    assert said == [
        f'{folder}/adapter_config.json: names {small / "model"}, so the model in that folder is loaded below it'
    ]


@pytest.mark.parametrize(
    ('changed', 'wrong'),
    [
        (dict(peft_type='PROMPT_TUNING'), "peft_type: Input should be 'LORA'"),
        (dict(megatron_config={'a': 1}, megatron_core='antigravity'), 'megatron_config: Input should be null'),
        (dict(base_model_name_or_path=7), 'base_model_name_or_path: Input should be a valid string'),
        (dict(base_model_name_or_path='no/folder here'), 'names no/folder here as its base|no complete checkpoint'),
    ],
)
@pytest.mark.parametrize('load', [load_model, load_stages])
def test_settings_of_an_adapter_that_are_none(load, changed, wrong, small, tmp_path):
    folder = shutil.copytree(small / 'adapter', tmp_path / 'adapter')
    settings = json.loads((folder / 'adapter_config.json').read_text())
    (folder / 'adapter_config.json').write_text(json.dumps(settings | changed))
    with pytest.raises(SourceError, match=wrong):
        load(folder)


def calls_of_others(path):
    "Calls that load something of transformers or sentence-transformers, with their keywords."
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        of_auto = called.startswith('Auto') and called.endswith(('.from_pretrained', '.from_config'))
        if of_auto or called in ('pipeline', 'SentenceTransformer'):
            yield called, {ast.unparse(keyword) for keyword in node.keywords}


def test_every_call_says_that_no_code_is_run():
    open_calls = []
    found = 0
    for path in sorted((ROOT / 'omnisapiens_nb').rglob('*.py')):
        for called, keywords in calls_of_others(path):
            found += 1
            if not keywords & {'trust_remote_code=False', '**SAFELY'}:
                open_calls.append(f'{path.name}: {called}')
            loads = 'Model' in called and called.endswith('.from_pretrained')
            if loads and not keywords & {'**SAFELY', 'gguf_file=gguf.name'}:
                open_calls.append(f'{path.name}: {called} reads pickles')
    assert found > 10 and not open_calls
