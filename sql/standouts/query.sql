WITH lines AS MATERIALIZED (
    SELECT
        *,
        greatest(start_regularity, beat_regularity, start_in_regularity) AS regularity,
        greatest(start_bits, beat_bits, start_in_bits) AS bits,
        CASE
            WHEN start_regularity >= greatest(beat_regularity, start_in_regularity)
                THEN 'start'
            WHEN start_in_regularity >= beat_regularity THEN 'start_in'
            ELSE 'beat'
        END AS series
    FROM channels
),
logins AS (
    SELECT
        endpoint_ip,
        protocol,
        service_port,
        sum(spoken)::BIGINT AS sessions,
        sum(host_unseen) / sum(connections) AS unseen_share,
        count(*) AS hosts,
        max(spoken) AS sessions_per_host,
        median(duration_median_s) AS duration_s,
        median(endpoint_bytes_median + peer_bytes_median) AS bytes,
        coalesce(median(peer_bytes_dispersion), median(endpoint_bytes_dispersion)) AS dispersion,
        epoch_us(max(last_seen) - min(first_seen)) / 1e6 AS span_s
    FROM lines
    WHERE service_kind = 'login' AND opened_by_endpoint * 2 > connections AND spoken > 0
    GROUP BY endpoint_ip, protocol, service_port
    QUALIFY row_number() OVER (
        PARTITION BY endpoint_ip ORDER BY sum(spoken) DESC, protocol, service_port
    ) = 1
),
mails AS (
    SELECT
        endpoint_ip,
        count(*) AS hosts,
        sum(spoken)::BIGINT AS sessions,
        median(endpoint_bytes_median) AS bytes,
        epoch_us(max(last_seen) - min(first_seen)) / 1e6 AS span_s
    FROM lines
    WHERE protocol = 6 AND service_port = 25 AND peer_is_domestic
        AND opened_by_endpoint * 2 > connections AND spoken > 0
    GROUP BY endpoint_ip
),
-- The channel by which an inside host sent it the most, and much more than it got.
uploads AS (
    SELECT
        endpoint_ip,
        peer_bytes,
        endpoint_bytes,
        service_port,
        service_kind,
        answered,
        peer_bytes_median,
        endpoint_bytes_dispersion,
        epoch_us(last_seen - first_seen) / 1e6 AS span_s
    FROM lines
    WHERE peer_is_domestic AND opened_by_endpoint = 0 AND answered > 0
        AND peer_bytes > 4 * endpoint_bytes
    QUALIFY row_number() OVER (
        PARTITION BY endpoint_ip
        ORDER BY
            peer_bytes DESC, endpoint_bytes, first_seen, last_seen, service_port, protocol,
            answered, peer_bytes_median, endpoint_bytes_dispersion
    ) = 1
),
-- The channel with the strongest rhythm, one with the most failed calls, one with the
-- longest talk: often the same, not always. The peer breaks ties last: it is a pseudonym, and
-- scores must not depend on the key. The least of rows that compare column by column is found
-- without sorting.
chosen AS (
    SELECT
        endpoint_ip,
        count(*) FILTER (regularity >= 0.5) AS rhythm_channels,
        arg_min(channel, row(
            service_kind IN ('clock', 'name'), -regularity, -bits, -connections,
            first_seen, last_seen, protocol, service_port, peer
        )) AS rhythm_channel,
        arg_min(channel, row(
            if(protocol = 6, -failed_seconds, 0), -failed,
            first_seen, last_seen, protocol, service_port, peer
        )) AS retry_channel,
        arg_min(channel, row(
            NOT (protocol = 6 AND opened_by_endpoint = 0),
            service_kind NOT IN ('other', 'rat'),
            -- What is copied or watched for hours says less than a talk.
            if(coalesce(held_bytes < 20000 * held_s, false), -held_s, 0),
            -longest_s,
            first_seen, last_seen, protocol, service_port, peer
        )) AS talk_channel
    FROM lines
    GROUP BY endpoint_ip
)
SELECT
    chosen.endpoint_ip,
    coalesce(l.sessions, 0) AS login_sessions,
    coalesce(l.hosts, 0) AS login_hosts,
    coalesce(l.sessions_per_host, 0) AS login_sessions_per_host,
    coalesce(l.service_port, 0) AS login_port,
    coalesce(l.duration_s, 0) AS login_duration_s,
    l.bytes AS login_bytes,
    l.dispersion AS login_dispersion,
    coalesce(l.unseen_share, 0) AS login_unseen_share,
    coalesce(l.span_s, 0) AS login_span_s,
    coalesce(m.sessions, 0) AS delivery_sessions,
    coalesce(m.hosts, 0) AS delivery_hosts,
    coalesce(m.bytes, 0) AS delivery_bytes,
    coalesce(m.span_s, 0) AS delivery_span_s,
    coalesce(u.peer_bytes, 0) AS upload_bytes,
    coalesce(u.endpoint_bytes, 0) AS upload_got_bytes,
    coalesce(u.service_port, 0) AS upload_port,
    u.service_kind AS upload_kind,
    coalesce(u.answered, 0) AS upload_calls,
    coalesce(u.peer_bytes_median, 0) AS upload_median_bytes,
    u.endpoint_bytes_dispersion AS upload_got_dispersion,
    coalesce(u.span_s, 0) AS upload_span_s,
    rhythm.peer AS rhythm_peer,
    rhythm.series AS rhythm_series,
    rhythm.service_kind AS rhythm_kind,
    rhythm.protocol AS rhythm_protocol,
    coalesce(rhythm.service_port, 0) AS rhythm_port,
    chosen.rhythm_channels,
    rhythm.connections AS rhythm_connections,
    rhythm.opened_by_endpoint AS rhythm_opened_by_endpoint,
    rhythm.regularity AS rhythm_regularity,
    CASE rhythm.series
        WHEN 'start' THEN rhythm.start_bits
        WHEN 'beat' THEN rhythm.beat_bits
        ELSE rhythm.start_in_bits
    END AS rhythm_bits,
    CASE rhythm.series
        WHEN 'start' THEN rhythm.start_gaps
        WHEN 'beat' THEN rhythm.beat_gaps
        ELSE rhythm.start_in_gaps
    END AS rhythm_gaps,
    CASE rhythm.series
        WHEN 'start' THEN rhythm.start_median_s
        WHEN 'beat' THEN rhythm.beat_median_s
        ELSE rhythm.start_in_median_s
    END AS rhythm_median_s,
    CASE rhythm.series
        WHEN 'start' THEN rhythm.start_mad_s
        WHEN 'beat' THEN rhythm.beat_mad_s
        ELSE rhythm.start_in_mad_s
    END AS rhythm_mad_s,
    CASE rhythm.series
        WHEN 'start' THEN rhythm.start_near_share
        WHEN 'beat' THEN rhythm.beat_near_share
        ELSE rhythm.start_in_near_share
    END AS rhythm_near_share,
    rhythm.resolution_s AS rhythm_resolution_s,
    rhythm.answered AS rhythm_answered,
    rhythm.host_unseen / rhythm.connections AS rhythm_unseen_share,
    rhythm.duration_median_s AS rhythm_duration_s,
    rhythm.peer_bytes_median AS rhythm_peer_bytes,
    rhythm.peer_bytes_dispersion AS rhythm_peer_dispersion,
    rhythm.endpoint_bytes_median AS rhythm_endpoint_bytes,
    rhythm.endpoint_bytes_dispersion AS rhythm_endpoint_dispersion,
    retry.peer AS retry_peer,
    retry.protocol AS retry_protocol,
    retry.service_kind AS retry_kind,
    coalesce(retry.service_port, 0) AS retry_port,
    retry.failed AS retry_failed,
    retry.failed_seconds AS retry_failed_seconds,
    retry.answered AS retry_answered,
    epoch_us(retry.last_seen - retry.first_seen) / 1e6 AS retry_span_s,
    talk.peer AS talk_peer,
    talk.protocol AS talk_protocol,
    talk.service_kind AS talk_kind,
    coalesce(talk.service_port, 0) AS talk_port,
    talk.opened_by_endpoint AS talk_opened_by_endpoint,
    talk.half_seen / talk.connections AS talk_half_seen_share,
    talk.longest_s AS talk_longest_s,
    talk.held_s AS talk_held_s,
    talk.held_bytes AS talk_held_bytes,
    talk.talked_s AS talk_talked_s,
    coalesce(talk.beat_gaps, 0) AS talk_pauses,
    coalesce(talk.beat_median_s, 0) AS talk_pause_s,
    talk.endpoint_bytes AS talk_endpoint_bytes,
    talk.peer_bytes AS talk_peer_bytes
FROM chosen
JOIN lines AS rhythm ON rhythm.channel = chosen.rhythm_channel
JOIN lines AS retry ON retry.channel = chosen.retry_channel
JOIN lines AS talk ON talk.channel = chosen.talk_channel
LEFT JOIN logins AS l ON l.endpoint_ip = chosen.endpoint_ip
LEFT JOIN mails AS m ON m.endpoint_ip = chosen.endpoint_ip
LEFT JOIN uploads AS u ON u.endpoint_ip = chosen.endpoint_ip
