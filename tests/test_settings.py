"""Settings: what wins over what, and that nothing misspelt is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from telemetry.errors import SettingsError
from telemetry.settings import STRICTNESS, Settings, load


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder and an environment without settings."""

    for name in [name for name in os.environ if name.upper().startswith("SEKISHO_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def toml(text: str, name: str = "sekisho.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def test_options_win_over_the_environment_and_that_over_the_file(monkeypatch):
    toml('lake = "from-file"\nsensor = "file"\nthreshold = 0.1\n')
    monkeypatch.setenv("SEKISHO_SENSOR", "environment")
    monkeypatch.setenv("SEKISHO_THRESHOLD", "0.2")
    settings = load(threshold=0.3, sensor=None)
    assert (settings.lake, settings.sensor, settings.threshold) == (
        Path("from-file"),
        "environment",
        0.3,
    )
    assert settings.list_days == Settings.model_fields["list_days"].default


def test_a_named_file_takes_the_place_of_the_one_in_the_folder():
    toml("threshold = 0.1\n")
    assert load(toml("threshold = 0.9\n", "other.toml")).threshold == 0.9
    assert load().threshold == 0.1


def test_every_setting_can_come_from_the_environment(monkeypatch):
    given = {
        "role": "auditor",
        "lake": "a",
        "country": "DE",
        "home": "192.0.2.0/24,2001:db8::/32",
        "homeland": "table.parquet",
        "home_policy": "majority",
        "sensor": "ix-1",
        "authority": "b.toml",
        "overseer_key": "c.pem",
        "revocations": "r.toml",
        "key_file": "d.key",
        "pseudonyms": "prefix",
        "link_epochs": "True",
        "reidentify_hours": "2",
        "ledger_key": "e.pem",
        "oversight": "o.toml",
        "memory": "2GB",
        "decoder": "dpkt",
        "captures": "exports",
        "mapping": "m.toml",
        "threshold": "0.5",
        "list_days": "7",
        "selection_rules": "s.toml",
        "quarantine_days": "9",
    }
    assert set(given) == set(Settings.model_fields)
    for name, value in given.items():
        monkeypatch.setenv(f"SEKISHO_{name.upper()}", value)
    settings = load()
    assert settings.home == ("192.0.2.0/24", "2001:db8::/32")
    assert {name: str(getattr(settings, name)) for name in given if name != "home"} == {
        name: value for name, value in given.items() if name != "home"
    }


@pytest.mark.parametrize("where", ["option", "file", "environment"])
def test_prefixes_alone_replace_the_country_wherever_they_stand(where, monkeypatch):
    prefix = "192.168.100.0/24"
    if where == "file":
        toml(f'home = ["{prefix}"]\n')
    elif where == "environment":
        monkeypatch.setenv("SEKISHO_HOME", prefix)
    settings = load(home=(prefix,) if where == "option" else None)
    assert (settings.country, settings.home) == (None, (prefix,))


def test_a_country_beside_prefixes_stays():
    assert load(home=("192.0.2.0/24",), country="JP").country == "JP"
    toml('home = ["192.0.2.0/24"]\ncountry = "JP"\n')
    assert load().country == "JP"


def test_without_anything_the_home_is_japan():
    assert (load().country, load().home) == ("JP", ())
    assert load(home=()).country == "JP"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('lkae = "x"\n', "lkae"),
        ("[lake]\nfolder = 1\n", "lake"),
        ("threshold = 2.0\n", "threshold"),
        ('threshold = "high"\n', "threshold"),
        ("list_days = 0\n", "list_days"),
        ('sensor = "No Spaces"\n', "sensor"),
        ('decoder = "tshark"\n', "decoder"),
        ("lake = \n", "not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(text, hint):
    with pytest.raises(SettingsError) as caught:
        load(toml(text))
    sentence = str(caught.value)
    assert hint in sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_a_file_of_other_bytes_is_refused():
    Path("bytes.toml").write_bytes(b"\xff\xfe\x00lake")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(Path("bytes.toml"))


def test_a_named_file_must_exist():
    with pytest.raises(SettingsError, match=r"No settings file at nowhere\.toml"):
        load(Path("nowhere.toml"))
    with pytest.raises(SettingsError, match="No settings file"):
        load(Path())


@pytest.mark.parametrize("name", ["SEKISHO_LKAE", "SEKISHO_", "SEKISHO_KEY"])
def test_a_misspelt_variable_is_refused(name, monkeypatch):
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError, match=name):
        load()


def test_the_corpus_of_the_tests_is_no_misspelt_variable(monkeypatch):
    monkeypatch.setenv("SEKISHO_CORPUS", "/anywhere")
    assert load().model_dump() == Settings().model_dump()


def test_a_wrong_value_in_the_environment_is_not_blamed_on_the_file(monkeypatch):
    monkeypatch.setenv("SEKISHO_LIST_DAYS", "many")
    with pytest.raises(SettingsError, match="'list_days'") as caught:
        load()
    assert "TOML" not in str(caught.value)


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        load().threshold = 0.0


@pytest.mark.parametrize(
    ("lake", "key"),
    [
        ("lake", "lake.key"),
        ("a/b.lake", "a/b.lake.key"),
        ("/srv/lake/", "/srv/lake.key"),
        ("lake/.", "lake.key"),
    ],
)
def test_the_key_lies_beside_the_lake(lake, key):
    assert load(lake=Path(lake)).key_path == Path(key)


@pytest.mark.parametrize("lake", [".", "..", "", "sub/.."])
def test_the_key_lies_beside_a_lake_without_a_name_of_its_own(lake, folder, monkeypatch):
    here = folder / "one" / "two"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    place = (here / lake).resolve()
    key = load(lake=Path(lake)).key_path.resolve()
    assert key == place.with_name(f"{place.name}.key")
    assert not key.is_relative_to(place)


def test_the_root_folder_is_no_lake():
    with pytest.raises(SettingsError, match="root folder"):
        _ = load(lake=Path("/")).key_path


def test_a_key_given_by_name_is_taken():
    assert load(key_file=Path("elsewhere.key")).key_path == Path("elsewhere.key")


@pytest.mark.parametrize("option", [None, "operator", "analyst", "auditor"])
@pytest.mark.parametrize("variable", [None, "operator", "analyst", "auditor"])
@pytest.mark.parametrize("file", [None, "operator", "analyst", "auditor"])
def test_no_source_raises_the_role_of_another(file, variable, option, monkeypatch):
    if file:
        toml(f'role = "{file}"\n')
    if variable:
        monkeypatch.setenv("SEKISHO_ROLE", variable)
    named = [role for role in (file, variable, option) if role]
    assert load(role=option).role == max(named, key=STRICTNESS.get, default="operator")


@pytest.mark.parametrize("wrong", ['"root"', "1", "[]", '["operator"]', "true"])
def test_a_role_that_is_none_is_refused_beside_a_good_one(wrong, monkeypatch):
    monkeypatch.setenv("SEKISHO_ROLE", "auditor")
    toml(f"role = {wrong}\n")
    with pytest.raises(SettingsError, match="'role'"):
        load(role="auditor")
