"""The recipe for a card of 16 GB on a tiny model, as on one: four bits, float16 and its scaler; see pretended.py.

`make four-bit-test` brings bitsandbytes and runs this file; without it most is skipped."""

from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from conftest import ROOT
from pretended import pretended
from safetensors.torch import load_file

from omnisapiens_nb.atlas.extras import EXTRAS
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.runs import reinforce
from omnisapiens_nb.runs.predict import run_predict
from omnisapiens_nb.runs.reinforce import TRLRecipe, make_trainer, run_trl
from omnisapiens_nb.sft.model import load_model, save_model

SHORT = dict(max_steps=2, save_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=2)
SHORT |= dict(steps_per_generation=2, max_completion_length=4, report_to=[], disable_tqdm=True, learning_rate=1e-3)
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture
def needs_four_bits():
    if find_spec('bitsandbytes') is None:
        pytest.skip('no bitsandbytes, which warns in every process that it is beside: make four-bit-test')


def counted(completions, **columns):
    return [float(i) for i, _ in enumerate(completions)]


@pytest.fixture
def recipe(mini_atlas, warm_start, tmp_path, monkeypatch):
    "recipes/3b_16gb/rl.yaml, for a moment, with the tiny model."
    found = yaml.safe_load((ROOT / 'recipes' / '3b_16gb' / 'rl.yaml').read_text(encoding='utf-8'))
    assert found['four_bit'] and found['dtype'] == 'float16' and found['train']['fp16']
    monkeypatch.setattr('omnisapiens_nb.rl.trl_trainer.atlas_reward', lambda recipe, form: counted)
    found |= dict(atlas=mini_atlas, model=str(warm_start), out=tmp_path / 'out', rows=2, device='cuda:0')
    return TRLRecipe(**found | dict(train=found['train'] | SHORT))


@pytest.fixture
def card():
    "A card, pretended; transformers would ask CUDA for room beforehand."
    with pretended('cuda:0'), patch('transformers.modeling_utils.caching_allocator_warmup', lambda *a, **k: None):
        yield


def trained_types(trainer):
    return {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad}


def test_trained_merged_and_predicted(needs_four_bits, recipe, card, tmp_path):
    made = run_trl(recipe)
    adapter = load_file(made / 'adapter' / 'adapter_model.safetensors')
    moved = [weight for name, weight in adapter.items() if 'lora_B' in name]
    assert {weight.dtype for weight in moved} == {torch.float32} and any(weight.any() for weight in moved)
    base = load_file(Path(recipe.model) / 'model.safetensors')
    merged = load_file(made / 'model.safetensors')
    names = [name for name, weight in merged.items() if not weight.equal(base[name].half())]
    assert len(names) == len(moved) and all(name.startswith('model.layers.') for name in names)  # The decoder's
    kernel = next(name for name in names if 'q_proj' in name)
    layer = kernel.removeprefix('model.').removesuffix('.weight')
    (b,), (a,) = ([x for name, x in adapter.items() if f'{layer}.lora_{part}.' in name] for part in 'BA')
    scale = recipe.lora['lora_alpha'] / recipe.lora['r']
    assert (merged[kernel] - (base[kernel] + scale * b @ a)).abs().max() < 2e-3  # Rounded to float16
    said = run_predict(str(made), recipe.atlas, 'test', tmp_path / 'said.jsonl', rows=1, max_new_tokens=2)
    assert said.read_text()


def test_interrupted_and_resumed(needs_four_bits, recipe, card):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                raise InterruptedError

    whole = run_trl(recipe)
    cut = recipe.model_copy(update=dict(out=recipe.out.with_name('cut')))
    with pytest.raises(InterruptedError):
        run_trl(cut, callbacks=[Stop()])
    run_trl(cut, resume=True)
    assert (cut.out / 'model.safetensors').read_bytes() == (whole / 'model.safetensors').read_bytes()


def test_base_in_four_bits_and_adapter_in_float32(needs_four_bits, recipe, card):
    from bitsandbytes.nn import Params4bit

    trainer = make_trainer(recipe)
    packed = [weight for weight in trainer.model.parameters() if isinstance(weight, Params4bit)]
    assert len(packed) > 20 and {weight.dtype for weight in packed} == {torch.uint8}
    assert trained_types(trainer) == {torch.float32}
    assert trainer.accelerator.scaler.is_enabled()
    assert trainer.model.get_output_embeddings().weight.dtype == torch.float16


def test_first_doubt_as_trl_leaves_it_the_scaler_fails(needs_four_bits, recipe, card, monkeypatch):
    "TRL makes the adapters bfloat16, which CUDA's scaler does not take; so we make them float32."
    monkeypatch.setattr(reinforce, '_train_in_float32', lambda model: None)
    trainer = make_trainer(recipe)
    assert trained_types(trainer) == {torch.bfloat16}
    with pytest.raises(NotImplementedError, match='BFloat16'):
        trainer.train()


def test_second_doubt_an_overflow_in_a_tower_is_named(recipe, tmp_path):
    "What overflows in float16 stops the run with a sentence, on whatever device."
    model, processor = load_model(recipe.model, 'cpu')
    with torch.no_grad():
        for last in (model.model.visual.merger.mlp[2], model.model.audio_tower.proj):
            last.weight.copy_(last.weight.sign() * 6e4)
    save_model(model, processor, tmp_path / 'loud')
    train = recipe.train | dict(fp16=False, bf16=False)
    loud = recipe.model_copy(update=dict(model=str(tmp_path / 'loud'), device='cpu', four_bit=False, train=train))
    with pytest.raises(SourceError, match='the tower of (video|audio) has gone beyond .* float16'):
        run_trl(loud)


@pytest.mark.parametrize('device', ['cpu', 'cuda:1'])
def test_device_of_the_recipe(needs_four_bits, recipe, device):
    placed = reinforce._four_bits(recipe.model_copy(update=dict(device=device)))
    assert placed['device_map'] == {'': device}


def test_without_bitsandbytes(recipe, monkeypatch):
    monkeypatch.setitem(EXTRAS, 'four-bit', ('no_such_module',))
    with pytest.raises(ImportError, match=r'pip install "omnisapiens_nb\[four-bit\]"'):
        make_trainer(recipe)
