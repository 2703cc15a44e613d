"""Authorities: what they allow, and each way in which one is refused."""

from __future__ import annotations

import base64
import itertools
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from telemetry.errors import AuthorityError
from telemetry.privacy.authority import BASIS_DIRECTIONS, Authority
from telemetry.privacy.revocation import check_not_revoked
from telemetry.privacy.signatures import sign_file
from telemetry.records import DIRECTIONS
from telemetry.settings import ASSETS

TEXT = """\
id = "ACD-2026/17"
basis = "agreement"
purpose = "analysis of attacks"
approver = "The Commission"
sensors = ["tokyo-1", "osaka-1"]
directions = ["out_in", "out_out"]
valid_from = 2026-04-01
valid_until = 2026-06-30
retention_days = 730
"""
NOW = datetime(2026, 5, 1, tzinfo=UTC)
SAMPLE = ASSETS / "data" / "samples" / "authority.toml"


def write(folder: Path, text: str = TEXT) -> Path:
    """Writes an authority file."""
    path = folder / "authority.toml"
    path.write_text(text)
    return path


def test_valid_authority(tmp_path: Path) -> None:
    authority = Authority.load(write(tmp_path))
    authority.check("osaka-1", NOW)
    assert authority.id == "ACD-2026/17"
    assert authority.allowed_mask == 1 | 4
    assert authority.terms.retention_days == 730
    assert not authority.signed
    assert len(authority.sha256) == 64


@pytest.mark.parametrize(
    ("directions", "mask"),
    [
        ('["out_in"]', 1),
        ('["in_out"]', 2),
        ('["out_out", "out_out"]', 4),
        ('["out_in", "in_out", "out_out"]', 7),
    ],
)
def test_mask_of_directions(tmp_path: Path, directions: str, mask: int) -> None:
    text = TEXT.replace('["out_in", "out_out"]', directions)
    assert Authority.load(write(tmp_path, text)).allowed_mask == mask


SUBSETS = [
    (basis, chosen)
    for basis in BASIS_DIRECTIONS
    for n in (1, 2, 3)
    for chosen in itertools.combinations(DIRECTIONS, n)
]


@pytest.mark.parametrize(("basis", "directions"), SUBSETS)
def test_a_basis_cannot_be_stretched_to_other_directions(
    tmp_path: Path, basis: str, directions: tuple[str, ...]
) -> None:
    """An approval under one provision must not open a direction that another one guards."""
    allowed = {
        "agreement": {"out_in", "in_out", "out_out"},
        "out_out_measure": {"out_out"},
        "specific_out_in": {"out_in"},
        "specific_in_out": {"in_out"},
    }[basis]
    text = TEXT.replace('"agreement"', f'"{basis}"')
    path = write(tmp_path, text.replace('["out_in", "out_out"]', str(list(directions))))
    if set(directions) <= allowed:
        assert Authority.load(path).allowed_mask
    else:
        with pytest.raises(AuthorityError, match=f"basis {basis} allows only directions"):
            Authority.load(path)


def test_further_purposes_are_off_unless_named(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="does not allow re_identification"):
        Authority.load(write(tmp_path)).require("re_identification")
    named = Authority.load(write(tmp_path, TEXT + 'further_purposes = ["re_identification"]\n'))
    named.require("re_identification")
    with pytest.raises(AuthorityError, match="does not allow unselected_records"):
        named.require("unselected_records")
    with pytest.raises(AuthorityError, match=r"wrong at further_purposes\.0"):
        Authority.load(write(tmp_path, TEXT + 'further_purposes = ["curiosity"]\n'))


def test_sample_authority_covers_samples_and_says_what_it_is() -> None:
    authority = Authority.load(SAMPLE)
    authority.check("sample", datetime.now(UTC))
    assert authority.allowed_mask == 7
    assert authority.terms.purpose == "evaluation"
    assert "without legal effect" in authority.terms.approver
    with pytest.raises(AuthorityError, match="does not cover sensor 'tokyo-1'"):
        authority.check("tokyo-1", NOW)


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        (datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC), "holds only from 2026-04-01T00:00:00Z"),
        (datetime(2026, 4, 1, tzinfo=UTC), None),
        (datetime(2026, 4, 1), None),
        (datetime(2026, 4, 1, 8, 59, tzinfo=timezone(timedelta(hours=9))), "holds only from"),
        (datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC), None),
        (datetime(2026, 7, 1, tzinfo=UTC), "ended at 2026-07-01T00:00:00Z"),
    ],
)
def test_window_is_in_utc_and_includes_its_last_day(
    tmp_path: Path, moment: datetime, error: str | None
) -> None:
    authority = Authority.load(write(tmp_path))
    if error is None:
        authority.check("tokyo-1", moment)
    else:
        with pytest.raises(AuthorityError, match=error):
            authority.check("tokyo-1", moment)


def test_window_of_time_stamps(tmp_path: Path) -> None:
    text = TEXT.replace("2026-06-30", "2026-05-01T09:00:00+09:00")
    authority = Authority.load(write(tmp_path, text))
    authority.check("tokyo-1", NOW - timedelta(seconds=1))
    with pytest.raises(AuthorityError, match="ended at 2026-05-01T00:00:00Z"):
        authority.check("tokyo-1", NOW)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("id = ", "name = ", "wrong at id: field required"),
        ("retention_days = 730\n", "retention_days = 730\nextra = 1\n", "wrong at extra: extra"),
        ("agreement", "curiosity", "wrong at basis: input should be 'agreement'"),
        ('out_out"]', 'in_in"]', "wrong at directions.1"),
        ('["out_in", "out_out"]', "[]", "wrong at directions"),
        ('["tokyo-1", "osaka-1"]', "[]", "wrong at sensors"),
        ('"tokyo-1"', '"Tokyo 1"', "wrong at sensors.0"),
        ("The Commission", " ", "wrong at approver"),
        ("730", "0", "wrong at retention_days"),
        ("730", "true", "wrong at retention_days"),
        ("730", '"730"', "wrong at retention_days"),
        ("2026-06-30", '"2026-06-30"', "valid_until: must be a TOML date"),
        ("2026-06-30", "20260630", "valid_until: must be a TOML date"),
        ("2026-06-30", "9999-12-31", "too far in the future"),
        ("2026-06-30", "2026-03-01", "valid_from must lie before valid_until"),
        ('purpose = "analysis', "purpose = analysis", "not valid TOML"),
    ],
)
def test_wrong_content_is_refused(tmp_path: Path, old: str, new: str, error: str) -> None:
    assert old in TEXT
    with pytest.raises(AuthorityError, match=error) as caught:
        Authority.load(write(tmp_path, TEXT.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="No such file"):
        Authority.load(tmp_path / "none.toml")
    path = tmp_path / "authority.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AuthorityError, match="not UTF-8"):
        Authority.load(path)


def test_signed_authority(tmp_path: Path, signer: tuple[Path, Path]) -> None:
    path = write(tmp_path)
    sign_file(path, signer[0])
    assert Authority.load(path, signer[1]).signed


def test_unsigned_authority_is_refused_when_signatures_are_asked_for(
    tmp_path: Path, signer: tuple[Path, Path]
) -> None:
    with pytest.raises(AuthorityError, match="is not signed"):
        Authority.load(write(tmp_path), signer[1])


def test_forged_signatures_are_refused(
    tmp_path: Path, signer: tuple[Path, Path], stranger: tuple[Path, Path]
) -> None:
    path = write(tmp_path)
    beside = sign_file(path, stranger[0])
    with pytest.raises(AuthorityError, match="not the overseer's"):
        Authority.load(path, signer[1])
    for junk in (b"", b"not base64!", base64.b64encode(bytes(64)), b"\xff"):
        beside.write_bytes(junk)
        with pytest.raises(AuthorityError, match="not the overseer's"):
            Authority.load(path, signer[1])


def test_signed_authority_that_was_edited_is_refused(
    tmp_path: Path, signer: tuple[Path, Path]
) -> None:
    path = write(tmp_path)
    sign_file(path, signer[0])
    path.write_text(TEXT.replace("730", "731"))
    with pytest.raises(AuthorityError, match="not the overseer's"):
        Authority.load(path, signer[1])


def test_overseers_key_that_cannot_be_used(tmp_path: Path, signer: tuple[Path, Path]) -> None:
    path = write(tmp_path)
    sign_file(path, signer[0])
    with pytest.raises(AuthorityError, match="Cannot read the public key"):
        Authority.load(path, tmp_path / "none.pub")
    with pytest.raises(AuthorityError, match="no Ed25519 public key"):
        Authority.load(path, signer[0])


# --- revocation ----------------------------------------------------------------------------------


def revoke(folder: Path, text: str) -> Path:
    """Writes a revocation list."""
    path = folder / "revocations.toml"
    path.write_text(text)
    return path


REVOKED = """\
[[revoked]]
id = "ACD-2025/1"
from = 2025-01-01
reason = "another one"

[[revoked]]
{which}
from = 2026-05-01T00:00:00Z
reason = "the agreement was ended"
"""


@pytest.mark.parametrize("by", ["id", "sha256", "both", "another file of the id", "another id"])
def test_a_revoked_authority_does_not_come_back(tmp_path: Path, by: str) -> None:
    authority = Authority.load(write(tmp_path))
    which = {
        "id": 'id = "ACD-2026/17"',
        "sha256": f'sha256 = "{authority.sha256}"',
        "both": f'id = "ACD-2026/17"\nsha256 = "{authority.sha256}"',
        "another file of the id": f'id = "ACD-2026/17"\nsha256 = "{"0" * 64}"',
        "another id": 'id = "ACD-2026/18"',
    }[by]
    path = revoke(tmp_path, REVOKED.format(which=which))
    check_not_revoked(authority, NOW - timedelta(seconds=1), path, None)
    if by.startswith("another"):
        check_not_revoked(authority, NOW, path, None)
        return
    for moment in (NOW, NOW + timedelta(days=3650)):
        with pytest.raises(AuthorityError, match="was revoked from 2026-05-01T00:00:00Z: the agre"):
            check_not_revoked(authority, moment, path, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[[revoked]]\nfrom = 2026-05-01\nreason = "x"\n', "name the authority by id, sha256"),
        ('[[revoked]]\nid = "x"\nreason = "x"\n', "wrong at revoked.0.from: field required"),
        ('[[revoked]]\nid = "x"\nfrom = 2026-05-01\n', "wrong at revoked.0.reason"),
        ('[[revoked]]\nsha256 = "AB"\nfrom = 2026-05-01\nreason = "x"\n', "revoked.0.sha256"),
        ('[[revokd]]\nid = "x"\n', "wrong at revokd: extra"),
        ("revoked = 1", "wrong at revoked"),
        ("?", "not valid TOML"),
    ],
)
def test_a_list_that_cannot_be_understood_covers_nothing(
    tmp_path: Path, text: str, error: str
) -> None:
    """Fail closed: nobody knows whether the authority stands in it."""
    with pytest.raises(AuthorityError, match=error):
        check_not_revoked(Authority.load(write(tmp_path)), NOW, revoke(tmp_path, text), None)


def test_a_list_that_is_gone_or_forged_covers_nothing(
    tmp_path: Path, signer: tuple[Path, Path], stranger: tuple[Path, Path]
) -> None:
    authority = Authority.load(write(tmp_path))
    with pytest.raises(AuthorityError, match="Cannot read the revocation list"):
        check_not_revoked(authority, NOW, tmp_path / "revocations.toml", None)
    path = revoke(tmp_path, "")
    with pytest.raises(AuthorityError, match="is not signed"):
        check_not_revoked(authority, NOW, path, signer[1])
    sign_file(path, stranger[0])
    with pytest.raises(AuthorityError, match="not the overseer's"):
        check_not_revoked(authority, NOW, path, signer[1])
    sign_file(path, signer[0])
    check_not_revoked(authority, NOW, path, signer[1])
    path.write_text("# emptied\n")
    with pytest.raises(AuthorityError, match="not the overseer's"):
        check_not_revoked(authority, NOW, path, signer[1])
