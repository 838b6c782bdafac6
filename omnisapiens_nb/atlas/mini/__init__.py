"""Synthetic sources in the original formats, one module per source; names that stood here in version 0.1.0 still lead on."""

from importlib import import_module

_PLACES = {
    '.behaviour': 'BEHAVIOUR WHO FRAMES EVENTS SURPRISE WELCOME UNWELCOME PRAISE BLAME SPEAKERS '
    'voice_cues face_cues voice face utterance remark',
    '.files': 'write_lines write_table write_file',
    '.meld': 'EMOTION_OF MELD_WEIGHTS write_meld',
    '.cremad': 'CREMAD_CODES write_cremad',
    '.siq2': 'FEELS HANDS SIQ2_QUESTIONS write_siq2',
    '.mustard': 'write_mustard',
    '.registry': 'write_mini TUTORIAL_WRITERS',
    '..sources.meld': 'MELD_COLUMNS MELD_FILES',
    '..sources.cremad': 'CREMAD_SENTENCES',
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names.split()}
_NAMED = {'WRITERS': 'TUTORIAL_WRITERS'}  # What another name has now


def __getattr__(name):
    "A name of version 0.1.0, from where it is now; nothing is imported before it is asked for."
    now = _NAMED.get(name, name)
    if now not in _PLACE_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_PLACE_OF[now], __name__), now)
