"What a user of TRL's trainer has, and keeps with ours: numbers to the bit, order, streams, environments, checkpoints."

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import trl
import trl_tiny as tiny
from conftest import ROOT
from datasets import ClassLabel, Dataset, DatasetDict
from peft import LoraConfig
from transformers import TrainerCallback
from trl_tiny import early, length, same, settings, train

from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.rl import trl_trainer
from omnisapiens_nb.rl.advantages import GDPO, GRPO
from omnisapiens_nb.rl.harpo import Harpo
from omnisapiens_nb.rl.trl_trainer import HarpoTrainer

LORA = LoraConfig(r=4, target_modules=['q_proj', 'v_proj'], lora_dropout=0.1)
DATA = tiny.rows()


@pytest.fixture(scope='module')
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope='module')
def named(tmp_path_factory):
    "The policy with a name, so that TRL's own trainer finds a reference under it."
    folder = tmp_path_factory.mktemp('policy')
    tiny.policy().save_pretrained(folder)
    return lambda: type(tiny.policy()).from_pretrained(folder)


@pytest.fixture
def make(tokenizer, tmp_path):
    "A trainer: what `GRPOConfig` knows goes into the settings, all else to the trainer."

    def made(kind=HarpoTrainer, data=DATA, rewards=early, folder='run', model=None, **kwargs):
        known = trl.GRPOConfig.__dataclass_fields__
        args = settings(tmp_path / folder, **{name: value for name, value in kwargs.items() if name in known})
        rest = {name: value for name, value in kwargs.items() if name not in known}
        model = tiny.policy() if model is None else model
        return kind(model, rewards, args, data, processing_class=tokenizer, **rest)

    return made


def losses(trainer):
    "What a run logged, without times and without what only ours logs."
    kept = ('loss', 'reward', 'grad_norm', 'kl', 'entropy', 'eval_loss', 'eval_reward', 'frac_reward_zero_std')
    return [{name: entry[name] for name in kept if name in entry} for entry in trainer.state.log_history]


# Numbers

ALIKE = {
    **{loss: dict(loss_type=loss) for loss in ('grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'sapo', 'luspo', 'vespo')},
    'beta': dict(beta=0.1),
    'iterations': dict(num_iterations=2),
    'steps': dict(steps_per_generation=2, num_iterations=2, beta=0.05),
    'accumulated': dict(gradient_accumulation_steps=2, steps_per_generation=4, per_device_train_batch_size=4),
    'uneven': dict(
        gradient_accumulation_steps=2,
        steps_per_generation=3,
        per_device_train_batch_size=4,
        max_steps=4,
        data=tiny.rows('aabbaabba'),
    ),
    'lora': dict(peft_config=LORA, beta=0.1),
    'evaluated': dict(eval_dataset=DATA, eval_strategy='steps', eval_steps=1, per_device_eval_batch_size=8),
}


@pytest.mark.parametrize('estimator', ['grpo', 'dr_grpo'])
@pytest.mark.parametrize('name', ALIKE)
def test_grpo_is_that_of_trl_to_the_bit(make, named, name, estimator):
    asked = dict(max_steps=2, shuffle_dataset=False) | ALIKE[name]
    scaled = dict(scale_rewards='none') if estimator == 'dr_grpo' else {}
    theirs = train(make(trl.GRPOTrainer, folder='theirs', model=named(), **asked | scaled))
    ours = train(make(folder='ours', model=named(), estimator=estimator, **asked))
    assert losses(ours) == losses(theirs)
    assert same(ours, theirs)
    assert any(entry.get('grad_norm', 0) > 0 for entry in losses(ours))


@pytest.mark.parametrize('weights', [None, [1.0, 0.25]])
def test_gdpo_is_that_of_trl_to_the_bit(make, weights):
    asked = dict(max_steps=3, shuffle_dataset=False, rewards=[early, length], reward_weights=weights)
    theirs = train(make(trl.GRPOTrainer, folder='theirs', multi_objective_aggregation='normalize_then_sum', **asked))
    ours = train(make(folder='ours', estimator='gdpo', **asked))
    assert losses(ours) == losses(theirs) and same(ours, theirs)


def advantages(trainer, data=DATA):
    asked = [data[i // 4] for i in range(8)]
    torch.manual_seed(0)
    return trainer._generate_and_score_completions(asked)['advantages']


@pytest.mark.parametrize('estimator', [GDPO(), GDPO((2.0, 0.5))])
def test_reward_weights_are_applied_after_standardising(make, estimator):
    asked = dict(rewards=[early, length], reward_weights=[2.0, 0.5])
    ours = make(estimator=estimator, **asked)
    theirs = make(trl.GRPOTrainer, multi_objective_aggregation='normalize_then_sum', **asked)
    expected = advantages(theirs)
    assert torch.allclose(advantages(ours), expected, atol=1e-5)
    assert not torch.allclose(advantages(make(estimator=GDPO(), rewards=[early, length])), expected, atol=1e-2)


def test_reward_weights_that_contradict_an_estimator(make):
    with pytest.raises(ValueError, match='reward_weights: GDPO weighs rewards itself'):
        make(estimator=GDPO((1.0, 1.0)), rewards=[early, length], reward_weights=[1.0, 2.0])


def test_the_release_s_grpo_is_an_object(make):
    own, given = advantages(make(estimator='grpo')), advantages(make(estimator=GRPO()))
    live = own.abs() > 1e-3
    assert live.any()
    assert torch.allclose(given[live] / own[live], torch.tensor(math.sqrt(4 / 3)), rtol=1e-2)


def test_said_in_our_words_and_in_trl_s(make):
    make(estimator='dr_grpo', scale_rewards='none')
    make(estimator='gdpo', multi_objective_aggregation='normalize_then_sum')
    for estimator in ('grpo', 'harpo', GRPO()):
        with pytest.raises(ValueError, match='scale_rewards: the estimator decides'):
            make(estimator=estimator, scale_rewards='none')


# The order of rows


def asked_prompts(make, **kwargs):
    "First prompts of each generation, as the reward function saw them."
    seen = []

    def noting(prompts, completions, **columns):
        seen.append(''.join(prompts[::4]))
        return length(completions)

    train(make(rewards=noting, **kwargs))
    return seen


def test_rows_in_their_order(make):
    theirs = asked_prompts(make, kind=trl.GRPOTrainer, shuffle_dataset=False, max_steps=5)
    assert asked_prompts(make, shuffle_dataset=False, max_steps=5) == theirs == ['ab', 'cd', 'ef', 'gh', 'ab']


def test_rows_in_their_order_by_signature(make):
    data = tiny.rows(modality_signature=list('xyxyyxyx'))
    assert asked_prompts(make, data=data, shuffle_dataset=False, max_steps=4) == ['ac', 'bd', 'eg', 'fh']


def test_a_last_generation_that_is_filled_up_is_said(make, caplog, monkeypatch):
    said = []
    monkeypatch.setattr(trl_trainer._logger, 'warning_once', said.append)
    data = tiny.rows('aaabb')
    assert asked_prompts(make, data=data, shuffle_dataset=False, num_train_epochs=1) == ['ab', 'cd', 'ea']
    assert '1 of 5 prompts are asked twice' in said[0]
    dropping = dict(shuffle_dataset=False, num_train_epochs=1, dataloader_drop_last=True)
    assert asked_prompts(make, data=data, **dropping) == ['ab', 'cd']
    assert '1 of 5 prompts are left out' in said[-1]


def test_a_dataset_that_is_replaced(make):
    trainer = make(max_steps=2)
    trainer.train_dataset = Dataset.from_dict(dict(prompt=['k', 'l', 'm'], task=['z', 'z', 'y']))
    train(trainer)
    assert trainer.tasks == ['y', 'z']
    assert set(trainer.batches.signatures) == {''} and len(trainer.batches.signatures) == 3


def test_unused_columns_are_removed_as_trl_does(make):
    data = tiny.rows(extra=list('uvwxuvwx'), modality_signature=list('xxxxyyyy'))
    seen = []

    def noting(completions, **columns):
        seen.append(set(columns))
        return length(completions)

    train(make(data=data, rewards=noting, remove_unused_columns=True, max_steps=1))
    assert 'extra' not in seen[0] and {'task', 'modality_signature'} <= seen[0]
    with pytest.raises(ValueError, match='remove_unused_columns: .* `task_of` may read any'):
        make(data=data, remove_unused_columns=True, task_of=lambda row: row['extra'])


# Streams


def streamed(prompts, **columns):
    return Dataset.from_dict(dict(prompt=list(prompts)) | columns).to_iterable_dataset()


@pytest.mark.parametrize('shuffled', [False, True])
def test_a_stream_in_trl_s_order(make, shuffled):
    stream = streamed('abcdefgh', task=list('aabbaabb'))
    asked = dict(data=stream, max_steps=6, shuffle_dataset=shuffled, steps_per_generation=2, num_iterations=2)
    theirs = asked_prompts(make, kind=trl.GRPOTrainer, **asked)
    assert asked_prompts(make, **asked) == theirs


def test_a_stream_by_signature(make):
    stream = streamed('abcdefg', task=list('aabbaab'), modality_signature=list('xyxyyxy'))
    found = asked_prompts(make, data=stream, max_steps=5, shuffle_dataset=False)
    assert found[:4] == ['ac', 'bd', 'eg', 'fa']


def test_a_stream_is_not_resumed_exactly(make):
    stream = streamed('abcdefgh', task=list('aabbaabb'))
    asked = dict(data=stream, max_steps=4, save_strategy='steps', save_steps=2)
    begun = train(make(**asked))
    assert begun.tasks == ['a', 'b']
    checkpoint = f'{begun.args.output_dir}/checkpoint-2'
    with pytest.raises(ValueError, match='a stream does not say whether its rows come again'):
        make(**asked).train(resume_from_checkpoint=checkpoint)
    going_on = train(make(ignore_data_skip=True, **asked), resume_from_checkpoint=checkpoint)
    saved = json.loads((ROOT / checkpoint / 'estimator.json').read_text())['state']
    assert going_on.tasks == ['a', 'b'] and going_on.estimator.state_dict() != saved


def test_a_streamed_row_without_a_task(make):
    with pytest.raises(ValueError, match="a row has no 'task'; give every row its task, or give a function `task_of`"):
        train(make(data=streamed('abcd'), max_steps=1))
    trainer = train(make(data=streamed('abcd'), max_steps=1, task_of=lambda row: row['prompt'][0] > 'b'))
    assert set(trainer.tasks) <= {'True', 'False'}


# Tasks


def logged_tasks(trainer):
    found = Counter()
    for entry in trainer.state.log_history:
        found.update(name.split('/')[1] for name in entry if 'harpo/' in name)
    return set(found)


@pytest.mark.parametrize(
    'data',
    [
        tiny.rows().map(lambda row: dict(task=[row['task']])),
        Dataset.from_dict(dict(prompt=list('abcd'), task=[0, 1, 0, 1])).cast_column(
            'task', ClassLabel(names=['a', 'b'])
        ),
        Dataset.from_dict(dict(prompt=list('abcd'), task=[0, 1, 0, 1]))
        .cast_column('task', ClassLabel(names=['a', 'b']))
        .with_format('torch', columns=['task'], output_all_columns=True),
    ],
    ids=['list', 'class', 'tensor'],
)
def test_a_task_has_its_name(make, data):
    trainer = train(make(data=data, max_steps=2))
    assert trainer.tasks == ['a', 'b'] and logged_tasks(trainer) == {'a', 'b'}


def test_several_tasks_of_one_row(make):
    data = Dataset.from_dict(dict(prompt=['a', 'b'], task=[['a'], ['a', 'b']]))
    with pytest.raises(ValueError, match=r"row 1: \['a', 'b'\] is no name of a task"):
        make(data=data)


def test_evaluation_sets(make):
    untold = DATA.remove_columns('task')
    sets = dict(told=DATA, untold=untold)
    asked = dict(eval_strategy='steps', eval_steps=1, per_device_eval_batch_size=8, max_steps=1)
    trainer = train(make(eval_dataset=sets, **asked))
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert 'eval_untold_harpo/all/reward' in logged or 'eval_harpo/all/reward' in logged
    assert any('harpo/a/reward' in name for name in logged if name.startswith('eval'))
    with pytest.raises(ValueError, match="evaluation set 'holed': row 2: no task"):
        make(
            eval_dataset=DatasetDict(told=DATA, holed=Dataset.from_dict(dict(prompt=list('abc'), task=['a', 'b', ''])))
        )


class Game:
    "An environment with rows of its own."

    def reset(self, **kwargs):
        self.task = 'chess'
        return 'a b'

    def get_reward(self):
        return 1.0

    def move(self, square: str) -> str:
        """
        Move.

        Args:
            square: Where to.

        Returns:
            What the other moved.
        """
        return square


class Untold(Game):
    def reset(self, **kwargs):
        return 'a b'


@pytest.fixture
def playing(make, monkeypatch):
    "A trainer with an environment; the tokenizer's template need not know of tools here."
    from trl.trainer import grpo_trainer

    monkeypatch.setattr(grpo_trainer, 'supports_tool_calling', lambda processor: True)
    monkeypatch.setattr(grpo_trainer, 'is_chat_template_prefix_preserving', lambda processor: True)
    monkeypatch.setattr(grpo_trainer, 'add_response_schema', lambda processor: processor)
    monkeypatch.setattr(
        grpo_trainer, 'parse_response', lambda processor, ids, **kwargs: dict(role='assistant', content='a')
    )
    monkeypatch.setenv('TRL_EXPERIMENTAL_SILENCE', '1')
    return lambda environment=Game, data=None, **kwargs: make(
        data=data, rewards=None, environment_factory=environment, max_steps=1, **kwargs
    )


def test_environments_bring_rows_and_tasks(playing):
    assert logged_tasks(train(playing())) == {'chess'}
    told = playing(task_of=lambda row, played: type(played).__name__)
    assert logged_tasks(train(told)) == {'Game'} and told.tasks == ['Game']
    with pytest.raises(ValueError, match="neither the row nor its environment Untold has 'task'; set `self.task`"):
        train(playing(Untold))


def test_environments_without_agreement(playing):
    kinds = iter('xyxyxyxyxyxyxyxy')
    with pytest.raises(ValueError, match='rollouts of one prompt have the tasks x, y'):
        train(playing(task_of=lambda row, played: next(kinds)))


# What is told before a model is read


@pytest.mark.parametrize(
    'words, kwargs',
    [
        ("no estimator is called 'hapro'; did you mean 'harpo'?", dict(estimator='hapro')),
        ('Harpo is a class; make an estimator of it, Harpo', dict(estimator=Harpo)),
        ("no column 'kind'", dict(task_column='kind')),
        ('scale_rewards: the estimator decides', dict(scale_rewards='batch')),
        (
            'evaluation set: row 1: no task',
            dict(eval_dataset=Dataset.from_dict(dict(prompt=['a', 'b'], task=['a', None]))),
        ),
    ],
)
def test_told_before_the_model_is_read(make, words, kwargs):
    with pytest.raises(ValueError, match=words):
        make(model='a model that is nowhere', **kwargs)


# Checkpoints


class SavesAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save |= state.global_step == self.step


def checkpoints(trainer):
    return sorted(int(folder.name.split('-')[1]) for folder in Path(trainer.args.output_dir).glob('checkpoint-*'))


@pytest.mark.parametrize(
    'expected, kwargs',
    [
        ([6, 7], dict(save_steps=5, num_iterations=3)),
        ([3, 6, 7], dict(save_steps=0.34, num_iterations=3)),
        ([7], dict(save_steps=500, num_iterations=3)),
        ([2, 4, 6, 7], dict(save_steps=2)),
        ([5, 7], dict(save_steps=4, steps_per_generation=3, gradient_accumulation_steps=2)),  # Five steps an epoch
    ],
)
def test_checkpoints_wait_for_the_end_of_a_generation(make, expected, kwargs):
    asked = dict(max_steps=7, save_strategy='steps', per_device_train_batch_size=4) | kwargs
    assert checkpoints(train(make(**asked))) == expected


@pytest.mark.parametrize('step, estimator', [(1, 'harpo'), (3, 'harpo'), (5, 'harpo'), (4, 'grpo')])
def test_resumed_within_a_generation(make, step, estimator):
    asked = dict(max_steps=6, num_iterations=3, save_strategy='steps', save_steps=500, estimator=estimator)
    whole = train(make(callbacks=[SavesAt(step)], **asked))
    resumed = train(make(**asked), resume_from_checkpoint=f'{whole.args.output_dir}/checkpoint-{step}')
    assert same(whole, resumed) and whole.estimator.state_dict() == resumed.estimator.state_dict()
    assert losses(whole)[step:6] == losses(resumed)[step:6]


def test_resumed_from_the_last_step_and_from_the_best(make):
    asked = dict(num_iterations=3, save_strategy='steps', save_steps=500, lr_scheduler_type='constant')
    whole = train(make(max_steps=6, folder='whole', **asked))
    short = train(make(max_steps=4, folder='short', **asked))
    longer = train(
        make(max_steps=6, folder='longer', **asked), resume_from_checkpoint=f'{short.args.output_dir}/checkpoint-4'
    )
    assert same(whole, longer)
    best = dict(save_strategy='best', metric_for_best_model='reward', eval_strategy='steps', eval_steps=1)
    asked |= best | dict(eval_dataset=DATA, per_device_eval_batch_size=8, max_steps=6)
    whole = train(make(folder='best', **asked))
    within = [step for step in checkpoints(whole) if step % 3]
    assert within
    for step in within:
        resumed = train(
            make(folder='again', **asked), resume_from_checkpoint=f'{whole.args.output_dir}/checkpoint-{step}'
        )
        assert same(whole, resumed)


def test_a_generation_of_other_processes(make):
    asked = dict(max_steps=2, num_iterations=2, save_strategy='steps', save_steps=500)
    begun = train(make(callbacks=[SavesAt(1)], **asked))
    file = ROOT / begun.args.output_dir / 'checkpoint-1' / 'generation-0.pt'
    rest = torch.load(file)
    torch.save(rest | dict(processes=2), file)
    with pytest.raises(SourceError, match='in the middle of a generation of another number of processes'):
        make(**asked).train(resume_from_checkpoint=str(file.parent))


def test_a_second_run_begins_with_the_memory_that_was_given(make):
    seen = []
    given = Harpo()
    trainer = make(estimator=given, max_steps=3)
    for _ in range(2):
        torch.manual_seed(1)
        trainer.model.load_state_dict(tiny.policy().state_dict())
        trainer.optimizer = None
        train(trainer)
        seen.append(json.dumps(given.state_dict()))
    assert max(memory.contribution.seen for memory in given.memory.values()) <= 3
    assert trainer.estimator is given


# A reference, a card, a hook


def test_a_policy_that_no_name_gives_is_copied(make):
    model = tiny.policy(3)
    model.config._name_or_path = 'a model that is nowhere'
    trainer = make(model=model, beta=0.1, max_steps=2)
    start = tiny.policy(3).state_dict()
    assert all(weight.equal(start[name]) for name, weight in trainer.ref_model.state_dict().items())
    train(trainer)
    assert all(weight.equal(start[name]) for name, weight in trainer.ref_model.state_dict().items())
    assert not trainer.model.lm_head.weight.equal(start['lm_head.weight'])
    assert trainer.state.log_history[1]['kl'] > 0


@pytest.mark.parametrize('name', ['harpo', 'grpo', 'dr_grpo', 'reinforce', 'equal_share'])
def test_a_card_has_the_paper_of_its_estimator(make, name):
    trainer = make(estimator=name)
    trainer.create_model_card('model')
    card = (ROOT / trainer.args.output_dir / 'README.md').read_text()
    number = trainer._paper.get('id')
    assert '- trl' in card and '- grpo' in card
    assert ('DeepSeekMath' in card) == (name == 'grpo')
    assert number is None or f'arXiv:{number}' in card and f'papers/{number}' in card
    assert ('HARPO' in card and '2602.10635' in card) == name.startswith('harpo')


class Later(trl.GRPOTrainer):
    "TRL with a hook for advantages, as a later one may have: given those of all processes, before they are logged."

    def _transform_advantages(self, advantages):
        return advantages

    def _generate_and_score_completions(self, inputs):
        out = super()._generate_and_score_completions(inputs)
        transformed = self._transform_advantages(out['advantages'])
        logged = self._logs['advantages']
        for _ in range(len(transformed)):
            logged.pop()
        logged.extend(transformed.tolist())
        return out | dict(advantages=transformed)


class LaterHarpoTrainer(HarpoTrainer, Later):
    pass


@pytest.mark.parametrize('estimator', ['harpo', 'grpo'])
def test_a_hook_of_a_later_trl_is_used(make, estimator, monkeypatch):
    now = train(make(estimator=estimator, max_steps=2, folder='now'))
    monkeypatch.setattr(HarpoTrainer, '_log_advantages', lambda *args: pytest.fail('the hook was not used'))
    later = train(make(LaterHarpoTrainer, estimator=estimator, max_steps=2, folder='later'))
    assert same(now, later) and losses(now) == losses(later)
    assert now.estimator.state_dict() == later.estimator.state_dict()
    assert list(now._logs['advantages']) == list(later._logs['advantages'])


# Processes

TOLD = dict(
    missing="process 1: the dataset has no column 'task'",
    versions='process 1 has another trl, 0.0, than process 0',
    misspelt="process 0: no estimator is called 'hapro'",
    absent='process 0: another process did not begin within 0:00:02',
)


def test_processes_that_differ_stop_with_one_sentence(tmp_path):
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
    done = subprocess.run(
        [sys.executable, *launch, ROOT / 'tests' / 'trl_ranks.py', tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | dict(OMP_NUM_THREADS='1', PYTHONFAULTHANDLER='1'),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2))
    for kind, words in TOLD.items():
        assert ours[kind].startswith(words)
        assert kind == 'absent' or theirs[kind] == ours[kind]
