"""Re-identification: from a host's pseudonym back to its address.

The key alone is not asked: a pseudonym is only turned back if records of the
lake have it, under the secrets of the months they are of, and if the network of
the address that comes out is the network that the same records name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast
from uuid import UUID

import numpy as np

from telemetry.errors import SettingsError
from telemetry.homeland import format_addresses
from telemetry.privacy.epochs import LINKED
from telemetry.privacy.keys import Keys, Scheme
from telemetry.privacy.pseudonyms import decrypt, encrypt, network

_PID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REASON = 200


def check_request(pid: str, reason: str) -> None:
    """Refuses what is no pseudonym, or no reason.

    Raises:
        SettingsError: One of them is not well-formed.
    """
    if _PID.fullmatch(pid) is None:
        raise SettingsError("A pseudonym is a UUID in lower case, as peer_pid holds it; give one.")
    if not 0 < len(reason.strip()) <= _REASON:
        raise SettingsError(f"Give a --reason, in at most {_REASON} characters.")


def reverse(
    keys: Keys, kind: str, pid: str, seen: Sequence[tuple[str, str]]
) -> tuple[str, str] | None:
    """Returns the address behind a pseudonym, and the epoch it is of.

    Args:
        keys: The lake's key.
        kind: The lake's kind of pseudonyms, such as "prefix, linked".
        pid: The pseudonym of a host.
        seen: Months of the records that have it, and their network's pseudonyms.

    Returns:
        None when no secret that lives gives an address.
    """
    name, _, linked = kind.partition(", ")
    scheme = cast(Scheme, name)
    block = np.frombuffer(UUID(pid).bytes, np.uint8).reshape(1, 16)
    for month, net in seen:
        epoch = LINKED if linked else month
        pairs = zip(
            keys.living(epoch, "host", scheme), keys.living(epoch, "network", scheme), strict=True
        )
        for host_key, net_key in pairs:
            hi, lo = decrypt(scheme, host_key, block)
            if encrypt(scheme, net_key, *network(hi, lo)).tobytes() == UUID(net).bytes:
                return str(format_addresses(hi, lo)[0].as_py()), epoch
    return None
