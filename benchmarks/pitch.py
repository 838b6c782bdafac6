"""The tracker of `atlas/16_descriptors` beside its predecessor, openSMILE and Praat: on acted speech, on tones whose
pitch is known, on the voices of the mini-Atlas, and against the clock.

python benchmarks/pitch.py FOLDER > nbs/results/pitch.json

FOLDER holds `tess` and `emodb` as in `shared/data`. Needs openSMILE (the extra `features`) and Praat (`pip install
praat-parselmouth`; its licence is the GPL, so nothing of the package requires it). Numbers alone are kept."""

import json
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import opensmile
import pandas as pd
import parselmouth
from scipy.signal import find_peaks

from omnisapiens_nb.atlas import descriptors
from omnisapiens_nb.atlas.descriptors import FRAME, HIGHEST, HOP, LOWEST, PROSODY, frames_of, pitch_track, prosody
from omnisapiens_nb.atlas.media import RATE, read_audio
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.runs.machine import facts
from omnisapiens_nb.studies.methods import mini_atlas

NOT_TESS = 'YAF_beg_sad'  # Another recording under this name
# fmt: off
EMODB = dict(W='anger', L='boredom', E='disgust', A='fear', F='happiness', T='sadness', N='neutral')
# fmt: on


# --- The tracker until 0.1.0: first high peak up to 500 Hz, frame by frame


def old_autocorrelation(frames, lags):
    x = frames - frames.mean(1, keepdims=True)
    n = x.shape[1]
    spectrum = np.fft.rfft(x, 2 * n)
    products = np.fft.irfft(np.abs(spectrum) ** 2)[:, :lags]
    energy = np.cumsum(x**2, 1, dtype=np.float64)
    head = energy[:, n - 1 - np.arange(lags)]
    before = np.concatenate([np.zeros((len(x), 1)), energy[:, : lags - 1]], 1)
    return products / np.sqrt(np.maximum(head * (energy[:, -1:] - before), 1e-12))


def old_first_peak(r, highest):
    shortest = RATE // highest
    candidates = r[shortest:]
    peaks, _ = find_peaks(candidates, height=max(0.6, 0.9 * candidates.max()))
    return int(peaks[0]) + shortest if len(peaks) else 0


def old_track(sound, highest=500):
    frames = frames_of(sound)
    r = old_autocorrelation(frames, RATE // 60 + 2)
    lags = np.array([old_first_peak(row, highest) for row in r])
    at = np.clip(lags, 1, r.shape[1] - 2)
    left, middle, right = (r[np.arange(len(r)), at + d] for d in (-1, 0, 1))
    curvature = left - 2 * middle + right
    shift = 0.5 * (left - right) / np.where(curvature == 0, -1, curvature)
    loud = np.sqrt((frames**2).mean(1)) > 1e-3
    return np.where((lags > 0) & loud, RATE / (at + shift), np.nan)


# --- References, in Hz at the middles of our frames; NaN where unvoiced

SMILE = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)


def middles(sound):
    return FRAME / RATE / 2 + np.arange(len(frames_of(sound))) * HOP / RATE


def at_middles(sound, seconds, hz):
    "Interpolated in octaves between two voiced frames."
    octaves = np.log2(np.where(hz > 0, hz, np.nan))
    return 2 ** np.interp(middles(sound), seconds, octaves, np.nan, np.nan)


def smile_track(sound):
    "Subharmonic summation and a path through its candidates; windows of 60 ms, a mean over three of them."
    semitones = SMILE.process_signal(sound, RATE)['F0semitoneFrom27.5Hz_sma3nz'].to_numpy()
    seconds = 0.030 + 0.010 * np.arange(len(semitones))
    return at_middles(sound, seconds, np.where(semitones > 0, 27.5 * 2 ** (semitones / 12), 0))


def praat_track(sound):
    "Boersma's method in his own program, with its default costs and our range."
    heard = parselmouth.Sound(sound.astype(np.float64), RATE)
    pitch = heard.to_pitch_ac(time_step=0.010, pitch_floor=LOWEST, pitch_ceiling=HIGHEST)
    return at_middles(sound, pitch.xs(), pitch.selected_array['frequency'])


TRACKERS = {
    'old': old_track,
    'old, up to 900 Hz': partial(old_track, highest=900),
    'new': pitch_track,
    'openSMILE': smile_track,
    'Praat': praat_track,
}
PAIRS = (
    ('old', 'openSMILE'),
    ('old, up to 900 Hz', 'openSMILE'),
    ('new', 'openSMILE'),
    ('old', 'Praat'),
    ('old, up to 900 Hz', 'Praat'),
    ('new', 'Praat'),
    ('Praat', 'openSMILE'),
)


# --- Speech


def clips(folder):
    "Corpus, emotion, name and sound of each clip."
    for path in sorted((folder / 'tess').rglob('*.wav')):
        if path.stem != NOT_TESS:
            yield 'TESS', path.stem.split('_')[-1], path.stem, read_audio(path.read_bytes())
    for path in sorted((folder / 'emodb').rglob('*.wav')):
        yield 'EmoDB', EMODB[path.stem[5]], path.stem, read_audio(path.read_bytes())


def compared(one, other):
    "Two tracks of many frames."
    voiced = [np.isfinite(one), np.isfinite(other)]
    both = voiced[0] & voiced[1]
    semitones = 12 * np.log2(one[both] / other[both])
    size = np.abs(semitones)
    return dict(
        frames=len(one),
        voiced=round(voiced[0].mean().item(), 4),
        voiced_reference=round(voiced[1].mean().item(), 4),
        voiced_both=round(both.mean().item(), 4),
        median_semitones=round(np.median(size).item(), 4),
        jumps=round((size > 6).mean().item(), 5),
        jumps_up=round((semitones > 6).mean().item(), 5),
        jumps_down=round((semitones < -6).mean().item(), 5),
        octaves=round((np.abs(size - 12) <= 1).mean().item(), 5),
    )


def agreement(tracks):
    "Each pair of trackers, by corpus and by emotion."
    table = []
    frames = {name: np.concatenate(list(tracks[name])) for name in TRACKERS}
    lengths = tracks['new'].map(len)
    corpus, emotion = (tracks[key].repeat(lengths).to_numpy() for key in ('corpus', 'emotion'))
    kinds = tracks[['corpus', 'emotion']].drop_duplicates()
    wanted = [(name, 'all') for name in kinds.corpus.unique()] + list(kinds.itertuples(index=False, name=None))
    for name, feeling in wanted:
        chosen = corpus == name
        if feeling != 'all':
            chosen &= emotion == feeling
        for one, other in PAIRS:
            found = compared(frames[one][chosen], frames[other][chosen])
            table.append(dict(corpus=name, emotion=feeling, tracker=one, reference=other, **found))
    return table


def by_height(tracks, reference='openSMILE'):
    "Jumps where the reference is how high."
    table = []
    truth = np.concatenate(list(tracks[reference]))
    for low, high in ((60, 250), (250, 400), (400, 500), (500, 900)):
        chosen = (truth >= low) & (truth < high)
        for name in ('old', 'old, up to 900 Hz', 'new', 'Praat'):
            track = np.concatenate(list(tracks[name]))[chosen]
            table.append(dict(low=low, high=high, tracker=name, **compared(track, truth[chosen])))
    return table


def odd_share(window, low):
    "Of the power at the first six multiples of a frequency, that at 1, 3, 5: nothing if the voice is higher."
    power = np.abs(np.fft.rfft(window * np.hanning(len(window)), RATE)) ** 2  # One bin per Hz
    edges = [(round((order - 0.1) * low), round((order + 0.1) * low) + 1) for order in range(1, 7)]
    peaks = np.array([power[first:last].max() for first, last in edges])
    return peaks[::2].sum() / peaks.sum()


def shares_of(sound, new, smile):
    "How the trackers stand to each other in a frame, and the odd share of the lower of the two octaves."
    semitones = 12 * np.log2(new / smile)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(sound, 160), 960)[::HOP]
    cases = dict(lower=np.abs(semitones + 12) <= 1, higher=np.abs(semitones - 12) <= 1, equal=np.abs(semitones) <= 1)
    for case, there in cases.items():
        for at in np.flatnonzero(there):
            yield case, odd_share(windows[at], new[at] if case == 'lower' else new[at] / 2)


def between(tracks):
    "What the spectrum says where ours and openSMILE are an octave apart, and where they agree."
    found = []
    for row in tracks.itertuples():
        shares = shares_of(row.sound, row.new, row.openSMILE)
        found += [(row.corpus, case, share) for case, share in shares]
    shares = pd.DataFrame(found, columns=['corpus', 'ours', 'share']).groupby(['corpus', 'ours']).share
    table = shares.describe(percentiles=[0.1, 0.5, 0.9])[['count', '10%', '50%', '90%']]
    return table.round(4).reset_index().to_dict('records')


def contour(tracks, name):
    "Tracks of a clip, for a picture."
    row = tracks[tracks.name == name].iloc[0]
    return {key: [None if np.isnan(hz) else round(hz, 1) for hz in row[key].tolist()] for key in TRACKERS}


# --- Tones whose pitch is known


def contours():
    "Names and frequencies, two seconds each."
    t = np.arange(2 * RATE) / RATE
    share = t / t[-1]
    found = {f'{hz} Hz': np.full(len(t), float(hz)) for hz in (60, 75, 100, 140, 200, 290, 410, 560, 700, 838, 890)}
    found['60 to 900 Hz'] = 60 * 15**share
    found['900 to 60 Hz'] = 900 / 15**share
    found['rise to 838 Hz and back'] = 300 * (838 / 300) ** (np.sin(np.pi * share) ** 2)
    found['vibrato'] = 450 * 2 ** (np.sin(2 * np.pi * 5 * t) / 12)
    found['melody'] = 130 * 2 ** (0.5 * np.sin(2 * np.pi * 1.5 * t) + 0.1 * np.sin(2 * np.pi * 4 * t))
    irregular = np.random.default_rng(0).uniform(0.96, 1.04, 2 * 70)
    found['creak, 70 Hz'] = 70 * np.repeat(irregular, RATE // 70 + 1)[: len(t)]
    return found


FORMANTS = ((650, 150, 1), (1400, 200, 0.6), (2600, 300, 0.3))  # Hz: centre and width; weight


def vowel(order, hz):
    "Weight of a harmonic."
    lift = sum(weight * np.exp(-(((hz - centre) / width) ** 2)) for centre, width, weight in FORMANTS)
    return (0.05 + lift) / order


WEIGHTS = {
    'pure': lambda order, hz: order == 1,
    'soft': lambda order, hz: order**-2.0,
    'vowel': vowel,
    'bright': lambda order, hz: 1,
    'without its fundamental': lambda order, hz: vowel(order, hz) * (order > 1),
    'without its two lowest': lambda order, hz: vowel(order, hz) * (order > 2),
    'telephone': lambda order, hz: vowel(order, hz) * (hz > 300) * (hz < 3400),
}
NOISE = {'clean': 0, '20 dB': 0.1, '10 dB': 10**-0.5, '3 dB': 10**-0.15}  # Amplitude relative to the tone


def tone(hz, weight, rng):
    "Harmonics below 7.6 kHz with phases at random."
    angle = 2 * np.pi * np.cumsum(hz) / RATE
    sound = np.zeros(len(hz))
    for order in range(1, int(7600 / hz.min()) + 1):
        there = order * hz < 7600
        sound += there * weight(order, order * hz) * np.sin(order * angle + rng.uniform(0, 2 * np.pi))
    return 0.2 * sound / np.abs(sound).max()


def judged(track, truth):
    "Shares of frames without a pitch, and of those with one that is off by more than a semitone, up and down."
    semitones = 12 * np.log2(track / truth)
    found = semitones[np.isfinite(semitones)]
    return len(track), len(track) - len(found), (found > 1).sum(), (found < -1).sum()


def synthetic():
    table = []
    for kind, weight in WEIGHTS.items():
        rng = np.random.default_rng(0)
        sounds = {name: (hz, tone(hz, weight, rng)) for name, hz in contours().items()}
        for loudness, share in NOISE.items():
            table += judged_sounds(kind, loudness, share, sounds)
    return table


def judged_sounds(kind, loudness, share, sounds):
    rng = np.random.default_rng(1)
    noisy = []
    for hz, sound in sounds.values():
        amplitude = share * np.sqrt((sound**2).mean())
        heard = sound + amplitude * rng.normal(size=len(sound))
        noisy.append((hz[FRAME // 2 :: HOP], heard.astype(np.float32)))
    for name, track in TRACKERS.items():
        counts = []
        for truth, sound in noisy:
            found = track(sound)
            counts.append(judged(found, truth[: len(found)]))
        frames, missed, up, down = np.sum(counts, 0).tolist()
        heard = max(frames - missed, 1)
        shares = dict(missed=missed / frames, up=up / heard, down=down / heard)
        shares = {key: round(value, 4) for key, value in shares.items()}
        yield dict(sound=kind, noise=loudness, tracker=name, frames=frames, **shares)


# --- What changes for the studies


def described(sounds, track):
    "Descriptors with a given tracker."
    ours = descriptors.pitch_track
    descriptors.pitch_track = track
    try:
        return pd.DataFrame([prosody(sound) for sound in sounds], columns=list(PROSODY)).astype(float)
    finally:
        descriptors.pitch_track = ours


def mini():
    "Descriptors of study D's voices, old and new; changes in standard deviations of the old column."
    with tempfile.TemporaryDirectory() as folder:
        atlas = open_atlas(mini_atlas(Path(folder), 0))
        sounds = [read_audio(data) for row in atlas for data in row['audios']]
    old = described(sounds, old_track)
    new = described(sounds, pitch_track)
    table = []
    for name in PROSODY[:4]:
        change = (new[name] - old[name]).abs() / old[name].std()
        found = dict(median=change.median(), p95=change.quantile(0.95), greatest=change.max())
        shares = dict(over_a_tenth=(change > 0.1).mean(), correlation=old[name].corr(new[name]))
        table.append(dict(descriptor=name, **{k: round(float(v), 4) for k, v in (found | shares).items()}))
    others = (new.iloc[:, 4:] == old.iloc[:, 4:]).all(axis=None)
    return dict(sounds=len(sounds), others_equal=bool(others), pitch=table)


# --- Speed


def speed(sounds):
    "Milliseconds of one core per second of sound; the best of seven."
    seconds = sum(map(len, sounds)) / RATE
    best = {}
    for _ in range(7):
        for name in ('old', 'new', 'openSMILE', 'Praat'):
            begun = time.process_time()
            for sound in sounds:
                TRACKERS[name](sound)
            spent = time.process_time() - begun
            best[name] = min(best.get(name, np.inf), spent)
    return dict(seconds=round(seconds, 1)) | {name: round(1000 * t / seconds, 2) for name, t in best.items()}


def main(folder):
    begun = time.monotonic()
    heard = pd.DataFrame(clips(Path(folder)), columns=['corpus', 'emotion', 'name', 'sound'])
    tracks = heard.assign(**{name: heard.sound.map(track) for name, track in TRACKERS.items()})
    found = dict(
        opensmile=version('opensmile'),
        praat=parselmouth.PRAAT_VERSION,
        clips=heard.corpus.value_counts().to_dict(),
        speech=agreement(tracks),
        heights=by_height(tracks),
        odd_shares=between(tracks),
        contour=dict(clip='YAF_food_ps', tracks=contour(tracks, 'YAF_food_ps')),
        synthetic=synthetic(),
        mini=mini(),
        speed=speed(list(heard.sound[::45])),
    )
    found = facts(
        'python benchmarks/pitch.py ../shared/data > nbs/results/pitch.json', time.monotonic() - begun, **found
    )
    sys.stdout.write(json.dumps(found) + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
