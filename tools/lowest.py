"The lowest versions that settings.ini allows, as constraints for pip: python tools/lowest.py > lowest.txt"

import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lowest() -> list[str]:
    "A line for each requirement that names a lowest version."
    parser = ConfigParser(delimiters=['='])
    parser.read(ROOT / 'settings.ini', encoding='utf-8')
    settings = parser['DEFAULT']
    requirements = [r for key in settings if key.endswith('requirements') for r in settings[key].split()]
    found = [re.match(r'([\w-]+)>=([\w.]+)', r) for r in requirements]
    return sorted({f'{m[1]}=={m[2]}' for m in found if m})


if __name__ == '__main__':
    sys.stdout.write('\n'.join(lowest()) + '\n')
