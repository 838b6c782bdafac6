"""TRL's server mode on a CPU: where it stops, and all the rest of it: trl_server.py SERVED PORT LEARNING_RATE

SERVED is the folder that the server on PORT serves; it is written over. TRL hands weights to the server by NCCL alone,
which needs CUDA. So the stock trainer is made first, and what it says is shown. Then HARPO is trained with the same
server, whose client leaves the weights on disk and has them read again. How far the trainer's log-probabilities of a
rollout are from the server's says whether it serves the newest ones."""

import sys
import tempfile
import warnings
from pathlib import Path

from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import GRPOConfig, GRPOTrainer
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient

from omnisapiens_nb.rl.trl_trainer import HarpoTrainer

SHOWN = (
    'reward',
    'harpo/social_qa/factor',
    'sampling/sampling_logp_difference/mean',
    'sampling/importance_sampling_ratio/mean',
    'grad_norm',
)


class ByDisk(VLLMClient):
    "Hands weights over in a file."

    served = None  # Folder of the model
    handed = 0
    read_again = True  # False: the server keeps what it had, for comparison

    def init_communicator(self, device=0):
        pass

    def update_named_params(self, metadata, named_params):
        weights = {name: tensor.detach().contiguous() for name, tensor in named_params}
        save_file(weights, self.served / 'model.safetensors', metadata=dict(format='pt'))
        if self.read_again:
            self._post(f'{self.base_url}/collective_rpc', json=dict(method='reload_weights'))
        ByDisk.handed += 1


def settings(port, rate):
    return GRPOConfig(
        tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=16,
        max_steps=4,
        learning_rate=rate,
        lr_scheduler_type='constant',
        logging_steps=1,
        report_to=[],
        save_strategy='no',
        disable_tqdm=True,
        use_vllm=True,
        vllm_mode='server',
        vllm_server_host='127.0.0.1',
        vllm_server_port=port,
        vllm_server_timeout=20,
        temperature=1.0,
    )


def vowels(completions, **columns):
    return [sum(map(completion.count, 'aeiou')) / 10 for completion in completions]


def trainer(kind, served, port, rate):
    rows = [dict(prompt='why do they wave', task='social_qa'), dict(prompt='anger or joy', task='emotion_cls')] * 8
    model = AutoModelForCausalLM.from_pretrained(served)
    tokenizer = AutoTokenizer.from_pretrained(served)
    given = dict(args=settings(port, rate), train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    return kind(model, reward_funcs=vowels, **given)


def trained(served, port, rate, read_again):
    "The numbers of each step."
    ByDisk.read_again = read_again
    run = trainer(HarpoTrainer, served, port, rate)
    run.remove_callback(PrinterCallback)
    run.train()
    return [
        {name: float(f'{entry[name]:.3g}') for name in SHOWN if name in entry} for entry in run.state.log_history[:-1]
    ]


def main(served, port, rate):
    warnings.filterwarnings('ignore')
    served = Path(served)
    try:
        trainer(GRPOTrainer, served, port, rate)
    except NotImplementedError as e:
        print('stock TRL:', e)
    ByDisk.served = served
    vllm_generation.VLLMClient = ByDisk
    for read_again in (True, False):
        print('weights handed over by disk:' if read_again else 'weights kept back, for comparison:')
        for step, numbers in enumerate(trained(served, port, rate, read_again), 1):
            print(step, numbers)
    print('handed over', ByDisk.handed, 'times')


main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
