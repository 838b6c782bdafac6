"Measure prose of notebooks: python prose.py NB…"
import json, re, sys
def prose(path):
    cells = json.load(open(path))['cells']
    text = '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    text = re.sub(r'```.*?```', ' ', text, flags=re.S)
    text = re.sub(r'\$\$.*?\$\$', ' ', text, flags=re.S)
    text = re.sub(r'\$[^$\n]*\$', 'x', text)
    text = re.sub(r'^\s*\|.*$', ' ', text, flags=re.M)
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', text)
    text = re.sub(r'`([^`]*)`', 'x', text)
    text = re.sub(r'^#+ .*$', ' ', text, flags=re.M)
    return text
tot = [0, 0, 0, 0]
for p in sys.argv[1:]:
    t = prose(p)
    parts = [s for para in re.split(r'\n\s*\n|\n\s*[-*] |\n\d+\. ', t) for s in re.split(r'(?<=[.!?:])\s+(?=[A-Z"*(])', para.strip()) if re.search(r'\w', s)]
    lengths = [len(re.findall(r"[\w'’]+", s)) for s in parts]
    words = sum(lengths)
    you = len(re.findall(r"\b(you|your|yours|we|our|ours|us|let['’]s)\b", t, re.I))
    strict = len(re.findall(r"\b(you|we|let['’]s)\b", t, re.I))
    over = sum(n > 30 for n in lengths)
    tot = [tot[0] + words, tot[1] + strict, tot[2] + len(lengths), tot[3] + over]
    print(f'{p}: {words} words, you/we {1000*strict/max(words,1):.1f} per 1000, {words/max(len(lengths),1):.1f} words a sentence, {100*over/max(len(lengths),1):.0f} % over 30')
if len(sys.argv) > 2:
    w, y, n, o = tot
    print(f'all: {w} words, {1000*y/w:.1f} per 1000, {w/n:.1f} words a sentence, {100*o/n:.0f} % over 30')
