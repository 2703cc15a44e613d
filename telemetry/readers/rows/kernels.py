"""Compiled loops over columns of texts.

Text i of a column is `data[starts[i]:ends[i]]`. What a kernel cannot read is left to the
slower code in `numbers`.
"""

# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import numpy as np
from numba import njit

from telemetry.raw import UNKNOWN

_DAY_US = 86_400 * 1_000_000


@njit(cache=True, nogil=True)
def split(data, separator, quote, pad, slots, spare, starts, ends, whole):
    """Finds the fields of each line that is not blank; returns the number of lines.

    Args:
        data: Lines, each ended by a newline.
        separator: Byte between fields.
        quote: Byte around fields that may hold separators, or -1.
        pad: Byte that may stand before and after a text and is no part of it, or -1.
        slots: For each field its row in `starts` and `ends`, or -1.
        spare: How many of the last fields may be missing.
        starts: Written: where the field of a line starts, by slot and line.
        ends: Written: where it ends.
        whole: Written: whether the line has its number of fields.
    """
    line, field, start = 0, 0, 0
    for at in range(len(data)):
        byte = data[at]
        if byte != separator and byte != 10:
            continue
        first, end = start, at
        if byte == 10 and end > first and data[end - 1] == 13:
            end -= 1
        if quote >= 0 and first < at and data[first] == quote:
            if _closed(data, first + 1, end, quote):
                first += 1
                end -= 1
            elif byte != 10:
                continue
        if field < len(slots) and slots[field] >= 0:
            if pad >= 0:
                while first < end and data[first] == pad:
                    first += 1
                while first < end and data[end - 1] == pad:
                    end -= 1
            starts[slots[field], line] = first
            ends[slots[field], line] = end
        field += 1
        start = at + 1
        if byte == 10:
            if field > 1 or end > first:
                whole[line] = len(slots) - spare <= field <= len(slots)
                line += 1
            field = 0
    return line


@njit(cache=True, nogil=True)
def _closed(data, start, end, quote):
    """Returns whether a field without its first quote ends in one that is not doubled."""
    run = 0
    while end - run > start and data[end - run - 1] == quote:
        run += 1
    return run % 2 == 1


@njit(cache=True, nogil=True)
def part(data, starts, ends, byte):
    """Returns where each text holds a byte first, or -1."""
    places = np.full(len(starts), -1)
    for row in range(len(starts)):
        for at in range(starts[row], ends[row]):
            if data[at] == byte:
                places[row] = at
                break
    return places


@njit(cache=True, nogil=True)
def letters(data, starts, ends, unset, table, flags):
    """ORs what each letter stands for into `flags`; UNKNOWN where unset.

    Args:
        data: See above.
        starts: See above.
        ends: See above.
        unset: The text that stands for no value.
        table: Bits by letter, or -1 for a letter that must not occur.
        flags: Written.

    Returns:
        Texts with a letter that must not occur.
    """
    odd = np.zeros(len(starts), dtype=np.bool_)
    for row in range(len(starts)):
        if is_unset(data, starts[row], ends[row], unset):
            flags[row] = UNKNOWN
            continue
        bits = np.int64(0)
        for at in range(starts[row], ends[row]):
            value = table[data[at]]
            odd[row] |= value < 0
            bits |= value
        flags[row] = bits
    return odd


@njit(cache=True, nogil=True, inline="always")
def is_unset(data, start, end, unset):
    """Returns whether a text is empty or stands for no value."""
    if start == end:
        return True
    if end - start != len(unset):
        return False
    same = True
    for i in range(len(unset)):
        same &= data[start + i] == unset[i]
    return same


@njit(cache=True, nogil=True)
def decimals(data, starts, ends, unset, places, values):
    """Writes plain decimals times 10**places, rounded, half up; UNKNOWN where unset.

    Returns:
        Texts that are no plain decimal, or, when `places` is 0, no whole number.
    """
    odd = np.zeros(len(starts), dtype=np.bool_)
    for row in range(len(starts)):
        if is_unset(data, starts[row], ends[row], unset):
            values[row] = UNKNOWN
            continue
        value = np.int64(0)
        digits = 0
        after = -1  # decimals met; -1 before the point
        up = False
        for at in range(starts[row], ends[row]):
            digit = np.int64(data[at]) - 48
            if digit == -2 and after < 0 and digits > 0:
                after = 0
            elif digit < 0 or digit > 9:
                odd[row] = True
                break
            elif after < 0 or after < places:
                value = value * 10 + digit
                digits += 1
                if after >= 0:
                    after += 1
            else:
                up = up or bool(after == places and digit >= 5)
                odd[row] |= places == 0 and digit != 0
                after += 1
        after = max(after, 0)
        for _ in range(after, places):
            value *= 10
            digits += 1
        values[row] = value + (1 if up else 0)
        # 19 digits, for milliseconds with six places, may overflow to a negative number.
        odd[row] |= digits == 0 or digits > 19 or value < 0
    return odd


@njit(cache=True, nogil=True)
def hexadecimals(data, starts, ends, unset, prefixed, values):
    """Writes whole numbers of at most 15 hexadecimal digits; UNKNOWN where unset.

    Args:
        data: See above.
        starts: See above.
        ends: See above.
        unset: The text that stands for no value.
        prefixed: Whether `0x` must stand before them.
        values: Written.

    Returns:
        Texts that are none.
    """
    odd = np.zeros(len(starts), dtype=np.bool_)
    for row in range(len(starts)):
        start, end = starts[row], ends[row]
        if is_unset(data, start, end, unset):
            values[row] = UNKNOWN
            continue
        told = end - start > 2 and data[start] == 48 and data[start + 1] | 32 == 120
        if told:
            start += 2
        odd[row] = (prefixed and not told) or end - start > 15
        value = np.int64(0)
        for at in range(start, end if not odd[row] else start):
            digit = hex_digit(np.int64(data[at]))
            odd[row] |= digit < 0
            value = value * 16 + digit
        values[row] = UNKNOWN if odd[row] else value
    return odd


@njit(cache=True, nogil=True, inline="always")
def hex_digit(byte):
    """Returns the value of a hexadecimal digit, or -1."""
    if 48 <= byte <= 57:
        return byte - 48
    if 97 <= byte | 32 <= 102:
        return (byte | 32) - 87
    return -1


@njit(cache=True, nogil=True)
def moments(data, starts, ends, values):
    """Writes dates with times of day in microseconds since 1970; without a zone, UTC.

    They are `YYYY-MM-DD` or `YYYY/MM/DD`, one byte, and `HH:MM:SS`, with or without a fraction
    and a zone (`Z`, `+HH:MM`, `+HHMM`, `+HH`): ISO 8601, RFC 3339, and what flow tools write.
    Digits after the sixth of a fraction are cut off.

    Returns:
        Texts that are none, or of a day that no calendar has.
    """
    odd = np.ones(len(starts), dtype=np.bool_)
    for row in range(len(starts)):
        value = _moment(data, starts[row], ends[row])
        if value >= 0:
            values[row] = value
            odd[row] = False
    return odd


@njit(cache=True, nogil=True)
def _moment(data, start, end):
    if end - start < 19:
        return -1
    mark = data[start + 4]
    if (mark != 45 and mark != 47) or data[start + 7] != mark:
        return -1
    if data[start + 13] != 58 or data[start + 16] != 58:
        return -1
    between = data[start + 10] | 32
    if between != 116 and between != 32 and between != 46:  # T, blank; or Argus' point
        return -1
    year, month = _digits(data, start, 4), _digits(data, start + 5, 2)
    day, hour = _digits(data, start + 8, 2), _digits(data, start + 11, 2)
    minute, second = _digits(data, start + 14, 2), _digits(data, start + 17, 2)
    if min(year, month, day, hour, minute, second) < 0:
        return -1
    if not 1 <= month <= 12 or not 1 <= day <= _month_days(year, month):
        return -1
    if hour > 23 or minute > 59 or second > 60:
        return -1
    at = start + 19
    micros = np.int64(0)
    if at < end and (data[at] == 46 or data[at] == 44):
        at += 1
        unit, first = 100_000, at
        while at < end and 48 <= data[at] <= 57:
            micros += (np.int64(data[at]) - 48) * unit
            unit //= 10
            at += 1
        if at == first:
            return -1
    if at < end and data[at] == 32:
        at += 1
    zone = _zone(data, at, end)
    if zone == -86_400:
        return -1
    seconds = (hour * 60 + minute) * 60 + second - zone
    return _days(year, month, day) * _DAY_US + seconds * 1_000_000 + micros


@njit(cache=True, nogil=True, inline="always")
def _digits(data, at, count):
    """Returns a number of `count` digits, or -1."""
    value = np.int64(0)
    for i in range(count):
        digit = np.int64(data[at + i]) - 48
        if not 0 <= digit <= 9:
            return np.int64(-1)
        value = value * 10 + digit
    return value


@njit(cache=True, nogil=True)
def _zone(data, at, end):
    """Returns seconds east of UTC; -86,400 when it is no zone."""
    if at == end or (end - at == 1 and data[at] | 32 == 122):
        return 0
    if end - at == 3 and data[at] == 85 and data[at + 1] == 84 and data[at + 2] == 67:  # UTC
        return 0
    if data[at] != 43 and data[at] != 45:
        return -86_400
    colon = end - at == 6 and data[at + 3] == 58
    if end - at != 3 and end - at != 5 and not colon:
        return -86_400
    hours = _digits(data, at + 1, 2)
    minutes = 0 if end - at == 3 else _digits(data, end - 2, 2)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return -86_400
    seconds = (hours * 60 + minutes) * 60
    return -seconds if data[at] == 45 else seconds


@njit(cache=True, nogil=True, inline="always")
def _month_days(year, month):
    if month == 2:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return 29 if leap else 28
    return 30 if month in (4, 6, 9, 11) else 31


@njit(cache=True, nogil=True, inline="always")
def _days(year, month, day):
    """Returns days since 1970 of a Gregorian date; the year is counted from March."""
    year -= month <= 2
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719_468


@njit(cache=True, nogil=True)
def text_hash(data, start, end, folded):
    """Returns the 64-bit FNV-1a hash of a text, its ASCII capitals made small if `folded`."""
    value = np.uint64(0xCBF29CE484222325)
    for at in range(start, end):
        byte = np.uint64(data[at])
        if folded and 65 <= byte <= 90:
            byte |= np.uint64(32)
        value = (value ^ byte) * np.uint64(0x100000001B3)
    return value


@njit(cache=True, nogil=True)
def text_hashes(data, starts, ends, folded):
    """Returns the hash of each text."""
    hashes = np.empty(len(starts), dtype=np.uint64)
    for row in range(len(starts)):
        hashes[row] = text_hash(data, starts[row], ends[row], folded)
    return hashes


@njit(cache=True, nogil=True)
def addresses(data, starts, ends, hi, lo):
    """Writes the halves of each a.b.c.d or plain IPv6 address; returns which texts are one."""
    known = np.zeros(len(starts), dtype=np.bool_)
    groups = np.zeros(8, dtype=np.uint64)
    for row in range(len(starts)):
        value = _version4(data, starts[row], ends[row])
        if value >= 0:
            lo[row] = np.uint64(0xFFFF00000000 | value)
            known[row] = True
        elif _version6(data, starts[row], ends[row], groups):
            for i in range(4):
                hi[row] = hi[row] << np.uint64(16) | groups[i]
                lo[row] = lo[row] << np.uint64(16) | groups[i + 4]
            known[row] = True
    return known


@njit(cache=True, nogil=True)
def _version4(data, start, end):
    """Returns a.b.c.d without leading zeros as a number, or -1."""
    value, octet, dots = np.int64(0), np.int64(-1), 0  # octet -1: no digit yet
    if end - start > 15:
        return np.int64(-1)
    for at in range(start, end):
        digit = np.int64(data[at]) - 48
        if digit == -2 and octet >= 0:
            value = value * 256 + octet
            octet = np.int64(-1)
            dots += 1
        elif 0 <= digit <= 9 and octet != 0:
            octet = digit if octet < 0 else octet * 10 + digit
            if octet > 255:
                return np.int64(-1)
        else:
            return np.int64(-1)
    return value * 256 + octet if dots == 3 and octet >= 0 else np.int64(-1)


@njit(cache=True, nogil=True)
def _version6(data, start, end, groups):
    """Writes the eight groups of an address in hexadecimal; returns whether it is one."""
    groups[:] = 0
    count, gap, digits = 0, -1, 0
    for at in range(start, end):
        byte = np.int64(data[at])
        if byte == 58:
            if digits > 0:
                count += 1
            elif at > start and data[at - 1] == 58 and gap < 0:
                gap = count
            elif at > start or at + 1 == end or data[at + 1] != 58:
                return False
            digits = 0
            continue
        digit = hex_digit(byte)
        if digits == 4 or count == 8 or digit < 0:
            return False
        groups[count] = groups[count] << np.uint64(4) | np.uint64(digit)
        digits += 1
    if digits > 0:
        count += 1
    elif gap != count:
        return False
    if gap < 0:
        return count == 8
    if count == 8:
        return False
    for i in range(count - gap):
        groups[7 - i] = groups[count - 1 - i]
        groups[count - 1 - i] = 0
    return True
