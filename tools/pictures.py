"""Pictures of the README.

One row from its clip to the balance of tasks, drawn from a mini source and a committed log; and the tutorial's
report as a browser shows it.

python tools/pictures.py [REPORT]     REPORT is the tutorial's report.html; without it the first picture alone"""

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.media import read_audio, read_video
from omnisapiens_nb.atlas.mini.meld import write_meld
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.evaluation.seeds import relative_advantages
from omnisapiens_nb.evaluation.tables import COLUMNS_OF_PAPER
from omnisapiens_nb.rl.advantages import GRPO
from omnisapiens_nb.sft.targets import target_text
from omnisapiens_nb.studies.tables import read_study

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / 'nbs' / 'images'
STUDY = ROOT / 'nbs' / 'results' / 'study_B'
BLUE = '#0072B2'
RED = '#D55E00'
GREY = '#666666'
LETTERS = 38  # Of a line of text in the picture
BAR = 0.4  # Width of one of two bars side by side
WINDOW = '1100,1500'  # Pixels of the browser that shows the report


def clip() -> tuple[dict, np.ndarray, np.ndarray]:  # Row, frames, samples
    "One row of the mini MELD, with its video and sound."
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'meld'
        write_meld(source, 0)
        curate(dict(meld=source), Path(folder) / 'atlas')
        for row in open_atlas(Path(folder) / 'atlas', 'train'):
            if row['dataset'] == 'meld_emotion' and row['answer'] == 'happy' and row['videos']:
                return row, read_video(row['videos'][0]), read_audio(row['audios'][0])
    raise LookupError('no happy face with a video in the mini MELD')


def group() -> tuple[list[float], list[float]]:  # Rewards and advantages
    "Rewards of one prompt's rollouts in study B, with right and wrong ones, and GRPO's advantages of them."
    _, logs = read_study(STUDY)
    logged = logs['rewards'].query("method == 'GRPO' and task == 'emotion_cls'").rewards
    for text in logged:
        rewards = [float(word) for word in text.split()]
        if len(set(rewards)) == 3:
            step = GRPO()(rewards, ['p'] * len(rewards), ['t'] * len(rewards))
            return rewards, step.advantages.tolist()
    raise LookupError(f'no prompt of GRPO with three different rewards in {STUDY}')


def balance() -> pd.DataFrame:  # Method by task
    "Relative advantage of each task, mean over seeds and steps of study B."
    _, logs = read_study(STUDY)
    advantages = relative_advantages(logs['steps'])
    means = advantages.groupby(['method', 'task']).relative.mean()
    return means.unstack().rename(columns=COLUMNS_OF_PAPER).loc[['GRPO', 'HARPO released']]


def draw_clip(
    picture: Axes,  # For a frame
    wave: Axes,  # For the sound
    text: Axes,  # For the words
):
    "A frame, its sound, the prompt and what is learnt."
    row, video, sound = clip()
    picture.imshow(video[len(video) // 2])
    wave.plot(sound, lw=0.4, color=BLUE)
    for ax in (picture, wave, text):
        ax.axis('off')
    problem = row['problem'].replace('<video>', '').replace('<audio>', '').strip()
    prompt = '<video> <audio>\n' + textwrap.fill(problem, LETTERS)
    target = textwrap.fill(target_text(row), LETTERS)
    style = dict(family='monospace', transform=text.transAxes)
    text.text(0, 0.98, prompt, va='top', fontsize=8, color=GREY, **style)
    text.text(0, 0.02, target, va='bottom', fontsize=8.5, color=BLUE, **style)


def draw_rollouts(
    ax: Axes,  # Drawn on
):
    "Reward and advantage of a prompt's rollouts."
    rewards, advantages = group()
    places = np.arange(len(rewards))
    ax.bar(places - BAR / 2, rewards, BAR, label='reward', color=BLUE)
    ax.bar(places + BAR / 2, advantages, BAR, label='advantage', color=RED)
    ax.set(xticks=places, xticklabels=[f'{place + 1}' for place in places], xlabel='rollout')


def draw_tasks(
    ax: Axes,  # Drawn on
):
    "How much each task moves the model, under two methods."
    found = balance()
    places = np.arange(found.shape[1])
    for side, (name, colour) in enumerate(zip(found.index, (BLUE, RED))):
        ax.bar(places + BAR * side - BAR / 2, found.loc[name], BAR, label=name, color=colour)
    ax.axhline(1, color=GREY, lw=0.8)
    ax.set(xticks=places, xticklabels=found.columns, ylabel='relative advantage')


def way(
    path: Path,  # Of the picture
):
    "Draw the first picture."
    fig = plt.figure(figsize=(12, 3.4), dpi=110, layout='constrained')
    grid = fig.add_gridspec(2, 4, height_ratios=(3, 1), width_ratios=(1, 1.5, 1, 1.5))
    picture = fig.add_subplot(grid[0, 0])
    wave = fig.add_subplot(grid[1, 0])
    text, rollouts, tasks = [fig.add_subplot(grid[:, column]) for column in (1, 2, 3)]
    draw_clip(picture, wave, text)
    draw_rollouts(rollouts)
    draw_tasks(tasks)
    titles = {
        picture: 'a clip',
        text: 'its row, and what is learnt',
        rollouts: 'five rollouts',
        tasks: 'who moves the model',
    }
    for ax, title in titles.items():
        ax.set_title(title, loc='left', fontsize=11, weight='bold')
    for ax in (rollouts, tasks):
        ax.legend(frameon=False, fontsize=8)
        ax.spines[['top', 'right']].set_visible(False)
    fig.savefig(path)


def report(
    page: Path,  # The tutorial's report.html
    path: Path,  # Of the picture
):
    "The top of a report in headless Chromium."
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', f'--window-size={WINDOW}']
    command = ['chromium', *options, f'--screenshot={path}', page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == '__main__':
    IMAGES.mkdir(exist_ok=True)
    way(IMAGES / 'way.png')
    if sys.argv[1:]:
        report(Path(sys.argv[1]), IMAGES / 'report.png')
