"""Pictures of the README: one row from its clip to the balance of tasks, drawn from a mini source and a committed log; and the tutorial's report as a browser shows it.

python tools/pictures.py [REPORT]     REPORT is the tutorial's report.html; without it the first picture alone"""

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

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
IMAGES, BLUE, RED, GREY = ROOT / 'nbs' / 'images', '#0072B2', '#D55E00', '#666666'


def clip():
    "One row of the mini MELD, with its film and sound."
    with tempfile.TemporaryDirectory() as folder:
        write_meld(Path(folder) / 'meld', 0)
        curate(dict(meld=Path(folder) / 'meld'), Path(folder) / 'atlas')
        row = next(
            r
            for r in open_atlas(Path(folder) / 'atlas', 'train')
            if r['dataset'] == 'meld_emotion' and r['answer'] == 'happy' and r['videos']
        )
        return row, read_video(row['videos'][0]), read_audio(row['audios'][0])


def group():
    "Rewards of one prompt's rollouts in study B, with right and wrong ones, and GRPO's advantages of them."
    _, logs = read_study(ROOT / 'nbs' / 'results' / 'study_B')
    of = (
        logs['rewards']
        .query("method == 'GRPO' and task == 'emotion_cls'")
        .rewards.map(lambda r: [float(x) for x in r.split()])
    )
    rewards = next(r for r in of if len(set(r)) == 3)
    return rewards, GRPO()(rewards, ['p'] * len(rewards), ['t'] * len(rewards)).advantages.tolist()


def balance():
    "Relative advantage of each task, mean over seeds and steps of study B."
    _, logs = read_study(ROOT / 'nbs' / 'results' / 'study_B')
    found = (
        relative_advantages(logs['steps'])
        .groupby(['method', 'task'])
        .relative.mean()
        .unstack()
        .rename(columns=COLUMNS_OF_PAPER)
    )
    return found.loc[['GRPO', 'HARPO released']]


def way(path):
    "Draw the first picture."
    row, film, sound = clip()
    fig = plt.figure(figsize=(12, 3.4), dpi=110, layout='constrained')
    grid = fig.add_gridspec(2, 4, height_ratios=(3, 1), width_ratios=(1, 1.5, 1, 1.5))
    picture, wave, text, rollouts, tasks = (
        fig.add_subplot(grid[i]) for i in ((0, 0), (1, 0), (slice(None), 1), (slice(None), 2), (slice(None), 3))
    )
    picture.imshow(film[len(film) // 2])
    wave.plot(sound, lw=0.4, color=BLUE)
    for ax in (picture, wave, text):
        ax.axis('off')
    lines = [
        '\n'.join(textwrap.wrap(part, 38))
        for part in (row['problem'].replace('<video>', '').replace('<audio>', '').strip(), target_text(row))
    ]
    text.text(
        0,
        0.98,
        '<video> <audio>\n' + lines[0],
        va='top',
        fontsize=8,
        color=GREY,
        family='monospace',
        transform=text.transAxes,
    )
    text.text(0, 0.02, lines[1], va='bottom', fontsize=8.5, color=BLUE, family='monospace', transform=text.transAxes)
    rewards, advantages = group()
    for values, shift, label, colour in ((rewards, -0.2, 'reward', BLUE), (advantages, 0.2, 'advantage', RED)):
        rollouts.bar(np.arange(len(values)) + shift, values, 0.4, label=label, color=colour)
    found = balance()
    for k, (name, colour) in enumerate(zip(found.index, (BLUE, RED))):
        tasks.bar(np.arange(found.shape[1]) + 0.4 * k - 0.2, found.loc[name], 0.4, label=name, color=colour)
    tasks.axhline(1, color=GREY, lw=0.8)
    rollouts.set(xticks=range(len(rewards)), xticklabels=[f'{n + 1}' for n in range(len(rewards))], xlabel='rollout')
    tasks.set(xticks=range(found.shape[1]), xticklabels=found.columns, ylabel='relative advantage')
    for ax, title in (
        (picture, 'a clip'),
        (text, 'its row, and what is learnt'),
        (rollouts, 'five rollouts'),
        (tasks, 'who moves the model'),
    ):
        ax.set_title(title, loc='left', fontsize=11, weight='bold')
    for ax in (rollouts, tasks):
        ax.legend(frameon=False, fontsize=8)
        ax.spines[['top', 'right']].set_visible(False)
    fig.savefig(path)


def report(page, path):
    "The top of a report in headless Chromium."
    subprocess.run(
        [
            'chromium',
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--hide-scrollbars',
            '--window-size=1100,1500',
            f'--screenshot={path}',
            page.resolve().as_uri(),
        ],
        check=True,
        capture_output=True,
    )


if __name__ == '__main__':
    IMAGES.mkdir(exist_ok=True)
    way(IMAGES / 'way.png')
    if sys.argv[1:]:
        report(Path(sys.argv[1]), IMAGES / 'report.png')
