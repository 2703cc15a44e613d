WITH opened AS (
    SELECT
        *,
        greatest(start_regularity, beat_regularity) AS regularity,
        if(start_regularity >= beat_regularity, start_median_s, beat_median_s) AS median_s
    FROM channels
    WHERE peer_is_domestic AND opened_by_endpoint = 0 AND answered > 0
),
marked AS (
    SELECT
        *,
        coalesce(
            answered >= 3
            AND service_kind NOT IN ('clock', 'name')
            -- The sizes of one request differ by what is filled in, such as a number or a name.
            AND peer_bytes_dispersion <= 0.1,
            false
        ) AS is_steady,
        regularity >= 0.5
            AND service_kind NOT IN ('clock', 'name', 'mail', 'talk', 'tunnel', 'peer')
            AS is_beacon,
        coalesce(
            protocol = 6
            AND connections <= 3
            AND regularity < 0.5
            -- A program is larger than most pages and all answers of a protocol.
            AND endpoint_bytes >= 20000
            AND endpoint_bytes >= 10 * peer_bytes,
            false
        ) AS is_fetch
    FROM opened
)
SELECT
    endpoint_ip,
    peer,
    protocol,
    service_port,
    service_kind,
    first_seen,
    endpoint_bytes,
    peer_bytes_median,
    regularity,
    median_s,
    is_steady,
    is_beacon,
    is_fetch
FROM marked
WHERE is_steady OR is_beacon OR is_fetch
