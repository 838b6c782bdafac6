"What media files are by their content: real and made ones, whole and broken, and lists that a decoder would follow."

import io

import av
import numpy as np
import pytest

from omnisapiens_nb.atlas import formats, media
from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.exchange import convert, jsonl_splits, read_jsonl
from omnisapiens_nb.atlas.formats import FORMATS, format_of
from omnisapiens_nb.atlas.media import MediaError, count_frames, has_sound, read_audio, read_image, write_mp4, write_wav


def tone(seconds=1.0):
    return (0.2 * np.sin(np.arange(int(16_000 * seconds)) / 9)).astype(np.float32)


def sound_in(container, codec, rate=24_414):
    "A second of a tone."
    buffer = io.BytesIO()
    samples = (8_000 * np.sin(np.arange(rate) / 9)).astype(np.int16)
    with av.open(buffer, 'w', format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout='mono')
        frame = av.AudioFrame.from_ndarray(samples[None], 's16', 'mono')
        frame.rate = rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def video():
    return write_mp4(np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8), tone())


def test_every_real_recording_is_known(shared):
    "Against FFmpeg's own guess."
    found = {}
    for path in sorted((shared / 'data').rglob('*')):
        if path.suffix in ('.wav', '.mpg', '.mp4'):
            data = path.read_bytes()
            with av.open(io.BytesIO(data)) as container:
                assert format_of(data).demuxer in container.format.name.split(',')
            if format_of(data).ending != path.suffix:
                found[path.name] = format_of(data).name
    assert found == {'YAF_germ_angry.wav': 'AIFF', 'YAF_neat_fear.wav': 'AIFF'}


def test_demuxers_are_those_of_ffmpeg():
    assert {format.demuxer for format in FORMATS} - {''} <= {
        name for all in av.formats_available for name in all.split(',')
    }
    assert len({format.ending for format in FORMATS}) == len(FORMATS)
    assert not {'concat', 'hls', 'sdp', 'dash', 'image2'} & {format.demuxer for format in FORMATS}


def aiff_of_tess(shared):
    (path,) = (shared / 'data' / 'tess').rglob('YAF_germ_angry.wav')
    return path.read_bytes()


@pytest.mark.parametrize('made', [True, False])
def test_a_broken_aiff_is_told(request, made):
    data = sound_in('aiff', 'pcm_s16be') if made else aiff_of_tess(request.getfixturevalue('shared'))
    assert format_of(data).name == 'AIFF'
    seconds = len(read_audio(data)) / 16_000
    assert 0.9 < seconds < 3
    for cut in (len(data) - 1, len(data) // 2, 60, 12):
        with pytest.raises(MediaError, match=f'truncated .{cut} of {len(data)} bytes'):
            read_audio(data[:cut])


def test_a_length_written_before_it_was_known():
    "As sox and FFmpeg leave it where they write into a pipe."
    for length in (b'\xff' * 4, (0x7FFFF024).to_bytes(4, 'little')):
        data = write_wav(tone())
        piped = data[:4] + length + data[8:40] + length + data[44:]
        assert len(read_audio(piped)) == 16_000


LISTS = {
    'ffconcat': "ffconcat version 1.0\nfile 'secret.mp4'\n",
    'concat': "file 'secret.mp4'\n",
    'hls': '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n',
    'sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n',
    'html': '<!DOCTYPE html><title>Sorry</title>',
    'srt': '1\n00:00:01,000 --> 00:00:02,000\nhello\n',
}


@pytest.mark.parametrize('name', LISTS)
def test_no_decoder_sees_a_list(name, tmp_path, monkeypatch):
    (tmp_path / 'secret.mp4').write_bytes(video())
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr(av, 'open', lambda *args, **kwargs: opened.append(args))
    data = LISTS[name].encode()
    for marked in (data, b'\xef\xbb\xbf' + data, b'\n' + data):
        for read in (count_frames, has_sound, read_audio, read_image):
            with pytest.raises(MediaError, match='no sound, video or picture known here begins with'):
                read(marked)
    assert not opened


def test_the_format_is_told_and_not_guessed(monkeypatch):
    asked = []
    clip = video()
    plain = av.open
    monkeypatch.setattr(av, 'open', lambda *args, **kwargs: asked.append(kwargs['format']) or plain(*args, **kwargs))
    count_frames(clip)
    read_audio(write_wav(tone(), 8_000))
    assert set(asked[: asked.index('wav')]) == {'mov'} and set(asked[asked.index('wav') :]) == {'wav'}


def test_a_wav_as_we_write_it_needs_no_decoder(monkeypatch):
    "Whole numbers of 16 bits at one rate; the samples are those of FFmpeg, and any other head is left to it."
    rng = np.random.default_rng(0)
    sounds = [rng.integers(-(1 << 15), 1 << 15, size) / (1 << 15) for size in (1, 2, 999, 70_000)]
    files = [write_wav(sound) for sound in sounds]
    decoded = [media._resampled(file, media.RATE)[0] for file in files]
    monkeypatch.setattr(media, '_resampled', None)
    for sound, file, theirs in zip(sounds, files, decoded, strict=True):
        ours = read_audio(file)
        assert ours.dtype == theirs.dtype == np.float32 and ours.flags.writeable
        assert np.array_equal(ours, theirs) and np.array_equal(ours, sound.astype(np.float32))
    for place in range(44):
        changed = bytearray(files[2])
        changed[place] ^= 1
        assert not media._is_as_written(bytes(changed), media.RATE), place


def test_avi_is_no_wav():
    avi = b'RIFF' + (4).to_bytes(4, 'little') + b'AVI '
    assert format_of(avi).ending == '.avi'
    assert format_of(avi[:8] + b'WAVE').ending == '.wav'
    assert format_of(avi[:8] + b'CDDA') is None


def test_mpeg_sound_is_told_by_two_frames():
    data = sound_in('mp3', 'libmp3lame', 16_000)
    bare = formats._without_id3(data)
    assert data != bare and format_of(bare).ending == format_of(data).ending == '.mp3'
    assert format_of(bare[:100] + b'\x00' * 4_000) is None  # One frame and no other
    assert len(read_audio(bare)) > 15_000


def test_converted_files_have_their_true_endings(tmp_path):
    "One clip of each kind under the name of a wav."
    folder = tmp_path / 'cremad'
    kinds = dict(ANG=('wav', 'pcm_s16le'), DIS=('aiff', 'pcm_s16be'), FEA=('flac', 'flac'), HAP=('adts', 'aac'))
    (folder / 'AudioWAV').mkdir(parents=True)
    lines = ['Stimulus_Number,Filename']
    for number, (emotion, (container, codec)) in enumerate(kinds.items(), 1):
        name = f'1001_DFA_{emotion}_XX'
        lines.append(f'{number},{name}')
        (folder / 'AudioWAV' / f'{name}.wav').write_bytes(sound_in(container, codec, 16_000))
    (folder / 'SentenceFilenames.csv').write_text('\n'.join(lines) + '\n')
    atlas = curate(dict(cremad=folder), tmp_path / 'atlas').folder
    convert(atlas, tmp_path / 'paths')
    rows = [row for file in jsonl_splits(tmp_path / 'paths').values() for row in read_jsonl(file)]
    assert len(rows) == 4
    endings = sorted(path.suffix for path in (tmp_path / 'paths' / 'media').iterdir())
    assert endings == ['.aac', '.aiff', '.flac', '.wav']
