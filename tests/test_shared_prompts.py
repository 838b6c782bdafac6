"""Prompts that are read once give what reading everything anew gives: tokens, numbers and gradients, on odd shapes, on
a model with adapters, and on the small pretrained one.
"""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from omnisapiens_nb.rl.shared_prompts import Limits, branch_logps, merge_equal, sample_groups

SIZES = dict(vocab_size=61, hidden_size=32, intermediate_size=64, num_attention_heads=4, initializer_range=0.5)


def tiny(kind):
    torch.manual_seed(0)
    if kind == 'qwen':
        return Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=2, num_key_value_heads=2, **SIZES)).eval()
    config = Gemma3TextConfig(num_hidden_layers=6, num_key_value_heads=1, head_dim=8, sliding_window=64, **SIZES)
    return Gemma3ForCausalLM(config).eval()


def naive_greedy(model, prompt, limits):
    found = []
    while len(found) < limits.max_new_tokens and not set(found) & set(limits.end):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + found]), logits_to_keep=1).logits
        found.append(logits[0, 0].argmax().item())
    return found


def naive_logps(model, prompt, completion):
    kept = len(completion) + 1  # Those of the prompt's last token and of the completion
    logits = model(torch.tensor([prompt + completion]), logits_to_keep=kept).logits[0].float().log_softmax(-1)
    return logits[:-1].gather(-1, torch.tensor(completion)[:, None])[:, 0]


def texts(generator, count, longest):
    "Token ids of some texts, none of them empty."
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(0, SIZES['vocab_size'], (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize('kind', ['qwen', 'gemma'])
@pytest.mark.parametrize('seed', range(5))
def test_greedy_tokens_are_those_of_reading_everything_anew(kind, seed):
    model = tiny(kind)
    prompts = texts(torch.Generator().manual_seed(seed), 4, 20)
    limits = Limits(8, [3, 17, 40, 51, 9])
    said = sample_groups(model, prompts, 3, limits)
    for prompt, completions in zip(prompts, said, strict=True):
        assert completions == [naive_greedy(model, prompt, limits)] * 3


@pytest.mark.parametrize('kind', ['qwen', 'gemma'])
@pytest.mark.parametrize('seed', range(5))
def test_numbers_are_those_of_reading_each_alone(kind, seed):
    model = tiny(kind)
    generator = torch.Generator().manual_seed(seed)
    prompts = texts(generator, 3, 20)
    completions = [texts(generator, count, 6) for count in (1, 5, 2)]
    once = branch_logps(model, prompts, completions)
    pairs = [(prompt, said) for prompt, of_prompt in zip(prompts, completions) for said in of_prompt]
    for ours, pair in zip(once, pairs, strict=True):
        assert torch.allclose(ours, naive_logps(model, *pair), atol=1e-4)


def test_what_stands_beside_a_completion_changes_nothing():
    model = tiny('gemma')
    prompt, said = [5, 6, 7], [8, 9]
    alone = branch_logps(model, [prompt], [[said]])[0]
    beside = branch_logps(model, [[1] * 30, prompt], [[[2] * 9], [[11] * 5, said, [12]]])[2]
    assert torch.allclose(alone, beside, atol=1e-5)


def test_a_text_beyond_the_window_is_refused():
    model = tiny('gemma')
    branch_logps(model, [[5] * 60], [[[6] * 4, [7] * 4]])
    with pytest.raises(ValueError, match='has 65 tokens, and the model sees 64 at once'):
        branch_logps(model, [[5] * 60], [[[6] * 5]])


def test_draws_can_be_repeated_and_end_where_they_must():
    model = tiny('qwen')
    limits = Limits(6, [3, 17])
    draw = [sample_groups(model, [[5, 6], [7]], 8, limits, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]
    for completion in sum(draw[0], []):
        assert 1 <= len(completion) <= 6
        assert not set(completion[:-1]) & {3, 17}
        assert len(completion) == 6 or completion[-1] in (3, 17)


def test_equal_completions_together_have_the_gradient_of_all():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny('gemma'), LoraConfig(r=4, target_modules=['q_proj', 'v_proj'], init_lora_weights=False))
    model.eval()
    prompts = [[5, 6, 7], [8]]
    rollouts = [[[9, 3], [10, 3], [9, 3], [9, 3]], [[11, 12, 3], [11, 12, 3], [4], [4]]]
    weights = [[0.5, -1.0, 0.25, 0.25], [1.0, -1.5, 0.25, 0.25]]

    def gradient(completions, sums):
        model.zero_grad()
        logps = branch_logps(model, prompts, completions)
        flat = [weight for of_prompt in sums for weight in of_prompt]
        sum(weight * numbers.mean() for weight, numbers in zip(flat, logps, strict=True)).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    everyone = gradient(rollouts, weights)
    together = gradient(*merge_equal(rollouts, weights))
    assert everyone.abs().max() > 1e-3
    assert torch.allclose(everyone, together, atol=1e-5 * everyone.abs().max().item())


def test_the_pretrained_model_says_the_same(small_lm_folder):
    tokenizer = AutoTokenizer.from_pretrained(small_lm_folder)
    model = AutoModelForCausalLM.from_pretrained(small_lm_folder, dtype=torch.float32).eval()
    asked = ('One, two, three,', 'The opposite of hot is', 'Mood of the sentence "I lost my keys again!" in one word:')
    prompts = [tokenizer(text).input_ids for text in asked]
    limits = Limits(6, [tokenizer.eos_token_id])
    said = sample_groups(model, prompts, 2, limits)
    assert said == [[naive_greedy(model, prompt, limits)] * 2 for prompt in prompts]
    drawn = sample_groups(model, prompts, 3, limits, torch.Generator().manual_seed(0))
    with torch.no_grad():
        once = branch_logps(model, prompts, drawn)
        pairs = [(prompt, of_rollout) for prompt, of_prompt in zip(prompts, drawn) for of_rollout in of_prompt]
        for ours, pair in zip(once, pairs, strict=True):
            assert torch.allclose(ours, naive_logps(model, *pair), atol=1e-4)
