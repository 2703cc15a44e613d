"""STIX 2.1: a bundle for threat-intelligence platforms.

Each endpoint becomes an indicator that `indicates` an infrastructure, which
`consists-of` the address (OASIS STIX 2.1, 4.7, 4.8 and Appendix B). Ids are made from
the authority and the address: the next list updates the same objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import import_module
from ipaddress import ip_address
from types import ModuleType
from typing import Any, TextIO
from uuid import UUID, uuid5

from telemetry.lists.contract import ListEntry, ListHeader, reasons_text
from telemetry.records import Role, ScoredEndpoint

NAMESPACE = UUID("2de2ada2-c309-492e-bc0a-aa873f5516aa")
"""Parent of all ids made here; never to change, or every consumer sees new objects."""
BORN = datetime(2025, 5, 23, tzinfo=UTC)
"""Creation time of the producer's identity: fixed, the day Act 42 of 2025 was promulgated."""
INFRASTRUCTURE: dict[Role, str] = {
    "c2": "command-and-control",
    "scanner": "reconnaissance",
    "ddos": "botnet",
    "reflector": "amplification",
    "relay": "anonymization",
    "malware_download": "hosting-malware",
    "exfiltration": "exfiltration",
    "unknown": "unknown",
}
"""Role to infrastructure-type-ov (STIX 2.1, 10.9); the vocabulary has no word for the others."""


class Stix:
    """A STIX 2.1 bundle, one object a line, marked TLP:AMBER."""

    name = "stix"
    suffix = ".stix.json"

    def write(self, entries: Sequence[ListEntry], header: ListHeader, stream: TextIO) -> None:
        """Writes the list; see `ListFormat.write`."""
        # Late, since it takes half a second; by name, since it has no type hints.
        stix2 = import_module("stix2")
        producer = uuid5(NAMESPACE, f"identity:{header.authority}")
        seen = "\n".join(f"{e.scored.endpoint} {e.valid_until.isoformat()}" for e in entries)
        bundle = uuid5(producer, f"bundle:{seen}")
        stream.write(f'{{"type": "bundle", "id": "bundle--{bundle}", "objects": [\n')
        for number, item in enumerate(_objects(stix2, producer, entries, header)):
            stream.write((",\n" if number else "") + item.serialize())
        stream.write("\n]}\n")


def _objects(
    stix2: ModuleType, producer: UUID, entries: Sequence[ListEntry], header: ListHeader
) -> Iterator[Any]:
    yield stix2.TLP_AMBER
    yield stix2.Identity(
        id=f"identity--{producer}",
        name=f"Sekisho, authority {header.authority}",
        identity_class="system",
        created=BORN,
        modified=BORN,
        object_marking_refs=[stix2.TLP_AMBER],
    )
    for entry in entries:
        yield from _endpoint(stix2, producer, entry, header)


def _endpoint(
    stix2: ModuleType, producer: UUID, entry: ListEntry, header: ListHeader
) -> Iterator[Any]:
    scored = entry.scored
    # Times of a wrong clock are cut: STIX wants `valid_from` before `valid_until` (4.7), and
    # consumers would take no later list for newer than a `modified` in the future (3.6).
    now = header.made_at or datetime.max
    first, last = (min(t, now).replace(tzinfo=UTC) for t in (scored.first_seen, scored.last_seen))
    shared = {
        "created_by_ref": f"identity--{producer}",
        "created": _millisecond(first),
        "modified": _millisecond(last),
        "confidence": scored.confidence,
        "object_marking_refs": [stix2.TLP_AMBER],
    }

    def own_id(kind: str, what: str = "") -> str:
        return f"{kind}--{uuid5(producer, f'{kind}:{what}:{scored.endpoint}')}"

    six = ip_address(scored.endpoint).version == 6
    address = (stix2.IPv6Address if six else stix2.IPv4Address)(
        value=scored.endpoint, object_marking_refs=[stix2.TLP_AMBER]
    )
    indicator = stix2.Indicator(
        id=own_id("indicator"),
        name=f"{scored.role} {scored.endpoint}",
        description=_description(scored),
        indicator_types=["malicious-activity"],
        pattern=f"[{address.type}:value = '{scored.endpoint}']",
        pattern_type="stix",
        valid_from=first,
        valid_until=entry.valid_until.replace(tzinfo=UTC),
        labels=[scored.role],
        **shared,
    )
    kind = INFRASTRUCTURE.get(scored.role)
    infrastructure = stix2.Infrastructure(
        id=own_id("infrastructure"),
        name=f"{scored.role} {scored.endpoint}",
        infrastructure_types=[kind] if kind else None,
        first_seen=first,
        last_seen=last,
        labels=[scored.role],
        **shared,
    )
    yield address
    yield indicator
    yield infrastructure
    for source, verb, target in (
        (indicator, "indicates", infrastructure),
        (infrastructure, "consists-of", address),
    ):
        yield stix2.Relationship(
            id=own_id("relationship", verb),
            source_ref=source.id,
            relationship_type=verb,
            target_ref=target.id,
            **shared,
        )


def _millisecond(moment: datetime) -> datetime:
    """Cuts to the precision that STIX wants of `created` and `modified` (3.2)."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _description(scored: ScoredEndpoint) -> str:
    return f"Role {scored.role}, score {scored.score:.2f}: {reasons_text(scored)}"
