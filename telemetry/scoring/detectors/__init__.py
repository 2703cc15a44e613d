"""The detectors; one line here registers one."""

from __future__ import annotations

from telemetry.scoring.contract import Detector
from telemetry.scoring.detectors import (
    company,
    covert,
    delivery,
    download,
    flood,
    guessing,
    kin,
    knock,
    relay,
    retries,
    rhythm,
    scan,
    session,
    upload,
)

DETECTORS: tuple[Detector, ...] = (
    rhythm.DETECTOR,
    retries.DETECTOR,
    session.DETECTOR,
    kin.DETECTOR,
    covert.DETECTOR,
    company.TOOL_PORT,
    company.SIZES,
    company.ODD_PORT,
    company.FEW_HOSTS,
    company.FIRST_SEEN,
    scan.DETECTOR,
    knock.DETECTOR,
    guessing.DETECTOR,
    guessing.AT_MAIL,
    flood.REFLECTION,
    flood.FLOOD,
    relay.DETECTOR,
    delivery.DETECTOR,
    download.DETECTOR,
    upload.DETECTOR,
    upload.LOOT,
)
