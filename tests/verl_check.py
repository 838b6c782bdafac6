"""What is checked against verl itself, in the environment that `make verl-env` makes.

tests/test_verl.py runs this file there. It prints what failed, by the name of the check, as JSON."""

import inspect
import json
import re
import subprocess
import sys
import tempfile
import traceback
import uuid
import warnings
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import verl
import verl.utils.distributed
from hydra import compose, initialize_config_module
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config
from verl import DataProto
from verl.trainer.ppo import core_algos, ray_trainer
from verl.trainer.ppo.v1 import get_trainer_cls

from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.rl import verl_plugin
from omnisapiens_nb.rl.advantages import ESTIMATORS, GRPO
from omnisapiens_nb.rl.harpo import Harpo, HarpoConfig
from omnisapiens_nb.rl.rewards import overlong_penalty

ROOT = Path(__file__).parents[1]
FOLDER = Path(tempfile.mkdtemp())
TASKS = ['emotion_cls', 'intent_qa', 'sarcasm_cls', 'a::b_c']


def rollouts(seed, prompts=8, n=5, tokens=6):
    """Rewards, mask, ids of prompts and tasks of a step, in mixed order.

    A third of the groups are dead, and one task is away in every second step."""
    g = torch.Generator().manual_seed(seed)
    names = TASKS[: 3 + seed % 2]
    tasks = [names[q % len(names)] for q in range(prompts)]
    reward = torch.rand(prompts, n, generator=g)
    reward[::3] = 0.5
    order = torch.randperm(prompts * n, generator=g)
    lengths = torch.randint(1, tokens + 1, (prompts * n, 1), generator=g)
    mask = (torch.arange(tokens) < lengths).float()
    rewards = torch.zeros(prompts * n, tokens)
    rewards[torch.arange(prompts * n), lengths[:, 0] - 1] = reward.flatten()[order]
    prompt = (order // n).tolist()
    uids = [verl_plugin.verl_uid(task, str(uuid.UUID(int=q))) for q, task in enumerate(tasks)]
    return rewards, mask, np.array([uids[q] for q in prompt], dtype=object), [tasks[q] for q in prompt]


def by_verl(name, rewards, mask, uids, **kwargs):
    "Advantages by the function through which verl's trainers get them."
    data = DataProto.from_dict(
        tensors=dict(token_level_rewards=rewards.clone(), response_mask=mask), non_tensors=dict(uid=uids)
    )
    data = ray_trainer.compute_advantage(data, adv_estimator=name, config=OmegaConf.create({}), **kwargs)
    return data.batch['advantages'], data.batch['returns']


def raises(kind, message, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as e:
        assert re.search(message, str(e), re.S), f'{message!r} is not in {e}'
    else:
        raise AssertionError(f'no {kind.__name__} with {message!r}')


def check_loaded_by_verl():
    "By the entry point, in a process that imports verl alone; by the variable with entry points off; not otherwise."
    entries = [e.value for e in entry_points(group='verl.plugins') if e.name == 'omnisapiens_nb']
    assert entries == ['omnisapiens_nb.rl.verl_plugin']
    code = (
        'import verl, verl.trainer.ppo.v1.trainer_base as b, verl.trainer.ppo.core_algos as a; '
        'print("harpo" in a.ADV_ESTIMATOR_REGISTRY, "harpo_sync" in b.TRAINER_REGISTRY)'
    )
    for policy, module, expected in (
        ('auto', '', 'True True'),
        ('none', 'omnisapiens_nb.rl.verl_plugin', 'True True'),
        ('none', '', 'False False'),
    ):
        switches = dict(VERL_USE_EXTERNAL_PLUGINS=policy, VERL_USE_EXTERNAL_MODULES=module)
        out = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code],
            env=dict(PATH='/usr/bin:/bin', HOME=str(FOLDER)) | switches,
            cwd=FOLDER,
            capture_output=True,
            text=True,
        )
        assert out.stdout.strip() == expected, (policy, module, out.stdout, out.stderr[-500:])


def check_names_are_ours():
    "Every name is registered to our object, and none of them is one of verl's."
    for name in verl_plugin.VERL_NAMES:
        assert core_algos.get_adv_estimator_fn(name) is verl_plugin.ADVANTAGES[name]
    assert not {e.value for e in core_algos.AdvantageEstimator} & set(verl_plugin.VERL_NAMES)


def check_advantages():
    "Through verl, over twelve steps with a memory, as by the estimators themselves on prompts and tasks given apart."
    forms = dict(harpo=HarpoConfig(), harpo_paper=HarpoConfig.paper(), harpo_released=HarpoConfig.released())
    for name in verl_plugin.VERL_NAMES:
        verl_plugin.ADVANTAGES[name].forget()
        reference = Harpo(forms[name]) if name in forms else ESTIMATORS[name]()
        for seed in range(12):
            rewards, mask, uids, tasks = rollouts(seed)
            a, returns = by_verl(name, rewards, mask, uids)
            prompts = [u.rpartition('::')[2] for u in uids]
            expected = reference(rewards.sum(1), prompts, tasks).advantages[:, None] * mask
            assert a.shape == rewards.shape and a.abs().sum() > 0 and a.equal(returns)
            assert (a - expected).abs().max() < 1e-6, (name, seed)
        if name in forms or name == 'ema_grpo':  # The memory mattered
            rewards, mask, uids, tasks = rollouts(12)
            remembering, _ = by_verl(name, rewards, mask, uids)
            fresh = ESTIMATORS[name]()(rewards.sum(1), uids, tasks).advantages
            assert not torch.allclose(remembering[:, 0], fresh * mask[:, 0], atol=1e-4), name


def check_grpo_convention():
    "verl's own GRPO is ours with the sample deviation and 1e-6 added."
    ours = GRPO(ddof=1, eps=1e-6, floor=False)
    for seed in range(4):
        rewards, mask, uids, tasks = rollouts(seed)
        expected = ours(rewards.sum(1), uids, tasks).advantages[:, None] * mask
        for name in ('grpo', 'grpo_vectorized'):
            assert (by_verl(name, rewards, mask, uids)[0] - expected).abs().max() < 1e-5, name


def check_padding_and_wrong_ids():
    "verl's padding rows get 0 and change nothing; an id without a task is an error."
    rewards, mask, uids, _ = rollouts(0)
    verl_plugin.ADVANTAGES['harpo'].forget()
    plain, _ = by_verl('harpo', rewards, mask, uids)
    verl_plugin.ADVANTAGES['harpo'].forget()
    pad = np.array([f'pad{uuid.uuid4().hex}'] * 3, dtype=object)
    nothing = torch.zeros(3, 6)
    filled = torch.cat([rewards, nothing]), torch.cat([mask, nothing]), np.concatenate([uids, pad])
    padded, _ = by_verl('harpo', *filled)
    assert padded[:-3].equal(plain) and not padded[-3:].any()
    untold = np.array([str(uuid.uuid4())] * len(uids), dtype=object)
    raises(ValueError, 'no task in front.*harpo_sync', by_verl, 'harpo', rewards, mask, untold)


@cache
def tiny():
    "A tokenizer with a chat template and a configuration of a model, in a folder; no weights are needed."
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelling = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    spelling.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spelling.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token='<|im_end|>', pad_token='<|pad|>')
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>\n{% endfor %}"
        '{% if add_generation_prompt %}assistant: {% endif %}'
    )
    tokenizer.save_pretrained(FOLDER / 'model')
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        architectures=['Qwen2ForCausalLM'],
    )
    config.save_pretrained(FOLDER / 'model')
    return FOLDER / 'model'


def training_file(path, tasks, **columns):
    "Twenty-four rows of these tasks, with some columns set otherwise; one that is `...` is left out."
    rows = []
    for i in range(24):
        row = dict(problem=f'Question {i}?', dataset='mmsd', task='sarcasm_cls', answer='yes', id=f'mmsd/{i}')
        written = verl_plugin.verl_row(row, i) | dict(task=tasks[i % len(tasks)]) | columns
        rows.append({name: value for name, value in written.items() if value is not ...})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def settings(*overrides):
    with initialize_config_module('verl.trainer.config', version_base=None):
        return compose('ppo_trainer', overrides=list(overrides))


def small(train, folder, *overrides):
    "verl's configuration for batches of 6 prompts and 3 rollouts."
    return settings(
        'trainer.v1.trainer_mode=harpo_sync',
        'algorithm.adv_estimator=harpo',
        f'data.train_files={train}',
        f'data.val_files={train}',
        'data.train_batch_size=6',
        'data.dataloader_num_workers=0',
        f'actor_rollout_ref.model.path={tiny()}',
        'actor_rollout_ref.rollout.name=vllm',
        'actor_rollout_ref.rollout.n=3',
        'actor_rollout_ref.actor.ppo_mini_batch_size=3',
        'algorithm.rollout_correction.bypass_mode=True',
        'reward.custom_reward_function.path=pkg://omnisapiens_nb.rl.verl_plugin',
        f'trainer.default_local_dir={folder}',
        'transfer_queue.backend.SimpleStorage.num_data_storage_units=1',
        *overrides,
    )


class Policy:
    "In place of the workers on GPUs: keeps the advantages it is to train on, and its number in checkpoints."

    def __init__(self):
        self._dispatch_info = dict(actor=[0])
        self.steps = []

    def update_actor(self, batch):
        import transfer_queue as tq

        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=['uid', 'advantages', 'rm_scores']
        )

        step = dict(
            uids=list(data['uid']),
            advantages=[row[0].item() for row in data['advantages'].unbind()],
            rewards=[row.sum().item() for row in data['rm_scores'].unbind()],
            padding=[bool(tag.get('is_padding')) for tag in batch.tags],
        )
        self.steps.append(step)
        return dict(metrics=dict(mfu=0.0))

    def save_checkpoint(self, path, *args, **kwargs):
        Path(path).mkdir(parents=True)

    def load_checkpoint(self, local_path, **kwargs):
        assert Path(local_path).is_dir()


class Rollouts:
    "In place of the agent loop and vLLM: rollouts of random length and reward where verl's puts them, a third dead."

    def __init__(self, n, lose=()):
        self.n = n
        self.lose = set(lose)
        self.prompts = 0

    def generate_sequences(self, batch):
        import transfer_queue as tq
        from verl.utils.tensordict_utils import list_of_dict_to_tensordict

        for uid in batch['uid']:
            g = torch.Generator().manual_seed(self.prompts)
            lost = self.prompts in self.lose
            rolled = [self.rollout(uid, i, g) for i in range(self.n - lost)]
            tq.kv_batch_put(
                keys=[f'{uid}_{i}_0' for i in range(len(rolled))],
                partition_id='train',
                fields=list_of_dict_to_tensordict([fields for fields, _ in rolled]),
                tags=[tag for _, tag in rolled],
            )
            tq.kv_put(key=uid, partition_id='train', tag=dict(status='failure' if lost else 'finished'))
            self.prompts += 1

    def rollout(self, uid, number, g):
        "Fields and tag of one rollout of a prompt of four tokens."
        length = int(torch.randint(1, 7, (1,), generator=g))
        ones = torch.ones(length, dtype=torch.long)
        scores = torch.zeros(length)
        scores[-1] = 0.5 if self.prompts % 3 == 0 else torch.rand(1, generator=g).item()
        fields = dict(
            prompts=torch.ones(4, dtype=torch.long),
            responses=ones,
            response_mask=ones,
            loss_mask=ones,
            input_ids=torch.ones(4 + length, dtype=torch.long),
            position_ids=torch.arange(4 + length),
            rm_scores=scores,
            rollout_log_probs=torch.zeros(length),
            uid=uid,
            num_turns=2,
            session_id=number,
        )
        lengths = dict(prompt_len=4, response_len=length, seq_len=4 + length)
        steps = dict(global_steps=1, min_global_steps=1, max_global_steps=1)
        return fields, dict(status='success') | lengths | steps


@cache
def queue():
    "Ray on this machine, and verl's queue of rollouts in it."
    import ray
    import transfer_queue as tq

    ray.init('local', num_cpus=8, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level='ERROR')
    config = settings(
        'transfer_queue.backend.SimpleStorage.num_data_storage_units=1',
        'transfer_queue.enable=True',
        'actor_rollout_ref.rollout.name=vllm',
    )
    tq.init(config.transfer_queue)


def trainer(config, **rollouts):
    "Our trainer as verl makes it, with what needs GPUs replaced."
    queue()
    t = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    t._init_tokenizer()
    t._init_dataloader()
    t.actor_rollout_wg = Policy()
    t.agent_loop_manager = Rollouts(3, **rollouts)
    t.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
    t.checkpoint_manager = SimpleNamespace(sleep_replicas=lambda: None)
    t.curr_step_profile = False
    t._load_checkpoint()
    return t


def steps(t, count):
    "As `fit` does it."
    import transfer_queue as tq

    for _ in range(count):
        t.global_steps += 1
        batch = t.step({}, {})
        tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
    return t.actor_rollout_wg.steps[-count:]


def check_trainer_steps():
    "Four steps of verl's own loop, from the training file to the policy; in the second a rollout is lost, and padded."
    t = trainer(small(training_file(FOLDER / 'steps.parquet', TASKS), FOLDER / 'steps'), lose=[7])
    reference = Harpo()
    padded = 0
    for step in steps(t, 4):
        rows = [i for i, is_padding in enumerate(step['padding']) if not is_padding]
        uids = [step['uids'][i] for i in rows]
        tasks = verl_plugin.uid_tasks(uids)
        assert len(set(uids)) == 6 and set(tasks) <= set(TASKS) and len(set(tasks)) > 1
        expected = reference([step['rewards'][i] for i in rows], uids, tasks).advantages
        found = torch.tensor([step['advantages'][i] for i in rows], dtype=torch.float64)
        assert (found - expected).abs().max() < 1e-5
        assert not any(step['advantages'][i] for i, is_padding in enumerate(step['padding']) if is_padding)
        padded += sum(step['padding'])
    assert padded == 1


def check_plain_task_is_lost():
    "Why the task is escaped: with its underscore as it is, verl finds no rollout of any prompt."
    escaped = verl_plugin.verl_uid
    t = trainer(small(training_file(FOLDER / 'plain.parquet', TASKS[:3]), FOLDER / 'plain'))
    try:
        verl_plugin.verl_uid = lambda task, uid: f'{task}::{uid}'
        raises(RuntimeError, 'no materializable trajectories', steps, t, 1)
    finally:
        verl_plugin.verl_uid = escaped
        import transfer_queue as tq

        tq.kv_clear(keys=list(tq.kv_list('train')['train']), partition_id='train')


def check_checkpoint():
    "A run taken up again trains on the advantages of the uninterrupted one."
    train = training_file(FOLDER / 'ck.parquet', TASKS)
    where = FOLDER / 'ck'
    t = trainer(small(train, where))
    steps(t, 2)
    t._save_checkpoint()
    assert json.loads((where / 'global_step_2' / 'harpo.json').read_text())['tasks'] == sorted(TASKS)
    straight = steps(t, 2)
    again = trainer(small(train, where))
    assert again.global_steps == 2
    again.agent_loop_manager.prompts = 12
    for a, b in zip(straight, steps(again, 2), strict=True):
        assert a['rewards'] == b['rewards'] and np.allclose(a['advantages'], b['advantages'], atol=1e-6)
    fresh = trainer(small(train, where, 'trainer.resume_mode=disable'))
    assert fresh.global_steps == 0 and not verl_plugin.ADVANTAGES['harpo'].estimator.memory
    named = ('trainer.resume_mode=resume_path', f'trainer.resume_from_path={where}/global_step_2')
    path = trainer(small(train, where, *named))
    assert path.global_steps == 2 and verl_plugin.ADVANTAGES['harpo'].estimator.memory
    refused_checkpoints(train, where)


def refused_checkpoints(train, where):
    "Another estimator, other tasks, and a checkpoint without memory."
    raises(SourceError, 'another configuration', trainer, small(train, where, 'algorithm.adv_estimator=harpo_paper'))
    raises(SourceError, 'they differ in', trainer, small(training_file(FOLDER / 'other.parquet', TASKS[:2]), where))
    for name in ('grpo', 'harpoo'):
        unknown = small(train, where, f'algorithm.adv_estimator={name}')
        raises(ValueError, f'adv_estimator={name} is not.*trainer_mode=sync', trainer, unknown)
    (where / 'global_step_2' / 'harpo.json').unlink()
    raises(SourceError, 'harpo.json: not there', trainer, small(train, where))


def check_rows_without_task():
    "data_source stands in for the task; with neither, the error says so; a missing task too."
    t = trainer(small(training_file(FOLDER / 'source.parquet', TASKS, task=...), FOLDER / 'source'))
    assert {verl_plugin.uid_tasks([u])[0] for u in t._fetch_one_gen_batch()['uid']} == {'mmsd'}
    for name, message, columns in (
        ('none', 'neither a column task nor a column data_source', dict(task=..., data_source=...)),
        ('null', 'row 1 .*its task is None', dict(task=None)),
        ('number', 'row 1 .*its task is 7', dict(task=7)),
    ):
        raises(ValueError, message, trainer, small(training_file(FOLDER / f'{name}.parquet', TASKS, **columns), FOLDER))


def check_reward():
    "verl's reward manager calls our reward with what is in the training file."
    import asyncio

    from transformers import AutoTokenizer
    from verl.trainer.ppo.reward import load_reward_manager

    tokenizer = AutoTokenizer.from_pretrained(tiny())
    ids = tokenizer('<think>He means it.</think>\\boxed{Yes}', return_tensors='pt').input_ids
    row = verl_plugin.verl_row(dict(problem='?', dataset='mmsd', task='sarcasm_cls', answer='yes', id='mmsd/1'), 0)
    data = DataProto.from_dict(
        tensors=dict(responses=ids, attention_mask=torch.ones_like(ids)),
        non_tensors={k: np.array([v], dtype=object) for k, v in row.items()},
    )

    async def reward(config):
        return await load_reward_manager(config, tokenizer).run_single(data)

    plain = asyncio.run(reward(small(FOLDER / 'steps.parquet', FOLDER)))
    assert plain['reward_score'] == 1 and plain['reward_extra_info']['exact'] == 1, plain
    length = len(ids[0])
    limit = length + 2
    buffer = 8
    lengths = (f'max_resp_len={limit}', f'overlong_buffer_cfg.len={buffer}')
    penalised = asyncio.run(reward(recipe(*(f'reward.reward_kwargs.{setting}' for setting in lengths))))
    expected = 1 + 0.75 * overlong_penalty([length], limit, buffer)[0]
    assert abs(penalised['reward_score'] - expected) < 1e-6, penalised
    own = recipe()
    # Beyond its limit verl's penalty grows on
    assert own.reward.reward_kwargs.max_resp_len == own.data.max_response_length


@cache
def recipe_overrides():
    "What the recipe hands to verl: the shell runs it, with a stand-in for Python that writes down its arguments."
    stand_in = FOLDER / 'bin' / 'python'
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    out = subprocess.run(
        ['bash', ROOT / 'recipes' / 'verl' / 'train.sh'],
        env=dict(PATH=f'{stand_in.parent}:/usr/bin:/bin'),
        capture_output=True,
        text=True,
        check=True,
    )
    module, *overrides = out.stdout.splitlines()[1:]
    assert module == 'verl.trainer.main_ppo'
    return overrides


def recipe(*overrides):
    return settings(*recipe_overrides(), *overrides)


def check_recipe():
    "Every key is one of verl's, but for those it lacks, verl's own validation passes, the numbers are the paper's."
    from verl.utils.config import validate_config

    lacking = ['max_resp_len', *(f'overlong_buffer_cfg.{key}' for key in ('enable', 'len', 'penalty_factor', 'log'))]
    added = {o.partition('=')[0] for o in recipe_overrides() if o.startswith('+')}
    assert added == {f'+reward.reward_kwargs.{key}' for key in lacking}
    c = recipe(f'actor_rollout_ref.model.path={tiny()}')
    reference = ray_trainer.need_reference_policy(c)
    critic = ray_trainer.need_critic(c)
    validate_config(c, use_reference_policy=reference, use_critic=critic)
    assert not reference and not critic
    actor = c.actor_rollout_ref.actor
    assert (c.data.train_batch_size, c.actor_rollout_ref.rollout.n) == (32, 5)
    assert (actor.ppo_mini_batch_size, actor.optim.lr, actor.entropy_coeff) == (8, 1e-6, 0)
    assert (c.data.max_prompt_length, c.data.max_response_length) == (3072, 2048)
    assert (actor.use_kl_loss, c.algorithm.use_kl_in_reward) == (False, False)
    assert (c.trainer.v1.trainer_mode, c.trainer.nnodes) == ('harpo_sync', 2)
    misspelt = 'trainer.v1.trainer_modus'
    raises(ConfigCompositionException, f"Could not override '{misspelt}'", recipe, f'{misspelt}=sync')


def check_no_training_on_a_cpu():
    "Where verl's own start ends without GPUs; if it goes further one day, more can be tested here."
    queue()
    t = get_trainer_cls('harpo_sync')(small(training_file(FOLDER / 'cpu.parquet', TASKS), FOLDER / 'cpu'))
    raises(ValueError, 'Total available GPUs 0 is less than total desired GPUs', t.init)
    source = inspect.getsource(verl.utils.distributed.initialize_global_process_group_ray)
    assert 'f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"' in source  # What tests/engines goes around


def check_no_omni():
    "What the chapter says of Qwen2.5-Omni: no table has the whole model, and verl makes no processor for it."
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, Qwen2_5OmniConfig
    from verl.utils.tokenizer import hf_processor

    for table in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
        assert Qwen2_5OmniConfig not in table._model_mapping.keys()
    families = re.findall(r'case "(\w+Processor)"', inspect.getsource(hf_processor))
    assert len(families) == 7 and 'Qwen2_5_VLProcessor' in families and not any('Omni' in f for f in families)


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    chosen = sys.argv[1:] or [name for name in globals() if name.startswith('check_')]
    failed = {}
    for name in chosen:
        try:
            globals()[name]()
        except Exception:
            failed[name] = traceback.format_exc()[-3000:]
    print(json.dumps(dict(verl=verl.__version__, ran=chosen, failed=failed)))
