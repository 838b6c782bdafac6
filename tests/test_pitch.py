"The pitch tracker on a real voice above 800 Hz, on known tones, on sounds without a pitch, and after resampling."

import io

import numpy as np
import pytest
from conftest import required
from scipy.signal import resample_poly

from omnisapiens_nb.atlas import descriptors
from omnisapiens_nb.atlas.descriptors import FRAME, HOP, PROSODY, frames_of, pitch_track, prosody
from omnisapiens_nb.atlas.media import RATE, read_audio

TIME = np.arange(2 * RATE) / RATE


def harmonics(hz, first=1, last=40, slope=1.0, seed=0):
    "A tone with a frequency that may change, and overtones below 7.6 kHz."
    rng = np.random.default_rng(seed)
    hz = np.broadcast_to(hz, TIME.shape)
    angle = 2 * np.pi * np.cumsum(hz) / RATE
    sound = np.zeros(len(TIME))
    for order in range(first, last + 1):
        sound += (order * hz < 7600) * np.sin(order * angle + rng.uniform(0, 6.28)) / order**slope
    return (0.2 * sound / np.abs(sound).max()).astype(np.float32)


def semitones_off(sound, hz):
    track = pitch_track(sound)
    truth = np.broadcast_to(hz, TIME.shape)[FRAME // 2 :: HOP][: len(track)]
    return 12 * np.log2(track / truth)


CONTOURS = {
    'rise': 60 * 15 ** (TIME / 2),
    'fall': 900 / 15 ** (TIME / 2),
    'surprise': 300 * (838 / 300) ** (np.sin(np.pi * TIME / 2) ** 2),
    'fear': 650 * 2 ** (0.2 * np.sin(4 * np.pi * TIME)),
    'melody': 130 * 2 ** (0.4 * np.sin(2 * np.pi * TIME)),
} | {f'{hz} Hz': np.full(len(TIME), float(hz)) for hz in (62, 75, 97.3, 140, 333, 560, 700, 753.1, 838, 899)}


@pytest.mark.parametrize('name', CONTOURS)
@pytest.mark.parametrize('first, slope', [(1, 2), (1, 1), (2, 1), (1, 0.4)])
def test_a_known_contour(name, first, slope):
    "Also without the fundamental, and with overtones nearly as loud as it; noise at 20 dB."
    hz = CONTOURS[name]
    sound = harmonics(hz, first, slope=slope)
    noise = np.random.default_rng(1).normal(size=len(sound)) * sound.std() * 0.1
    off = semitones_off(sound + noise.astype(np.float32), hz)
    found = np.isfinite(off)
    assert found.mean() > 0.9
    assert (np.abs(off[found]) > 1).mean() < 0.02
    assert np.median(np.abs(off[found])) < 0.1


def test_the_octave_cost_matters(monkeypatch):
    "Without it a multiple of the period is as good as the period."
    hz = CONTOURS['700 Hz']
    assert np.abs(semitones_off(harmonics(hz), hz)).max() < 0.1
    monkeypatch.setattr(descriptors, 'OCTAVE', -0.001)
    assert (semitones_off(harmonics(hz), hz) < -11).mean() > 0.9


def test_the_path_matters(monkeypatch):
    "A frame in which every second period is weaker is pulled down an octave; its neighbours hold it."
    weaker = (TIME > 0.98) & (TIME < 1.02)
    sound = harmonics(200.0) * np.where(weaker, 1 + 0.35 * np.sign(np.sin(2 * np.pi * 100 * TIME)), 1)
    assert np.nanmax(np.abs(semitones_off(sound.astype(np.float32), 200))) < 1
    monkeypatch.setattr(descriptors, 'JUMP', 0)
    assert np.nanmin(semitones_off(sound.astype(np.float32), 200)) < -11


def test_creak():
    "Single pulses at 70 Hz whose distances differ by up to four per cent."
    rng = np.random.default_rng(0)
    pulses = np.cumsum(RATE / 70 * rng.uniform(0.96, 1.04, 140)).astype(int)
    sound = np.zeros(len(TIME))
    sound[pulses[pulses < len(sound)]] = 1
    decay = np.exp(-np.arange(200) / 40) * np.sin(2 * np.pi * 600 * np.arange(200) / RATE)
    track = pitch_track((0.3 * np.convolve(sound, decay)[: len(sound)]).astype(np.float32))
    assert np.isfinite(track).mean() > 0.8
    assert abs(12 * np.log2(np.nanmedian(track) / 70)) < 0.5
    assert (np.abs(12 * np.log2(track[np.isfinite(track)] / 70)) > 6).mean() < 0.05


@pytest.mark.parametrize('seed', range(3))
def test_noise_has_no_pitch(seed):
    noise = np.random.default_rng(seed).normal(size=RATE).astype(np.float32) * 0.1
    assert np.isnan(pitch_track(noise)).mean() > 0.95


def test_a_hiss_over_a_hum_is_not_voiced():
    "As an s in a room with a ventilator: what is periodic is a small share of the sound."
    rng = np.random.default_rng(0)
    hiss = np.diff(rng.normal(size=len(TIME) + 2), 2) * 0.05
    sound = hiss + 0.02 * np.sin(2 * np.pi * 100 * TIME)
    assert np.isnan(pitch_track(sound.astype(np.float32))).mean() > 0.95


@pytest.mark.parametrize('length', [0, 1, 2, 100, FRAME - 1, FRAME, FRAME + 1, FRAME + HOP, 801])
def test_every_length_has_as_many_pitches_as_frames(length):
    for sound in (np.zeros(length, np.float32), np.full(length, 0.3, np.float32), harmonics(300.0)[:length]):
        track = pitch_track(sound)
        assert len(track) == len(frames_of(sound))
        assert np.isnan(track).all() or abs(np.nanmedian(track) / 300 - 1) < 0.05


def test_silence_and_a_constant_have_no_pitch():
    for level in (0, 0.5, 1e-5):
        assert np.isnan(pitch_track(np.full(RATE, level, np.float32))).all()
    assert np.isnan(prosody(np.zeros(RATE, np.float32))[:3]).all()
    assert prosody(np.zeros(RATE, np.float32))[3] == 0


@pytest.mark.parametrize('broken', [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_spoils_its_frames_alone(broken):
    sound = harmonics(300.0)
    sound[RATE] = broken
    track = pitch_track(sound)
    spoilt = np.isnan(track)
    assert np.flatnonzero(spoilt).tolist() == list(range(96, 101))
    assert np.abs(12 * np.log2(track[~spoilt] / 300)).max() < 0.1
    assert np.isnan(pitch_track(np.full(RATE, broken, np.float32))).all()


def test_parts_do_not_show(monkeypatch):
    "Long sounds are looked at in parts."
    sound = harmonics(CONTOURS['melody'])
    whole = pitch_track(sound)
    monkeypatch.setattr(descriptors, '_BATCH', 7)
    np.testing.assert_allclose(pitch_track(sound), whole, rtol=1e-9)


def test_loudness_and_sign_do_not_matter():
    sound = harmonics(CONTOURS['melody'])
    for factor in (-1, 0.1, 4):
        np.testing.assert_allclose(pitch_track(sound * np.float32(factor)), pitch_track(sound), rtol=1e-4)


def test_names_are_what_they_were():
    "Adapters were trained on these, in this order."
    assert len(PROSODY) == 11
    assert PROSODY[:4] == ('pitch_mean', 'pitch_deviation', 'pitch_range', 'voiced_share')


# The odd rates and the container of TESS's files


@pytest.mark.parametrize('rate', [8000, 22050, 24414, 44100, 96000])
@pytest.mark.parametrize('form', ['WAV', 'AIFF'])
def test_resampling_keeps_the_pitch(rate, form):
    soundfile = pytest.importorskip('soundfile')
    t = np.arange(2 * rate) / rate
    angle = 2 * np.pi * 755.5 * t
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(angle) + 0.1 * np.sin(2 * angle), rate, format=form)
    sound = read_audio(buffer.getvalue())
    assert abs(len(sound) - 2 * RATE) < 20
    assert np.nanmedian(pitch_track(sound)) == pytest.approx(755.5, rel=5e-4)


@pytest.fixture
def tess(shared):
    folder = shared / 'data' / 'tess'
    if not folder.is_dir():
        required(f'no recordings of TESS at {folder}')
    return folder


def test_resampling_of_real_files(tess):
    "PyAV beside scipy: a usual file of 24,414 Hz, the one of 96,000 Hz, and an AIFF named wav."
    soundfile = pytest.importorskip('soundfile')
    rates = []
    for name in ('OAF_fear/OAF_food_fear', 'YAF_fear/YAF_neat_fear', 'YAF_pleasant_surprise/YAF_food_ps'):
        data = (tess / f'{name}.wav').read_bytes()
        samples, rate = soundfile.read(io.BytesIO(data))
        rates.append(rate)
        expected = resample_poly(samples, RATE, rate)
        sound = read_audio(data)[: len(expected)]
        assert np.corrcoef(sound, expected[: len(sound)])[0, 1] > 0.999
    assert rates[0] == 96_000
    assert set(rates[1:]) == {24_414}


def test_a_surprised_voice_above_800_hz(tess):
    "TESS's younger speaker says `food`: what is found is checked against the spectrum, where half of it has nothing."
    sound = read_audio((tess / 'YAF_pleasant_surprise' / 'YAF_food_ps.wav').read_bytes())
    track = pitch_track(sound)
    assert 800 < np.nanmax(track) < 860
    high = np.flatnonzero(track > 600)
    assert len(high) >= 10
    assert (np.diff(high) == 1).all()
    spectra = np.abs(np.fft.rfft(frames_of(sound)[high] * np.hanning(FRAME), 8 * FRAME)) ** 2
    for spectrum, hz in zip(spectra, track[high]):
        bins = np.round(hz * np.array([0.5, 1, 1.5]) * 8 * FRAME / RATE).astype(int)
        half, whole, between = spectrum[bins]
        assert max(half, between) < 0.1 * whole


def test_it_agrees_with_opensmile_there(tess):
    try:
        import opensmile
    except ImportError:
        required('openSMILE is not installed: pip install -e ".[features]"')
    sound = read_audio((tess / 'YAF_pleasant_surprise' / 'YAF_food_ps.wav').read_bytes())
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)
    theirs = smile.process_signal(sound, RATE)['F0semitoneFrom27.5Hz_sma3nz'].to_numpy()
    ours = 12 * np.log2(pitch_track(sound)[1:] / 27.5)  # Theirs are of windows that end 10 ms later
    both = np.isfinite(ours) & (theirs[: len(ours)] > 0)
    off = np.abs(ours[both] - theirs[: len(ours)][both])
    assert both.mean() > 0.5
    assert np.median(off) < 0.2
    assert (off > 6).mean() < 0.02
