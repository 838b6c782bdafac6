"Our pitch and loudness beside openSMILE's on real speech, and openSMILE's own sets, pinned."

import numpy as np
import pandas as pd
import pytest
from conftest import required

from omnisapiens_nb.atlas.descriptors import PROSODY, functionals, prosody
from omnisapiens_nb.atlas.media import RATE, read_audio


@pytest.fixture(scope='module')
def opensmile():
    try:
        import opensmile
    except ImportError:
        required('openSMILE is not installed: pip install -e ".[features]"')
    return opensmile


@pytest.fixture(scope='module')
def sounds(shared):
    return {p.stem: read_audio(p.read_bytes()) for p in sorted((shared / 'data' / 'audio_samples').rglob('*.wav'))}


def test_pitch_and_loudness_agree_with_opensmile(opensmile, sounds):
    "Where both measure the same thing: mean pitch in semitones, and loudness up to its unit."
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    theirs = pd.concat([smile.process_signal(sound, RATE) for sound in sounds.values()])
    ours = pd.DataFrame([prosody(sound) for sound in sounds.values()], columns=list(PROSODY))
    assert len(ours) == 12
    pitch = theirs['F0semitoneFrom27.5Hz_sma3nz_amean'].to_numpy()
    assert np.median(np.abs(ours.pitch_mean - pitch)) < 1
    assert np.corrcoef(ours.pitch_mean, pitch)[0, 1] > 0.8
    loudness = np.log(theirs['loudness_sma3_amean'].to_numpy())
    assert np.corrcoef(ours.loudness_mean, loudness)[0, 1] > 0.8


def test_opensmile_on_a_speech(opensmile, sounds):
    found = {name: functionals(sounds['jfk'], name) for name in ('ComParE_2016', 'eGeMAPSv02')}
    assert {name: x.shape for name, x in found.items()} == dict(ComParE_2016=(6373,), eGeMAPSv02=(88,))
    assert all(np.isfinite(x).all() for x in found.values())
    assert abs(found['eGeMAPSv02'][0] - 37.458) < 0.01


# Mean, deviation, least, greatest, median over the numbers of a set, on jfk.wav as `read_audio` decodes it. Other
# platforms differ in the last digits of some ComParE numbers, hence a thousandth; one per cent less loud changes its
# mean by a fifth.
SUMMARY = dict(
    ComParE_2016=(1459192.2, 108649943.3, -229270.56, 8656673792.0, 0.47930947),
    eGeMAPSv02=(102.163122, 404.585462, -127.787766, 2805.0, 0.60124996),
)


@pytest.mark.parametrize('name', SUMMARY)
def test_openSMILE_numbers_are_what_they_were(opensmile, sounds, name):
    found = functionals(sounds['jfk'], name).astype(float)
    assert np.isfinite(found).all()
    summary = [found.mean(), found.std(), found.min(), found.max(), np.median(found)]
    assert summary == pytest.approx(SUMMARY[name], rel=1e-3)


def test_the_reading_path_shows(opensmile, sounds):
    "What the pinned numbers are for: a sound that is read a little differently does not pass."
    quieter = functionals(sounds['jfk'] * np.float32(0.99)).astype(float)
    assert quieter.mean() != pytest.approx(SUMMARY['ComParE_2016'][0], rel=1e-2)
    assert np.median(quieter) != pytest.approx(SUMMARY['ComParE_2016'][-1], rel=1e-2)
