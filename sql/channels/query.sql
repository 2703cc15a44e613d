WITH named AS (
    SELECT
        channel,
        any_value(endpoint_ip) AS endpoint_ip,
        any_value(peer) AS peer,
        any_value(protocol) AS protocol,
        any_value(service_port) AS service_port,
        any_value(peer_is_domestic) AS peer_is_domestic
    FROM contacts
    WHERE is_recent
    GROUP BY channel
),
connections AS (
    SELECT
        channel,
        opened_at,
        endpoint_port,
        peer_port,
        bool_or(from_endpoint) AS from_endpoint,
        bool_or(was_answered) OR (bool_or(endpoint_sent) AND bool_or(peer_sent)) AS two_way,
        bool_or(peer_sent) AS peer_sent,
        NOT bool_or(from_endpoint) AND bool_or(peer_sent) AND (
            bool_or(conn_state = 'REJ') OR (bool_and(endpoint_silent) AND NOT bool_or(was_answered))
        ) AS failed,
        bool_or(conn_state = 'REJ') AS refused,
        bool_or(half_seen) AS half_seen,
        bool_or(endpoint_spoke) AS endpoint_spoke,
        min(first_seen) AS first_seen,
        max(last_seen) AS last_seen,
        epoch_us(max(last_seen) - min(first_seen)) AS duration_us,
        sum(endpoint_bytes)::BIGINT AS endpoint_bytes,
        sum(peer_bytes)::BIGINT AS peer_bytes,
        sum(endpoint_packets)::BIGINT AS endpoint_packets,
        sum(peer_packets)::BIGINT AS peer_packets
    FROM contacts
    WHERE is_recent
    GROUP BY ALL
),
totals AS (
    SELECT
        channel,
        min(first_seen) AS first_seen,
        max(last_seen) AS last_seen,
        count(*) AS connections,
        count(*) FILTER (from_endpoint) AS opened_by_endpoint,
        count(*) FILTER (two_way AND NOT refused) AS answered,
        count(*) FILTER (two_way AND NOT refused AND endpoint_spoke) AS spoken,
        count(*) FILTER (failed) AS failed,
        count(*) FILTER (NOT peer_sent) AS host_unseen,
        count(*) FILTER (half_seen) AS half_seen,
        max(duration_us) FILTER (two_way AND NOT refused) / 1e6 AS longest_s,
        sum(duration_us) FILTER (two_way AND NOT refused)::BIGINT / 1e6 AS talked_s,
        sum(endpoint_bytes)::BIGINT AS endpoint_bytes,
        sum(peer_bytes)::BIGINT AS peer_bytes,
        sum(endpoint_packets)::BIGINT AS endpoint_packets,
        sum(peer_packets)::BIGINT AS peer_packets,
        max(peer_bytes) FILTER (two_way AND NOT refused)::DOUBLE AS most_peer_bytes,
        max(endpoint_bytes) FILTER (two_way AND NOT refused)::DOUBLE AS most_endpoint_bytes
    FROM connections
    GROUP BY ALL
),
-- TCP goes on after any silence. How long was a connection heard with none of five minutes? That
-- is worth knowing of those few only that are longer than an afternoon.
stretches AS (
    SELECT
        channel,
        opened_at,
        endpoint_port,
        peer_port,
        first_seen,
        last_seen,
        endpoint_bytes,
        peer_bytes,
        count(*) FILTER (is_new) OVER (
            PARTITION BY channel, opened_at, endpoint_port, peer_port
            ORDER BY first_seen, last_seen
        ) AS stretch
    FROM (
        SELECT
            *,
            epoch_us(first_seen - max(last_seen) OVER (
                PARTITION BY channel, opened_at, endpoint_port, peer_port
                ORDER BY first_seen, last_seen
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            )) >= 300000000 AS is_new
        FROM contacts
        SEMI JOIN (
            FROM connections WHERE duration_us >= 21600000000 AND two_way AND NOT refused
        ) AS long USING (channel, opened_at, endpoint_port, peer_port)
        WHERE is_recent
    )
),
held AS (
    SELECT
        channel,
        max(held_us) / 1e6 AS held_s,
        arg_max_null(bytes, row(held_us, -bytes)) AS held_bytes
    FROM (
        SELECT
            channel,
            epoch_us(max(last_seen) - min(first_seen)) AS held_us,
            -- Where each way is told by itself, half of the records know of a side.
            if(
                3 * least(count(endpoint_bytes), count(peer_bytes)) >= count(*),
                (sum(endpoint_bytes) + sum(peer_bytes))::BIGINT,
                NULL
            ) AS bytes
        FROM stretches
        GROUP BY channel, opened_at, endpoint_port, peer_port, stretch
    )
    WHERE held_us >= 21600000000
    GROUP BY channel
),
-- What takes long to find out is trivial for channels of one connection, which most are.
several AS (
    SELECT
        channel,
        count(DISTINCT epoch_us(first_seen) // 1000000) FILTER (failed) AS failed_seconds,
        median(duration_us) FILTER (two_way AND NOT refused) / 1e6 AS duration_median_s,
        median(peer_bytes) FILTER (two_way AND NOT refused) AS peer_bytes_median,
        mad(peer_bytes) FILTER (two_way AND NOT refused) AS peer_bytes_mad,
        median(endpoint_bytes) FILTER (two_way AND NOT refused) AS endpoint_bytes_median,
        mad(endpoint_bytes) FILTER (two_way AND NOT refused) AS endpoint_bytes_mad,
        count(DISTINCT epoch_us(first_seen) // 3600000000) AS hours_active
    FROM connections
    WHERE channel IN (SELECT channel FROM totals WHERE connections > 1)
    GROUP BY channel
),
heard AS (
    -- There is one row of each series, if any.
    SELECT
        channel,
        max(resolution_s) AS resolution_s,
        any_value(gaps) FILTER (series = 'start') AS start_gaps,
        any_value(median_s) FILTER (series = 'start') AS start_median_s,
        any_value(mad_s) FILTER (series = 'start') AS start_mad_s,
        any_value(skew) FILTER (series = 'start') AS start_skew,
        any_value(near_share) FILTER (series = 'start') AS start_near_share,
        any_value(bits) FILTER (series = 'start') AS start_bits,
        any_value(regularity) FILTER (series = 'start') AS start_regularity,
        any_value(gaps) FILTER (series = 'beat') AS beat_gaps,
        any_value(median_s) FILTER (series = 'beat') AS beat_median_s,
        any_value(mad_s) FILTER (series = 'beat') AS beat_mad_s,
        any_value(skew) FILTER (series = 'beat') AS beat_skew,
        any_value(near_share) FILTER (series = 'beat') AS beat_near_share,
        any_value(bits) FILTER (series = 'beat') AS beat_bits,
        any_value(regularity) FILTER (series = 'beat') AS beat_regularity,
        any_value(gaps) FILTER (series = 'start_in') AS start_in_gaps,
        any_value(median_s) FILTER (series = 'start_in') AS start_in_median_s,
        any_value(mad_s) FILTER (series = 'start_in') AS start_in_mad_s,
        any_value(skew) FILTER (series = 'start_in') AS start_in_skew,
        any_value(near_share) FILTER (series = 'start_in') AS start_in_near_share,
        any_value(bits) FILTER (series = 'start_in') AS start_in_bits,
        any_value(regularity) FILTER (series = 'start_in') AS start_in_regularity
    FROM rhythms
    GROUP BY channel
),
measured AS (
    SELECT
        t.* EXCLUDE (most_peer_bytes, most_endpoint_bytes),
        coalesce(v.failed_seconds, t.failed) AS failed_seconds,
        coalesce(v.duration_median_s, t.longest_s) AS duration_median_s,
        coalesce(v.peer_bytes_median, t.most_peer_bytes) AS peer_bytes_median,
        coalesce(v.peer_bytes_mad, 0) AS peer_bytes_mad,
        coalesce(v.endpoint_bytes_median, t.most_endpoint_bytes) AS endpoint_bytes_median,
        coalesce(v.endpoint_bytes_mad, 0) AS endpoint_bytes_mad,
        coalesce(v.hours_active, 1) AS hours_active
    FROM totals AS t
    LEFT JOIN several AS v ON v.channel = t.channel
)
SELECT
    t.channel,
    n.endpoint_ip,
    n.peer,
    n.peer_is_domestic,
    n.protocol,
    n.service_port,
    coalesce(s.kind, 'other') AS service_kind,
    t.first_seen,
    t.last_seen,
    t.connections,
    t.opened_by_endpoint,
    t.answered,
    t.spoken,
    t.failed,
    t.failed_seconds,
    t.half_seen,
    t.host_unseen,
    coalesce(t.longest_s, 0) AS longest_s,
    coalesce(k.held_s, 0) AS held_s,
    k.held_bytes,
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
    coalesce(h.resolution_s, 0) AS resolution_s,
    h.start_gaps,
    h.start_median_s,
    h.start_mad_s,
    h.start_skew,
    h.start_near_share,
    coalesce(h.start_bits, 0) AS start_bits,
    coalesce(h.start_regularity, 0) AS start_regularity,
    h.beat_gaps,
    h.beat_median_s,
    h.beat_mad_s,
    h.beat_skew,
    h.beat_near_share,
    coalesce(h.beat_bits, 0) AS beat_bits,
    coalesce(h.beat_regularity, 0) AS beat_regularity,
    h.start_in_gaps,
    h.start_in_median_s,
    h.start_in_mad_s,
    h.start_in_skew,
    h.start_in_near_share,
    coalesce(h.start_in_bits, 0) AS start_in_bits,
    coalesce(h.start_in_regularity, 0) AS start_in_regularity
FROM measured AS t
JOIN named AS n ON n.channel = t.channel
LEFT JOIN services AS s ON s.protocol = n.protocol AND s.port = n.service_port
LEFT JOIN heard AS h ON h.channel = t.channel
LEFT JOIN held AS k ON k.channel = t.channel
