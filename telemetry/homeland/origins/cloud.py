"""Clouds' own lists of prefixes by region: Amazon, Google, Microsoft.

A prefix counts for the country in which its region lies. A region that is not in
the table, or one that spans countries (`global`), says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from telemetry.homeland.origins.claims import Origin
from telemetry.homeland.ranges import NOT_STATED


class _Listed(NamedTuple):
    prefix: str
    region: str
    zone: str


def recognises(content: bytes) -> bool:
    """Returns whether this is JSON, so that it must be such a list."""
    return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def read(content: bytes) -> Origin:
    """Reads such a list.

    Raises:
        ValueError: It is not JSON, or not one of the three shapes.
    """
    try:
        data = json.loads(content.decode("utf-8-sig"))
        name, day, prefixes, regions = _shape(data)
        origin = Origin("cloud", name, day)
        for prefix, region, zone in prefixes:
            origin.add_network(prefix, _ABROAD.get(zone) or regions.get(region, ""))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ValueError("it is no list of Amazon, Google or Microsoft that is known") from None
    return origin


def _shape(data: dict[str, Any]) -> tuple[str, str, Iterator[_Listed], dict[str, str]]:
    if "createDate" in data:
        return "aws", _day(data["createDate"]), _amazon(data), _AMAZON
    if "creationTime" in data:
        return "gcp", _day(data["creationTime"]), _google(data), _GOOGLE
    if "changeNumber" in data:
        return "azure", NOT_STATED, _microsoft(data), _MICROSOFT
    raise ValueError


def _amazon(data: dict[str, Any]) -> Iterator[_Listed]:
    for row in data["prefixes"]:
        yield _Listed(row["ip_prefix"], row["region"], row.get("network_border_group", ""))
    for row in data["ipv6_prefixes"]:
        yield _Listed(row["ipv6_prefix"], row["region"], row.get("network_border_group", ""))


def _google(data: dict[str, Any]) -> Iterator[_Listed]:
    for row in data["prefixes"]:
        yield _Listed(row.get("ipv4Prefix") or row["ipv6Prefix"], row.get("scope", ""), "")


def _microsoft(data: dict[str, Any]) -> Iterator[_Listed]:
    for value in data["values"]:
        about = value["properties"]
        for prefix in about["addressPrefixes"]:
            yield _Listed(prefix, about["region"].lower(), "")


def _day(text: str) -> str:
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)", text)
    return "-".join(found.groups()) if found else NOT_STATED


def _regions(text: str) -> dict[str, str]:
    lines = (line.split() for line in text.strip().splitlines())
    return {region: country for country, *regions in lines for region in regions}


_AMAZON: Final = _regions("""
AE me-central-1
AU ap-southeast-2 ap-southeast-4
BH me-south-1
BR sa-east-1
CA ca-central-1 ca-west-1
CH eu-central-2
CN cn-north-1 cn-northwest-1
DE eu-central-1 eusc-de-east-1
ES eu-south-2
FR eu-west-3
GB eu-west-2
HK ap-east-1
ID ap-southeast-3
IE eu-west-1
IL il-central-1
IN ap-south-1 ap-south-2
IT eu-south-1
JP ap-northeast-1 ap-northeast-3
KR ap-northeast-2
MX mx-central-1
MY ap-southeast-5
NZ ap-southeast-6
SE eu-north-1
SG ap-southeast-1
TH ap-southeast-7
TW ap-east-2
US us-east-1 us-east-2 us-west-1 us-west-2 us-gov-east-1 us-gov-west-1
ZA af-south-1
""")
"""Amazon's regions by country (AWS documentation, "AWS Regions")."""

_ABROAD: Final = _regions("""
AR us-east-1-bue-1
CL us-east-1-scl-1
DK eu-north-1-cph-1
FI eu-north-1-hel-1
MA eu-west-3-cmn-1
MX us-east-1-qro-1
NG af-south-1-los-1
NZ ap-southeast-2-akl-1
OM me-south-1-mct-1
PE us-east-1-lim-1
PH ap-southeast-1-mnl-1
PL eu-central-1-waw-1
SN eu-west-3-wl1-dkr-wlz-1
TH ap-southeast-1-bkk-1
TW ap-northeast-1-tpe-1
VN ap-southeast-1-han-1
""")
"""Amazon's local zones that lie in another country than their region."""

_GOOGLE: Final = _regions("""
AU australia-southeast1 australia-southeast2
BE europe-west1
BR southamerica-east1
CA northamerica-northeast1 northamerica-northeast2
CH europe-west6
CL southamerica-west1
DE europe-west3 europe-west10
ES europe-southwest1
FI europe-north1
FR europe-west9
GB europe-west2
HK asia-east2
ID asia-southeast2
IL me-west1
IN asia-south1 asia-south2
IT europe-west8 europe-west12
JP asia-northeast1 asia-northeast2
KR asia-northeast3
MX northamerica-south1
NL europe-west4
PL europe-central2
QA me-central1
SA me-central2
SE europe-north2
SG asia-southeast1
TH asia-southeast3
TW asia-east1
US us-central1 us-central2 us-east1 us-east4 us-east5 us-east7 us-south1 us-west1 us-west2 us-west3 us-west4 us-west8
ZA africa-south1
""")  # noqa: E501
"""Google's regions by country (Google Cloud documentation, "Regions and zones")."""

_MICROSOFT: Final = _regions("""
AE uaecentral uaenorth
AT austriaeast
AU australiacentral australiacentral2 australiaeast australiasoutheast
BE belgiumcentral
BR brazilsouth brazilsoutheast
CA canadacentral canadaeast
CH switzerlandn switzerlandnorth switzerlandw switzerlandwest
CL chilec chilecentral
CN chinaeast chinaeast2 chinaeast3 chinanorth chinanorth2 chinanorth3
DE germanyn germanynorth germanywc germanywestcentral
DK denmarkeast
ES spaincentral
FR centralfrance francecentral francesouth southfrance
GB uknorth uksouth uksouth2 ukwest
HK eastasia
ID indonesiacentral
IE northeurope
IL israelcentral israelnorthwest
IN centralindia jioindiacentral jioindiawest southindia westindia
IT italynorth
JP japaneast japanwest
KR koreacentral koreasouth
MX mexicocentral
MY malaysiasouth malaysiawest
NL westeurope
NO norwaye norwayeast norwayw norwaywest
NZ newzealandnorth
PL polandcentral
QA qatarcentral
SE swedencentral swedensouth
SG southeastasia
TW taiwannorth taiwannorthwest
US centralus centraluseuap eastus eastus2 eastus2euap northcentralus southcentralus usstagec usstagee westcentralus westus westus2 westus3 usgovarizona usgoviowa usgovtexas usgovvirginia
ZA southafricanorth southafricawest
""")  # noqa: E501
"""Microsoft's regions by country (Azure documentation, "Azure regions list")."""
