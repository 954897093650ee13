# SPDX-License-Identifier: Apache-2.0
"""The federation file: what is accepted, and that each mistake is answered with line, allowed values and example."""

import hashlib
import os
from pathlib import Path

import pytest

from identity.errors import UsageError
from ops.federation_file import Fault, compare, load, locate, site_names
from tests.ops.federation_files import GOOD, refusal, write


def test_a_dozen_lines_are_enough(tmp_path: Path) -> None:
    file = load(write(tmp_path, GOOD))
    assert (file.name, file.task) == ("breast-cancer", "breast-cancer")
    assert (file.sites, file.rounds, file.seed, file.workers) == (10, 5, 0, None)
    assert file.faults == (Fault("tamper", "site-03", 2), Fault("drop", "site-07", 3), Fault("drop", "site-08", 3))
    assert file.digest == hashlib.sha256(GOOD.encode()).hexdigest()
    terms = file.agreement
    assert (terms.min_participants, terms.commit_seconds, terms.deliver_seconds, terms.record_seconds) == (
        6,
        60,
        30,
        60,
    )
    assert (terms.attempts, terms.optimiser, dict(terms.parameters)) == (3, "avg", {"learning_rate": "1"})
    assert (terms.share_metrics, terms.attest_next_open, terms.attest_release) == (True, 0, 0)
    assert (terms.validity_days, terms.retention_days) == (30, 3650)
    assert all((terms.title, terms.data_categories, terms.model_users))
    assert file.task_file is None


def test_every_key_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "my_task.py").touch()
    text = """
name = "x"
task = "my_task.py:Task"
sites = 120
rounds = 7
seed = 9007199254740991
workers = 4
[agreement]
title = "T"
purpose = '''
Many
  lines'''
data_categories = "one"
legal_basis = "L"
commit_seconds = 1
deliver_seconds = 2
record_seconds = 3
attempts = 4
max_weight = 5
optimiser = "adam"
learning_rate = 0.10
beta1 = "0.95"
share_metrics = false
attestations = { next_open = 1, release = 2 }
validity_days = 6
retention_days = 7
model_users = ["a", "b"]
"""
    file = load(write(tmp_path, text))
    terms = file.agreement
    assert file.task_file == tmp_path / "my_task.py"
    assert terms.purpose == "Many lines"
    assert dict(terms.parameters) == {"learning_rate": "0.1", "beta1": "0.95", "beta2": "0.99", "tau": "0.001"}
    assert (terms.attest_next_open, terms.attest_release, terms.min_participants) == (1, 2, 61)
    assert (terms.data_categories, terms.model_users, terms.share_metrics) == (("one",), ("a", "b"), False)
    assert (file.site_names[0], file.site_names[-1], len(file.site_names)) == ("site-001", "site-120", 120)


def test_sites_have_at_least_two_digits() -> None:
    assert site_names(3) == ("site-01", "site-02", "site-03")
    assert site_names(100)[0] == "site-001"


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "says"),
    [
        ("rounds = 5", "round = 5", "file-unknown-key", 4, "did you mean rounds?"),
        ("[agreement]", "[agrement]", "file-unknown-key", 6, "did you mean [agreement]?"),
        ("[simulate]", "[simulat]", "file-unknown-key", 11, "did you mean [simulate]?"),
        ("min_participants = 6", "workers = 2", "file-unknown-key", 9, "belongs at the top of the file"),
        ("min_participants = 6", "next_open = 1", "file-unknown-key", 9, "belongs in [agreement.attestations]"),
        ("purpose =", "pupose =", "file-unknown-key", 7, "did you mean purpose?"),
        ("tamper =", "temper =", "file-unknown-key", 12, "did you mean tamper?"),
        ('legal_basis = "Public data"\n', "", "file-missing-key", 6, "legal_basis is missing"),
        ('purpose = "Tell benign from malignant"\n', "", "file-missing-key", 6, "purpose is missing"),
        ('name = "breast-cancer"\n', "", "file-missing-key", 1, "name is missing"),
        ('name = "breast-cancer"', 'name = "../up"', "file-value", 1, "'../up'"),
        ("sites = 10", 'sites = "ten"', "file-value", 3, "is text, not a whole number"),
        ("sites = 10", "sites = 10.0", "file-value", 3, "not a whole number"),
        ("sites = 10", "sites = true", "file-value", 3, "not a whole number"),
        ("sites = 10", "sites = 0", "file-value", 3, "from 1 to 10000"),
        ("sites = 10", "sites = 5", "file-value", 9, "more than the 5 sites"),
        ("rounds = 5", "rounds = 2", "file-fault", 13, "there is no round 3"),
        ('task = "breast-cancer"', 'task = "breast-cancr"', "file-value", 2, 'did you mean "breast-cancer"?'),
        ('task = "breast-cancer"', "task = 1", "file-value", 2, "is a number, not text"),
        ("min_participants = 6", "min_participants = 11", "file-value", 9, "more than the 10 sites"),
        ("min_participants = 6", "attestations.release = 11", "file-value", 9, "more than the 10 sites"),
        ("min_participants = 6", "attestations.relase = 1", "file-unknown-key", 9, "did you mean release?"),
        ("min_participants = 6", "attestations = 1", "file-type", 9, "not a table"),
        ("min_participants = 6", "beta1 = 0.5", "file-value", 9, "no parameter of the optimiser avg"),
        ("min_participants = 6", 'optimiser = "sgd"', "file-value", 9, "avg, avgm, adam, yogi"),
        ("min_participants = 6", "learning_rate = nan", "file-value", 9, "is not from"),
        ("min_participants = 6", "learning_rate = inf", "file-value", 9, "is not from"),
        ("min_participants = 6", "learning_rate = 1e-999999999", "file-value", 9, "is not from"),
        ("min_participants = 6", "learning_rate = true", "file-value", 9, "not a number"),
        ("min_participants = 6", "share_metrics = 1", "file-value", 9, "not true or false"),
        ("min_participants = 6", 'title = "a\\u001b[31mb"', "file-value", 9, "control characters"),
        ("min_participants = 6", "model_users = []", "file-value", 9, "1 to 100 texts"),
        ("min_participants = 6", "model_users = [1]", "file-value", 9, "not text"),
        ("site-03@2", "site-3@2", "file-fault", 12, "did you mean site-03?"),
        ("site-03@2", "site-11@2", "file-fault", 12, "no site site-11"),
        ("site-03@2", "site-03", "file-fault", 12, "is not SITE@ROUND"),
        ("site-03@2", "site-07@3", "file-fault", 13, "named before, for tamper"),
        ('"site-03@2"', "3", "file-value", 12, "not SITE@ROUND"),
        ("sites = 10", "sites = 10\nsites = 10", "file-syntax", 4, "not TOML"),
        ("sites = 10", "sites = ", "file-syntax", 3, "not TOML"),
        ("sites = 10", "sites = " + "9" * 5000, "file-syntax", 14, "not TOML"),
        ("sites = 10", "x = " + "[" * 3000, "file-syntax", 1, "nested too deeply"),
    ],
)  # fmt: skip
def test_each_mistake_is_shown(tmp_path: Path, old: str, new: str, code: str, *, line: int, says: str) -> None:
    assert old in GOOD
    error = refusal(tmp_path, GOOD.replace(old, new))
    first, allowed, example = error.message.split("\n")
    assert error.code == code
    assert first.startswith(f"{tmp_path / 'federation.toml'}:{line}: ")
    assert says in error.message
    assert allowed.startswith("allowed: ")
    assert example.startswith("example: ")


@pytest.mark.parametrize(
    "text",
    [
        'agreement = { purpose = "p", legal_basis = "l", min_participants = 11 }',
        'agreement.purpose = "p"\nagreement.legal_basis = "l"\nagreement.min_participants = 11',
        '"agreement"."purpose" = "min_participants = 3"\nagreement.legal_basis = """\n\nmin_participants = 1"""\n'
        "agreement.min_participants = 11",
    ],
)
def test_the_line_is_right_however_the_table_is_written(tmp_path: Path, text: str) -> None:
    text = f'name = "x"\ntask = "digits"\nsites = 10\nrounds = 1\n{text}\n'
    assert f":{text.count(chr(10))}: " in refusal(tmp_path, text).message


def test_a_value_over_many_lines_is_shown_where_it_begins(tmp_path: Path) -> None:
    text = GOOD.replace("min_participants = 6", 'model_users = [\n  "a",\n  1,\n]')
    assert ":9: " in refusal(tmp_path, text).message


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xfe", "file-not-utf8"),
        (b"name = 'x'\n\xe9", "file-not-utf8"),
        (bytes(range(256)) * 8, "file-not-utf8"),
        (b"PK\x03\x04\0\0", "file-syntax"),
        (b"#" * 70_000, "file-too-large"),
        (b"", "file-missing-key"),
    ],
)
def test_a_file_that_is_not_one(tmp_path: Path, data: bytes, code: str) -> None:
    assert refusal(tmp_path, data).code == code


def test_a_path_that_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, code in [(tmp_path, "file-not-regular"), (tmp_path / "pipe", "file-not-regular"),
                       (tmp_path / "absent", "file-missing"), (tmp_path / "x" / "y", "file-missing"),
                       (Path("nul\0"), "file-unreadable"), (Path("n" * 5000), "file-unreadable")]:  # fmt: skip
        with pytest.raises(UsageError) as caught:
            load(path)
        assert caught.value.code == code, path


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = load(write(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()))
    assert file.sites == 10
    assert ":3: " in refusal(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").replace("10", "0").encode()).message


def test_compare_says_what_changed(tmp_path: Path) -> None:
    old = load(write(tmp_path, GOOD))
    assert compare(old, load(write(tmp_path, "# a comment\nworkers = 2\n" + GOOD))) == []
    new = load(
        write(tmp_path, GOOD.replace("= 6", "= 5").replace("rounds = 5", "rounds = 6").replace('"site-03@2"', "[]"))
    )
    assert compare(old, new) == [
        "rounds: 5 -> 6",
        "agreement.min_participants: 6 -> 5",
        "faults: tamper site-03@2, drop site-07@3, drop site-08@3 -> drop site-07@3, drop site-08@3",
    ]


def test_a_copy_in_a_run_folder_needs_no_task_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('task = "breast-cancer"', 'task = "mine.py:Task"'))
    assert load(path).task == "mine.py:Task"


def test_the_demonstration_is_shipped_and_sound() -> None:
    file = load(locate("demo"))
    assert (file.sites, file.rounds, file.task) == (10, 5, "breast-cancer")
    assert {f.kind for f in file.faults} == {"tamper", "drop"}


def test_locate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("other") == Path("other")
    (tmp_path / "demo").mkdir()
    assert locate("demo") == Path("demo")
    (tmp_path / "demo" / "federation.toml").touch()
    assert locate("demo") == Path("demo/federation.toml")
