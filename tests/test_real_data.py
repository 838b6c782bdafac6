"The adapters on the real annotation files, against counts made on them by other means."
import json
from collections import Counter
import pytest
from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.evaluation.metrics import similarity_accuracy
from omnisapiens_nb.evaluation.similarity import cosines, minilm


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    sources = {name: shared / "data" / name for name in ("meld", "mustard", "siq2", "cremad")}
    return curate(sources, tmp_path_factory.mktemp("real") / "atlas")


def lines(path): return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_no_row_is_lost(real):
    read = {key: c["read"] for key, c in real.counts.items()}
    assert read == dict(meld_emotion=13_708, meld_senti=13_708, mmsd=690, siq2=2_000 + 943 + 1_715, cremad=7_442)
    assert all(c["read"] == c["kept"] + c["rejected"] for c in real.counts.values())
    assert len(lines(real.folder / "rejected.jsonl")) == sum(c["rejected"] for c in real.counts.values())


def test_absent_media(real):
    assert real.counts["mmsd"]["text_only"] == real.counts["mmsd"]["kept"] == 690
    assert real.counts["cremad"]["kept"] == 0
    reasons = Counter(r["reason"].split(" is ")[1] for r in lines(real.folder / "rejected.jsonl") if r["dataset"] == "cremad" and "broken" not in r["reason"])
    assert list(reasons) == ["not in the folder, and the words alone do not carry the label"]


def test_only_the_span_without_length_and_missing_answers_are_rejected(real):
    rejected = [r for r in lines(real.folder / "rejected.jsonl") if r["dataset"] != "cremad"]
    assert Counter((r["dataset"], r["reason"].split(" at ")[0].split(";")[0]) for r in rejected) == {
        ("meld_emotion", "the span ends"): 1, ("meld_senti", "the span ends"): 1, ("siq2", "the answer is empty"): 1_715}


def test_ids_and_answers(real):
    atlases = [open_atlas(real.folder, split) for split in ("train", "validation", "test")]
    columns = [a.columns("id", "answer", "options", "task") for a in atlases]
    ids = [i for c in columns for i in c["id"]]
    assert len(ids) == len(set(ids)) == sum(c["kept"] for c in real.counts.values())
    assert all(a in o for c in columns for a, o, t in zip(c["answer"], c["options"], c["task"]) if t.endswith("_cls"))


def test_groups_stay_in_one_split(real):
    splits = {}
    for split in ("train", "validation", "test"):
        for group in open_atlas(real.folder, split).columns("group")["group"]: splits.setdefault(group, set()).add(split)
    assert max(map(len, splits.values())) == 1


def shared_text(real, left, right):
    "Rows of `left` whose text is in `right`."
    for e in real.leakage:
        if e["kind"] == "text":
            sides = {(e[s]["dataset"], e[s]["split"]): e[f"{s}_count"] for s in ("left", "right")}
            if sides.keys() == {left, right}: return sides[left]
    return 0


def test_known_leakage(real):
    in_train = sum(shared_text(real, ("mmsd", split), ("meld_emotion", "train")) for split in ("train", "validation", "test"))
    assert in_train == 161
    assert shared_text(real, ("meld_emotion", "test"), ("meld_emotion", "train")) == 25


def test_wrong_options_of_social_iq_rarely_pass_as_right(shared):
    rows = [r for r in lines(shared / "data" / "siq2" / "qa" / "qa_val.json")][:200]
    right, wrong = zip(*((r[f"a{r['answer_idx']}"], r[f"a{i}"]) for r in rows for i in range(4) if i != r["answer_idx"]))
    found = cosines(wrong, right, minilm())
    assert similarity_accuracy(found) < .05
    assert similarity_accuracy(found, .7) > 1/6
