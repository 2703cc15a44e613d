WITH connections AS (
    SELECT
        endpoint_ip,
        peer,
        protocol,
        service_port,
        opened_at,
        endpoint_port,
        peer_port,
        any_value(peer_is_domestic) AS peer_is_domestic,
        bool_or(from_endpoint) AS from_endpoint,
        bool_or(endpoint_sent) AND bool_or(peer_sent) AS two_way,
        bool_or(peer_sent) AS peer_sent,
        bool_or(conn_state = 'REJ') AS refused,
        min(first_seen) AS first_seen,
        max(last_seen) AS last_seen,
        epoch_us(max(last_seen) - min(first_seen)) AS duration_us,
        sum(endpoint_bytes)::BIGINT AS endpoint_bytes,
        sum(peer_bytes)::BIGINT AS peer_bytes,
        sum(endpoint_packets)::BIGINT AS endpoint_packets,
        sum(peer_packets)::BIGINT AS peer_packets
    FROM contacts
    GROUP BY ALL
),
totals AS (
    SELECT
        endpoint_ip,
        peer,
        protocol,
        service_port,
        any_value(peer_is_domestic) AS peer_is_domestic,
        min(first_seen) AS first_seen,
        max(last_seen) AS last_seen,
        count(*) AS connections,
        count(*) FILTER (from_endpoint) AS opened_by_endpoint,
        count(*) FILTER (two_way AND NOT refused) AS answered,
        count(*) FILTER (NOT from_endpoint AND peer_sent AND (NOT two_way OR refused)) AS failed,
        count(DISTINCT epoch_us(first_seen) // 1000000)
            FILTER (NOT from_endpoint AND peer_sent AND (NOT two_way OR refused))
            AS failed_seconds,
        max(duration_us) FILTER (two_way AND NOT refused) / 1e6 AS longest_s,
        median(duration_us) FILTER (two_way AND NOT refused) / 1e6 AS duration_median_s,
        sum(duration_us) FILTER (two_way AND NOT refused)::BIGINT / 1e6 AS talked_s,
        sum(endpoint_bytes)::BIGINT AS endpoint_bytes,
        sum(peer_bytes)::BIGINT AS peer_bytes,
        sum(endpoint_packets)::BIGINT AS endpoint_packets,
        sum(peer_packets)::BIGINT AS peer_packets,
        median(peer_bytes) FILTER (two_way AND NOT refused) AS peer_bytes_median,
        mad(peer_bytes) FILTER (two_way AND NOT refused) AS peer_bytes_mad,
        median(endpoint_bytes) FILTER (two_way AND NOT refused) AS endpoint_bytes_median,
        mad(endpoint_bytes) FILTER (two_way AND NOT refused) AS endpoint_bytes_mad,
        count(DISTINCT epoch_us(first_seen) // 3600000000) AS hours_active
    FROM connections
    GROUP BY ALL
)
SELECT
    t.endpoint_ip,
    t.peer,
    t.peer_is_domestic,
    t.protocol,
    t.service_port,
    coalesce(s.kind, 'other') AS service_kind,
    t.first_seen,
    t.last_seen,
    t.connections,
    t.opened_by_endpoint,
    t.answered,
    t.failed,
    t.failed_seconds,
    coalesce(t.longest_s, 0) AS longest_s,
    t.duration_median_s,
    coalesce(t.talked_s, 0) AS talked_s,
    t.endpoint_bytes,
    t.peer_bytes,
    t.endpoint_packets,
    t.peer_packets,
    t.peer_bytes_median,
    t.peer_bytes_mad / nullif(t.peer_bytes_median, 0) AS peer_bytes_dispersion,
    t.endpoint_bytes_median,
    t.endpoint_bytes_mad / nullif(t.endpoint_bytes_median, 0) AS endpoint_bytes_dispersion,
    t.hours_active,
    start.gaps AS start_gaps,
    start.median_s AS start_median_s,
    start.mad_s AS start_mad_s,
    start.skew AS start_skew,
    start.near_share AS start_near_share,
    coalesce(start.regularity, 0) AS start_regularity,
    beat.gaps AS beat_gaps,
    beat.median_s AS beat_median_s,
    beat.mad_s AS beat_mad_s,
    beat.skew AS beat_skew,
    beat.near_share AS beat_near_share,
    coalesce(beat.regularity, 0) AS beat_regularity,
    start_in.gaps AS start_in_gaps,
    start_in.median_s AS start_in_median_s,
    start_in.mad_s AS start_in_mad_s,
    start_in.skew AS start_in_skew,
    start_in.near_share AS start_in_near_share,
    coalesce(start_in.regularity, 0) AS start_in_regularity
FROM totals AS t
LEFT JOIN services AS s ON s.protocol = t.protocol AND s.port = t.service_port
LEFT JOIN rhythms AS start
    ON start.endpoint_ip = t.endpoint_ip AND start.peer = t.peer AND start.protocol = t.protocol
    AND start.service_port IS NOT DISTINCT FROM t.service_port AND start.series = 'start'
LEFT JOIN rhythms AS beat
    ON beat.endpoint_ip = t.endpoint_ip AND beat.peer = t.peer AND beat.protocol = t.protocol
    AND beat.service_port IS NOT DISTINCT FROM t.service_port AND beat.series = 'beat'
LEFT JOIN rhythms AS start_in
    ON start_in.endpoint_ip = t.endpoint_ip AND start_in.peer = t.peer
    AND start_in.protocol = t.protocol
    AND start_in.service_port IS NOT DISTINCT FROM t.service_port
    AND start_in.series = 'start_in'
