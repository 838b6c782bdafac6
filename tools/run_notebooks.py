"""Run the notebooks as tests, as `nbdev_test` does, in processes that begin with the large imports done.

python tools/run_notebooks.py [PROCESSES [SKIPPED]]     SKIPPED is a regular expression for names of notebooks

A process that runs a notebook would import torch, transformers and TRL first, which takes some seconds. And trainers
call the garbage collector often, which then looks through all that these imports made. Here one process imports them
and tells the collector to leave them out; the processes that run notebooks are its copies."""

import gc
import sys

import matplotlib.pyplot  # noqa: F401 (this and the next four are for the copies)
import peft  # noqa: F401
import sentence_transformers  # noqa: F401
import trl.trainer.grpo_trainer  # noqa: F401
import trl.trainer.sft_trainer  # noqa: F401
from nbdev.test import nbdev_test


def main(processes='2', skipped='^[_.]'):
    "Leave what is imported by now out of the search for garbage, and run the notebooks in copies of this process."
    gc.collect()
    gc.freeze()
    nbdev_test(n_workers=int(processes), skip_file_re=skipped)


if __name__ == '__main__':
    main(*sys.argv[1:])
