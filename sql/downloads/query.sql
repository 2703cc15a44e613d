-- Ten minutes: droppers start what they fetch at once, and its first calls come within its own
-- interval. Who reads pages fetches from many places in that time, and none stands out.
WITH steady AS (
    SELECT
        *,
        greatest(start_regularity, beat_regularity) AS regularity,
        if(start_regularity >= beat_regularity, start_median_s, beat_median_s) AS median_s
    FROM channels
    WHERE peer_is_domestic AND opened_by_endpoint = 0 AND answered > 0
),
beacons AS (
    SELECT endpoint_ip, peer, first_seen, regularity, median_s, service_kind
    FROM steady
    WHERE regularity >= 0.5
        AND service_kind NOT IN ('clock', 'name', 'mail', 'talk', 'tunnel', 'peer')
),
fetches AS (
    SELECT endpoint_ip, peer, service_port, first_seen, endpoint_bytes
    FROM steady
    WHERE protocol = 6
        AND connections <= 3
        AND regularity < 0.5
        -- A program is larger than most pages and all answers of a protocol.
        AND endpoint_bytes >= 20000
        AND endpoint_bytes >= 10 * peer_bytes
),
followed AS (
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
    FROM fetches AS f
    JOIN beacons AS b
        ON b.peer = f.peer AND b.endpoint_ip <> f.endpoint_ip
        AND b.first_seen BETWEEN f.first_seen AND f.first_seen + INTERVAL 10 MINUTE
)
SELECT *
FROM followed
QUALIFY row_number() OVER (
    PARTITION BY endpoint_ip
    ORDER BY regularity DESC, fetches, before_s, bytes, service_port, beat_median_s, beat_kind, peer
) = 1
