"""A rollout `hf` for verl, and verl's FSDP engine on the platform of verl_cpu; for tests.

They are entered into verl's own tables. What verl hands to an estimator of ours, and what that answers, is written to
the file that VERL_HF_RECORD names, a line for each step."""

import asyncio
import json
import os
from pathlib import Path

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from omnisapiens_nb.rl import verl_plugin

# verl enters it for `cuda` and `npu` only
EngineRegistry.register(model_type='language_model', backend=['fsdp', 'fsdp2'], device='cpu')(FSDPEngineWithLMHead)


DIES = int(os.environ.get('VERL_HF_DIES', -1))  # The step in which servers die


def server_name(replica):
    return f'hf_server_{replica}'


class Sampler:
    "A server of one model: it samples token by token, and takes the weights that a trainer sends."

    def __init__(self, path, longest, replica):
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.longest = longest
        self.replica = replica
        self.answers = 0
        self.take({}, 0)

    def node(self):
        return ray.get_runtime_context().get_node_id()

    def take(self, weights, steps):
        "All weights by name, or none, and the step that they are of."
        if weights:
            self.model.load_state_dict(weights)
        self.steps = steps
        self.asked = {}

    def count(self, prompt):
        "How often a prompt was asked in this step, of whichever server; the first server keeps the book."
        if self.replica:
            return ray.get(ray.get_actor(server_name(0)).count.remote(prompt))
        self.asked[prompt] = self.asked.get(prompt, -1) + 1
        return self.asked[prompt]

    def choose(self, prompt, greedy):
        "How to take a token from the logarithms of chances: the same in every run for the same question and step."
        if greedy:
            return lambda logs: logs.argmax()
        seed = hash((*prompt, self.steps, self.count(prompt))) % 2**63
        generator = torch.Generator().manual_seed(seed)
        return lambda logs: torch.multinomial(logs.exp(), 1, generator=generator)[0]

    def die(self):
        "In the middle of a step, where the run asks for it."
        self.answers += 1
        if self.steps == DIES and self.answers % 3 == 0:
            os._exit(1)

    @torch.no_grad()
    def generate(self, prompt_ids, sampling_params, **kwargs):
        self.die()
        choose = self.choose(tuple(prompt_ids), sampling_params['temperature'] == 0)
        tokens, chances = [], []
        cache, shown = None, prompt_ids
        while len(tokens) < self.longest:
            out = self.model(torch.tensor([shown]), past_key_values=cache, use_cache=True)
            logs = out.logits[0, -1].log_softmax(-1)
            token = choose(logs)
            tokens.append(int(token))
            chances.append(float(logs[token]))
            if tokens[-1] == self.model.config.eos_token_id:
                break
            cache, shown = out.past_key_values, tokens[-1:]
        steps = dict(global_steps=self.steps)
        return TokenOutput(token_ids=tokens, log_probs=chances, stop_reason='completed', extra_fields=steps)

    def nothing(self, *args, **kwargs):
        "There is no memory of a device to give back, and no request that waits."

    sleep = wake_up = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = nothing


class Replica(RolloutReplica):
    "One server beside one worker of the trainer's, on the same machine."

    async def launch_servers(self):
        (worker,) = self.workers
        node = await worker.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id())
        server = ray.remote(Sampler).options(
            name=server_name(self.replica_rank),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False),
        )
        self._server_handle = server.remote(self.model_config.path, self.config.response_length, self.replica_rank)
        self.servers = [self._server_handle]
        self._server_address = await self._server_handle.node.remote() + f'/{self.replica_rank}'


class Adapter(base.BaseRollout):
    "In the trainer's worker: sends its weights to its server."

    async def resume(self, tags):
        pass

    async def release(self):
        pass

    async def update_weights(self, weights, wire_format='named_tensors', global_steps=None, **kwargs):
        whole = {name: tensor.detach().float().cpu() for name, tensor in weights}
        server = ray.get_actor(server_name(os.environ['RANK']))
        await asyncio.wrap_future(server.take.remote(whole, global_steps or 0).future())


base._ROLLOUT_REGISTRY['hf', 'async'] = 'verl_hf.Adapter'
RolloutReplicaRegistry.register('hf', lambda: Replica)


def recorded(estimate):
    "The method of an estimator, with a line written for each call."

    def call(self, token_level_rewards, response_mask, index, config=None, **kwargs):
        by_token, returns = estimate(self, token_level_rewards, response_mask, index, config, **kwargs)
        step = dict(
            uids=[str(uid) for uid in index],
            rewards=token_level_rewards.sum(-1).tolist(),
            advantages=(by_token.sum(-1) / response_mask.sum(-1)).tolist(),
        )
        with Path(os.environ['VERL_HF_RECORD']).open('a', encoding='utf-8') as f:
            f.write(json.dumps(step) + '\n')
        return by_token, returns

    return call


if 'VERL_HF_RECORD' in os.environ:
    verl_plugin.TokenAdvantages.__call__ = recorded(verl_plugin.TokenAdvantages.__call__)
