"""Why a packet or record is not kept: the closed list of reasons that are counted.

The numbers are used inside compiled kernels, the names in every report.
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Outcome of one packet or record; everything but KEPT drops it."""

    KEPT = 0
    DOMESTIC = 1  # neither end is foreign
    UNALLOCATED = 2  # an end lies in no registry's table: cannot be classed
    DIRECTION_NOT_ALLOWED = 3  # the authority does not cover this direction
    NOT_IP = 4  # ARP, spanning tree, link management…
    LINK_TYPE_UNSUPPORTED = 5  # the link layer is not read
    UNREADABLE_LINK = 6  # link header cut short or contradictory
    UNREADABLE_IP = 7  # IP header cut short or contradictory
    UNREADABLE_INNER = 8  # a tunnel whose inside cannot be read
    UNREADABLE_TRANSPORT = 9  # ports or type cut off by the snap length
    MALFORMED_ROW = 10  # a line of a log, or part of an export, that does not parse
    NO_ADDRESS = 11  # a record without two addresses
    BAD_TIME = 12  # a time outside the years 1970 to 9999
    SUPERSEDED = 13  # a snapshot of a connection that a later line of the source tells better
    NOT_AN_EXPORT = 14  # a packet among captured flow exports that carries none
    NO_TEMPLATE = 15  # exported data whose template never came
    ALERT = 16  # an alert: context for people, no evidence for a score
    NOT_A_RECORD = 17  # an item that tells of no traffic, or of it in another way

    @property
    def label(self) -> str:
        """The name used in reports, such as `not_ip`."""
        return self.name.lower()


DROPS: tuple[Reason, ...] = tuple(r for r in Reason if r is not Reason.KEPT)
