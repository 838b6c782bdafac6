"What the trainers borrow from TRL without a promise: where one fails, TRL has drifted, and it says what would break."

import inspect
import re

import pytest
import torch
import trl
from trl import GRPOTrainer
from trl.trainer import utils

SOURCE = inspect.getsource(GRPOTrainer)

SIGNATURES = {
    '_calculate_rewards': (
        ['inputs', 'prompts', 'completions', 'completion_ids_list'],
        'rewards of skipped rows would not be marked, and the estimator would not see any',
    ),
    '_generate_and_score_completions': (['inputs'], "advantages would stay TRL's own"),
    '_tokenize_prompts': (['prompts'], 'sound and video would not reach sampling'),
    '_generate_single_turn': (
        ['prompt_ids', 'images', 'multimodal_fields', 'num_generations'],
        'sound and video would not reach sampling',
    ),
    '_compute_loss': (['model', 'inputs'], 'media of another batch would reach the loss'),
    '_get_per_token_logps_and_entropies': (
        ['model', 'input_ids', 'attention_mask', 'logits_to_keep', 'batch_size'],
        'media would not reach the loss',
    ),
    '_get_train_sampler': (['dataset'], 'a resumed run would see other prompts'),
    '_run_epoch': (['model', 'epoch'], 'a run resumed from its last checkpoint would go one step too far'),
    '_save_checkpoint': (['model', 'trial'], "the balancer's memory would not be saved"),
    '_load_optimizer_and_scheduler': (['checkpoint'], "the balancer's memory would not be restored"),
    'get_train_dataloader': ([], 'a stream would not be dealt out in generations of one signature'),
    '_set_signature_columns_if_needed': ([], 'tasks would be taken away as unused columns'),
    '_get_output_dir': (['trial'], "the balancer's memory would be saved elsewhere"),
}

SNIPPETS = {
    'rewards are gathered from all ranks before they are returned': (
        r'rewards_per_func = gather\(rewards_per_func\)\s+return rewards_per_func',
        "the estimator would see one rank's rewards",
    ),
    'what _calculate_rewards returns is the tensor the advantages are made of': (
        r'rewards_per_func = self\._calculate_rewards\(inputs, prompts, completions, completion_ids_list\)',
        "rewards masked in place would still count in TRL's log",
    ),
    'rows of a rank are a contiguous slice, in rank order': (
        r'self\.accelerator\.process_index \* len\(prompts\),\s+'
        r'\(self\.accelerator\.process_index \+ 1\) \* len\(prompts\)',
        "a rank would get another rank's advantages",
    ),
    'the loss reads advantages from the batch': (
        r'advantages = inputs\["advantages"\]',
        'replaced advantages would be ignored',
    ),
    'metrics are lists by mode, averaged when logged': (
        r'for key, val in self\._metrics\[mode\]\.items\(\)',
        'metrics per task would not be logged',
    ),
    'advantages of a generation are appended to the log': (
        r'self\._logs\["advantages"\]\.extend\(all_process_advantages\.tolist\(\)\)',
        'completions would be logged with other advantages',
    ),
    'a batch is shuffled, then split, as a dict of sequences': (
        r'shuffle_sequence_dict\(generation_batch\)\s+generation_batches = split_tensor_dict',
        'media would be dealt to the wrong rollouts',
    ),
    'a generation is made anew where a count of steps since the start says so': (
        r'self\._step % generate_every == 0 or self\._buffered_inputs is None',
        'a run could not be resumed exactly',
    ),
    'a count of passes says where in a generation a run is, and the rollouts are buffered': (
        r'inputs = self\._buffered_inputs\[self\._step % self\.args\.steps_per_generation\]',
        'a checkpoint in the middle of a generation could not be resumed exactly',
    ),
    'the reference of a KL term is made in one place, by a name': (
        r'self\.ref_model = create_model_from_path\(get_config_model_id\(self\.model\.config\)',
        'a policy without a name could not have a KL term',
    ),
    'the settings that stand for an estimator are read from the trainer': (
        r'if self\.multi_objective_aggregation == "sum_then_normalize":[\s\S]*?if self\.scale_rewards in',
        "`dr_grpo` and `gdpo` would not be TRL's",
    ),
    'environments are in the order of the rows': (
        r'self\.environments\.append\(pool\[index\]\)',
        'a row would get the task of another environment',
    ),
    'prompts are kept for the table of completions': (
        r'self\._logs\["prompt"\]\.extend\(gather_object\(prompts\)\)',
        'sounds and videos would be written into the table',
    ),
    'media of sampling come from the fields that _tokenize_prompts returns': (
        r'prompt_ids, images, multimodal_fields = self\._tokenize_prompts\(prompts\)',
        'sound and video would not reach sampling',
    ),
    'old log-probabilities and loss go through one method, which calls the model by keywords': (
        r'outputs = model\(\*\*model_inputs, labels=labels, fused_lm_head=True\)',
        'media would not reach the loss',
    ),
    'a row without any reward is left out': (
        r'unscorable_mask = torch\.isnan\(rewards_per_func\)\.all\(dim=1\)',
        "a skipped clip would count as reward 0 in TRL's log",
    ),
}


@pytest.mark.parametrize('name', SIGNATURES)
def test_signature(name):
    parameters, breaks = SIGNATURES[name]
    found = list(inspect.signature(getattr(GRPOTrainer, name, lambda: None)).parameters)[1:]
    assert found[: len(parameters)] == parameters, f'DRIFT: GRPOTrainer.{name} has {found}, not {parameters}: {breaks}'


@pytest.mark.parametrize('name', SNIPPETS)
def test_body(name):
    pattern, breaks = SNIPPETS[name]
    assert re.search(pattern, SOURCE), f'DRIFT: in TRL {trl.__version__} it no longer holds that {name}: {breaks}'


def test_lists_travel_with_their_rows():
    "Media are a list in a dict of tensors."
    batch = dict(x=torch.arange(6), media=list('abcdef'))
    for part in utils.split_tensor_dict(utils.shuffle_sequence_dict(batch), 2):
        expected = ['abcdef'[i] for i in part['x'].tolist()]
        assert part['media'] == expected, (
            'DRIFT: lists are no longer shuffled and split with tensors: media would be dealt to the wrong rollouts'
        )


DEFAULTS = dict(scale_rewards='group', multi_objective_aggregation='sum_then_normalize', top_k=0, beta=0.0)


@pytest.mark.parametrize('name', DEFAULTS)
def test_defaults(name):
    value = DEFAULTS[name]
    assert trl.GRPOConfig.__dataclass_fields__[name].default == value, (
        f"DRIFT: TRL's default of {name} is no longer {value!r}: "
        'look at `check_settings` and at what the recipes leave out'
    )
