"""NEMEA's documented thresholds, for comparison: what a national network uses on the same records.

After the documentation of Nemea-Detectors (CESNET, 2023): a vertical scan is 50 ports of one
host, a horizontal one 50 hosts, password guessing 30 sessions with SSH, RDP or Telnet. Their
time-outs are left out, which finds more. A flood is told by its victim there, and names nobody.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from telemetry.scoring.scores import Scores

PORTS = HOSTS = 50
SESSIONS = 30
LOGINS = (22, 23, 3389)


def score(features: pa.Table) -> Scores:
    """Lists by thresholds.

    Args:
        features: Table of `endpoint_features`.

    Returns:
        Every endpoint, with a score of 1 where a threshold is reached, else of 0.
    """
    guesses = pc.and_(
        pc.greater_equal(features["login_sessions"], SESSIONS),
        pc.is_in(features["login_port"], pa.array(LOGINS, features["login_port"].type)),
    )
    scans = pc.or_(
        pc.greater_equal(features["most_ports_on_a_host"], PORTS),
        pc.greater_equal(features["widest_port_hosts"], HOSTS),
    )
    roles = pc.if_else(guesses, "bruteforce", "scanner")
    reached = pc.cast(pc.or_(guesses, scans), pa.float64())
    return Scores.by_method(features, reached.to_pylist(), roles.to_pylist(), 1.0)
