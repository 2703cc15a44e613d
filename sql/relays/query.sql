-- Each call that an endpoint made is held against the last one that it got before.
WITH made AS (
    SELECT endpoint_ip, peer, first_seen, peer_bytes, endpoint_bytes
    FROM contacts
    WHERE is_recent AND peer_is_domestic AND opens AND from_endpoint AND protocol IN (6, 17)
        AND endpoint_spoke AND peer_sent
),
got AS (
    SELECT
        endpoint_ip,
        first_seen,
        peer_bytes,
        endpoint_bytes,
        min(peer) AS first_peer,
        max(peer) AS last_peer
    FROM contacts
    WHERE is_recent AND peer_is_domestic AND opens AND NOT from_endpoint AND protocol IN (6, 17)
        AND endpoint_sent AND peer_sent
        AND endpoint_ip IN (SELECT endpoint_ip FROM made)
    GROUP BY endpoint_ip, first_seen, peer_bytes, endpoint_bytes
    -- Of those that come in the same microsecond, the largest.
    QUALIFY row_number() OVER (
        PARTITION BY endpoint_ip, first_seen ORDER BY peer_bytes DESC, endpoint_bytes DESC
    ) = 1
),
held AS (
    SELECT
        m.endpoint_ip,
        m.peer AS target,
        g.first_peer AS source,
        coalesce(
            m.first_seen - g.first_seen < INTERVAL 2 SECOND
            AND (g.first_peer <> m.peer OR g.last_peer <> m.peer)
            -- Packets are cut anew on the way; more than a fifth that does not make.
            AND m.endpoint_bytes BETWEEN 0.8 * g.peer_bytes AND 1.25 * g.peer_bytes
            AND m.peer_bytes BETWEEN 0.8 * g.endpoint_bytes AND 1.25 * g.endpoint_bytes,
            false
        ) AS passed_on
    FROM made AS m
    ASOF LEFT JOIN got AS g ON g.endpoint_ip = m.endpoint_ip AND g.first_seen <= m.first_seen
)
SELECT
    endpoint_ip,
    count(*) AS calls,
    count(*) FILTER (passed_on) AS passed_on,
    count(DISTINCT source) FILTER (passed_on) AS sources,
    count(DISTINCT target) FILTER (passed_on) AS targets
FROM held
GROUP BY endpoint_ip
