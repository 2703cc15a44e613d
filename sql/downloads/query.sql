-- Ten minutes: droppers start what they fetch at once, and its first calls come within its own
-- interval. Who reads pages fetches from many places in that time, and none stands out.
WITH followed AS (
    SELECT
        f.endpoint_ip,
        f.peer,
        f.service_port,
        f.endpoint_bytes AS bytes,
        epoch_us(b.first_seen - f.first_seen) / 1e6 AS before_s,
        b.regularity,
        b.service_kind AS beat_kind,
        b.median_s AS beat_median_s,
        count(DISTINCT f.endpoint_ip) OVER (PARTITION BY b.peer, b.endpoint_ip) AS fetches
    FROM called AS f
    JOIN called AS b
        ON b.peer = f.peer AND b.endpoint_ip <> f.endpoint_ip
        AND b.first_seen BETWEEN f.first_seen AND f.first_seen + INTERVAL 10 MINUTE
    WHERE f.is_fetch AND b.is_beacon
)
SELECT *
FROM followed
QUALIFY row_number() OVER (
    PARTITION BY endpoint_ip
    ORDER BY regularity DESC, fetches, before_s, bytes, service_port, beat_median_s, beat_kind, peer
) = 1
