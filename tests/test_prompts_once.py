"""Prompts that are read once, and media that are encoded once, give what reading and encoding them for each rollout
gives: on models of several makers, with adapters, with windows shorter than a prompt, in uneven groups, and in TRL.
"""

from contextlib import nullcontext

import pytest
import torch
import trl
from makers import tiny_of
from peft import LoraConfig, get_peft_model

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.meld import write_meld
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl import trl_trainer
from omnisapiens_nb.rl.loop import token_logps
from omnisapiens_nb.rl.trl_trainer import OmniHarpoTrainer, atlas_prompts
from omnisapiens_nb.sft import generate as sampling
from omnisapiens_nb.sft import prompt_cache
from omnisapiens_nb.sft.batches import Examples
from omnisapiens_nb.sft.generate import generate
from omnisapiens_nb.sft.model import tiny_model
from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.prompt_cache import distinct, reads_once
from omnisapiens_nb.sft.text_models import TextProcessor

COPIES = 4
SAME = 1e-5  # Of logits and gradients near 1, in float32


def tiny(kind):
    "A tiny language model of some maker, with adapters where `_lora` stands behind its name, and its processor."
    model, tokenizer = tiny_of(kind.removesuffix('_lora'))
    if kind.endswith('_lora'):
        model = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False))
    return model, TextProcessor(tokenizer)


def prompts_of(processor):
    "Prompts of unequal lengths."
    words = ('why', 'why is it so? it is a joke, ' * 3, 'it is')
    return [processor.encode(dict(problem=text, images=[], videos=[], audios=[])) for text in words]


def repeated(prompts):
    return [prompt for prompt in prompts for _ in range(COPIES)]


def sampled(model, processor, prompts, copies):
    torch.manual_seed(7)
    return generate(model, processor, prompts, 9, sample=True, copies=copies)


def learnt(model, processor, examples, completions):
    "Log-probabilities of completions, and what a loss of them wants to change."
    model.train()
    model.zero_grad()
    logps, mask = token_logps(model, processor, examples, completions)
    weights = torch.linspace(-1, 1, logps.numel()).view_as(logps)
    (logps * mask * weights).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return logps.detach() * mask, gradients


@pytest.fixture
def plainly(monkeypatch):
    "From now on no model reads a prompt once."

    def turn_off():
        monkeypatch.setattr(prompt_cache, 'reads_once', lambda model: False)
        monkeypatch.setattr(sampling, 'reads_once', lambda model: False)

    return turn_off


@pytest.mark.parametrize('kind', ['llama', 'gemma', 'gpt2', 'mistral', 'bloom', 'llama_lora'])
def test_both_ways_are_equal(kind, plainly):
    model, processor = tiny(kind)
    prompts = prompts_of(processor)
    assert reads_once(model)
    completions = sampled(model, processor, prompts, COPIES)
    kept = [place for place in range(len(prompts) * COPIES) if place not in (1, 2, 5)]  # Some had an advantage of 0
    examples = [repeated(prompts)[place] for place in kept]
    said = [completions[place] for place in kept]
    logps, gradients = learnt(model, processor, examples, said)

    plainly()
    assert completions == sampled(model, processor, prompts, COPIES) == sampled(model, processor, repeated(prompts), 1)
    theirs, their_gradients = learnt(model, processor, examples, said)
    assert torch.allclose(logps, theirs, atol=SAME)
    assert gradients.keys() == their_gradients.keys() and gradients
    largest = max(gradient.abs().max() for gradient in their_gradients.values())
    for name, gradient in gradients.items():
        assert (gradient - their_gradients[name]).abs().max() < SAME * largest, name


def test_a_prompt_is_read_once():
    model, processor = tiny('llama')
    prompts = prompts_of(processor)
    read = []
    model.model.register_forward_pre_hook(
        lambda module, args, given: read.append(tuple(given['input_ids'].shape)), with_kwargs=True
    )
    examples = repeated(prompts)
    token_logps(model, processor, examples, [[3, 4]] * len(examples))
    assert read == [(3, max(len(prompt.prompt) for prompt in prompts)), (12, 1)]


@pytest.mark.parametrize('kind', ['mamba', 'mixed'])
def test_a_running_state_is_not_shared(kind):
    "Models whose layers keep another memory than keys and values answer and learn in the plain way."
    model, processor = tiny(kind)
    prompts = prompts_of(processor)
    assert not reads_once(model)
    completions = sampled(model, processor, prompts, COPIES)
    assert completions == sampled(model, processor, repeated(prompts), 1)
    _, gradients = learnt(model, processor, repeated(prompts), completions)
    assert gradients


def test_no_cache_where_activations_are_computed_twice():
    model, processor = tiny('llama')
    model.gradient_checkpointing_enable()
    assert not reads_once(model.train()) and reads_once(model.eval())
    examples = repeated(prompts_of(processor))
    logps, gradients = learnt(model, processor, examples, [[3, 4, 5]] * len(examples))
    model.gradient_checkpointing_disable()
    ours, our_gradients = learnt(model, processor, examples, [[3, 4, 5]] * len(examples))
    assert torch.allclose(ours, logps, atol=SAME) and gradients.keys() == our_gradients.keys()


def test_equal_words_of_two_rows_are_two_prompts():
    "Prompts are told apart by the object, since two rows may have the same words and other sounds."
    _, processor = tiny('llama')
    a, b = prompts_of(processor)[0], prompts_of(processor)[0]
    assert distinct([a, b, a]) == ([a, b], [0, 1, 0]) and distinct([]) == ([], [])


@pytest.mark.parametrize('kind', ['gemma', 'llama_lora'])
def test_settings_of_a_checkpoint_change_no_answer(kind):
    "Not those that reshape the distribution, nor those that say how memory is kept."
    model, processor = tiny(kind)
    prompts = prompts_of(processor)
    plain = sampled(model, processor, prompts, COPIES)
    odd = dict(num_beams=2, min_p=0.9, typical_p=0.5, no_repeat_ngram_size=1, num_return_sequences=2)
    for settings in (odd, dict(use_cache=False), dict(cache_implementation='static'), dict(prefill_chunk_size=4)):
        model.generation_config.update(**settings)
        kept = model.generation_config.to_dict()
        assert sampled(model, processor, prompts, COPIES) == sampled(model, processor, repeated(prompts), 1) == plain
        assert model.generation_config.to_dict() == kept


def test_prompts_of_one_token():
    "Nothing can be read before the last token."
    model, processor = tiny('llama')
    prompts = prompts_of(processor)[:2]
    for prompt in prompts:
        prompt.prompt = prompt.prompt[:1]
    assert sampled(model, processor, prompts, COPIES) == sampled(model, processor, repeated(prompts), 1)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    "A few rows with words, sound and film."
    folder = tmp_path_factory.mktemp('scenes')
    write_meld(folder / 'meld', dialogues=(5, 2, 1))
    curate(dict(meld=folder / 'meld'), folder / 'atlas')
    return open_atlas(folder / 'atlas')


def trained(scenes, folder):
    "Two steps of TRL on four scenes: the losses, the weights, and what left the towers in each forward pass."
    model, processor = tiny_model(train_tokenizer([row['problem'] for row in scenes]))
    data = atlas_prompts(Examples(scenes, processor, range(4)))
    args = trl.GRPOConfig(
        str(folder),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=8,
        num_generations=4,
        num_iterations=2,
        max_completion_length=6,
        learning_rate=1e-3,
        logging_steps=1,
        max_steps=2,
        save_strategy='no',
        disable_tqdm=True,
    )

    def spaces(completions, **columns):
        return [float(answer[0]['content'].count(' ')) for answer in completions]

    trainer = OmniHarpoTrainer(model, spaces, args, data, processor)
    vectors = []
    for name in ('audio_tower', 'visual'):
        tower = getattr(model.model, name)
        tower.register_forward_hook(lambda module, args, out: vectors.append(len(out.pooler_output)))
    trainer.train()
    logged = [entry['grad_norm'] for entry in trainer.state.log_history if 'grad_norm' in entry]
    return logged, {name: weight.detach() for name, weight in model.named_parameters()}, vectors


def test_trl_encodes_each_medium_once(scenes, tmp_path, monkeypatch):
    logged, weights, vectors = trained(scenes, tmp_path / 'once')
    monkeypatch.setattr(trl_trainer, 'media_once', lambda model, media: nullcontext())
    their_logged, their_weights, their_vectors = trained(scenes, tmp_path / 'plain')
    assert len(vectors) == len(their_vectors) > 6
    assert [4 * count for count in vectors] == their_vectors  # Four rollouts of a prompt
    assert logged == pytest.approx(their_logged, rel=1e-4) and len(logged) == 2
    for name, weight in weights.items():
        assert torch.allclose(weight, their_weights[name], atol=1e-4), name
