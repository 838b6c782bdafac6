"Our estimators against the advantages that TRL's own trainer computes from the same rewards."

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from omnisapiens_nb.rl.advantages import GDPO, GRPO, DrGRPO

G, PROMPTS = 4, 3
LEVELS = [[1.0, 0.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.7, 0.05]]
FORMAT = [[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]


@pytest.fixture(scope='module')
def tokenizer():
    words = Tokenizer(models.WordLevel({'<pad>': 0, '<eos>': 1, '<unk>': 2, 'a': 3, 'b': 4, 'c': 5}, unk_token='<unk>'))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token='<pad>', eos_token='<eos>', unk_token='<unk>')


@pytest.fixture
def trl_advantages(tokenizer, tmp_path):
    "Advantages from one scoring by TRL, of given reward functions and settings."
    from trl import GRPOConfig, GRPOTrainer

    def compute(columns, **settings):
        def reward(values):
            def function(prompts, **columns):
                return [x for group in values for x in group]

            return function

        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=6,
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                pad_token_id=0,
                eos_token_id=1,
                bos_token_id=None,
            )
        )
        args = GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            per_device_train_batch_size=G * PROMPTS,
            num_generations=G,
            max_completion_length=3,
            **settings,
        )
        trainer = GRPOTrainer(
            model,
            [reward(c) for c in columns],
            args,
            Dataset.from_dict(dict(prompt=['a', 'b', 'c'])),
            processing_class=tokenizer,
        )
        rows = [dict(prompt=p) for p in 'abc' for _ in range(G)]
        return trainer._generate_and_score_completions(rows)['advantages'].double()

    return compute


def ours(estimator, rewards):
    return estimator(rewards, [i // G for i in range(G * PROMPTS)], [0] * G * PROMPTS).advantages


def test_grpo(trl_advantages):
    a = ours(GRPO(ddof=1, eps=1e-4, floor=False), torch.tensor(LEVELS, dtype=torch.float64).flatten())
    assert torch.allclose(trl_advantages([LEVELS], scale_rewards='group'), a, atol=1e-6)


def test_dr_grpo(trl_advantages):
    a = ours(DrGRPO(), torch.tensor(LEVELS, dtype=torch.float64).flatten())
    assert torch.allclose(trl_advantages([LEVELS], scale_rewards='none'), a, atol=1e-6)


@pytest.mark.parametrize('weights', [None, (1.0, 0.25)])
def test_gdpo(trl_advantages, weights):
    both = torch.tensor([LEVELS, FORMAT], dtype=torch.float64).flatten(1).T
    settings = dict(reward_weights=list(weights)) if weights else {}
    theirs = trl_advantages([LEVELS, FORMAT], multi_objective_aggregation='normalize_then_sum', **settings)
    assert torch.allclose(theirs, ours(GDPO(weights), both), atol=1e-5)
