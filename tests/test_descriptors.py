"Our pitch and loudness beside openSMILE's on real speech, and openSMILE's own sets, pinned."
import numpy as np
import pytest
from conftest import required
from omnisapiens_nb.atlas.descriptors import PROSODY, functionals, prosody
from omnisapiens_nb.atlas.media import read_audio


@pytest.fixture(scope="module")
def opensmile():
    try: import opensmile
    except ImportError: required('openSMILE is not installed: pip install -e ".[features]"')
    return opensmile


@pytest.fixture(scope="module")
def sounds(shared): return {p.stem: read_audio(p.read_bytes()) for p in sorted((shared / "data" / "audio_samples").rglob("*.wav"))}


def test_pitch_and_loudness_agree_with_opensmile(opensmile, sounds):
    "Where both measure the same thing: mean pitch in semitones, and loudness up to its unit."
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    theirs = [smile.process_signal(s, 16_000).iloc[0] for s in sounds.values()]
    ours = [dict(zip(PROSODY, prosody(s))) for s in sounds.values()]
    assert len(ours) == 12
    pitch = np.array([(o["pitch_mean"], t["F0semitoneFrom27.5Hz_sma3nz_amean"]) for o, t in zip(ours, theirs)])
    assert np.median(np.abs(pitch[:, 0] - pitch[:, 1])) < 1
    assert np.corrcoef(pitch.T)[0, 1] > .8
    loud = np.array([(o["loudness_mean"], np.log(t["loudness_sma3_amean"])) for o, t in zip(ours, theirs)])
    assert np.corrcoef(loud.T)[0, 1] > .8


def test_opensmile_on_a_speech(opensmile, sounds):
    found = {name: functionals(sounds["jfk"], name) for name in ("ComParE_2016", "eGeMAPSv02")}
    assert {name: x.shape for name, x in found.items()} == dict(ComParE_2016=(6373,), eGeMAPSv02=(88,))
    assert all(np.isfinite(x).all() for x in found.values())
    assert abs(found["eGeMAPSv02"][0] - 37.458) < .01
