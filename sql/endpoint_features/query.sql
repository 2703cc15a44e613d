WITH lines AS MATERIALIZED (
    SELECT
        *,
        row_number() OVER () AS line,
        greatest(start_regularity, beat_regularity, start_in_regularity) AS regularity,
        CASE
            WHEN start_regularity >= greatest(beat_regularity, start_in_regularity)
                THEN 'start'
            WHEN start_in_regularity >= beat_regularity THEN 'start_in'
            ELSE 'beat'
        END AS series
    FROM channels
),
population AS (
    SELECT count(*) AS all_hosts FROM hosts WHERE peer_is_domestic
),
logins AS (
    SELECT
        endpoint_ip,
        protocol,
        service_port,
        sum(spoken)::BIGINT AS sessions,
        count(*) AS hosts,
        max(spoken) AS sessions_per_host,
        median(duration_median_s) AS duration_s,
        median(peer_bytes_dispersion) AS dispersion,
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
    SELECT endpoint_ip, peer_bytes, endpoint_bytes, service_port, service_kind
    FROM lines
    WHERE peer_is_domestic AND opened_by_endpoint = 0 AND answered > 0
        AND peer_bytes > 4 * endpoint_bytes
    QUALIFY row_number() OVER (
        PARTITION BY endpoint_ip
        ORDER BY peer_bytes DESC, endpoint_bytes, first_seen, last_seen, service_port, protocol
    ) = 1
),
onset AS (
    SELECT
        endpoint_ip,
        coalesce(max(crowd) FILTER (kind = 'syn'), 0) AS crowd_syn,
        coalesce(max(crowd) FILTER (kind = 'reflected'), 0) AS crowd_reflected,
        coalesce(max(to_system_ports) FILTER (kind = 'reflected'), 0) AS reflected_to_system_ports,
        coalesce(max(crowd) FILTER (kind = 'tcp'), 0) AS crowd_tcp,
        coalesce(max(crowd) FILTER (kind IN ('amplified', 'answers')), 0) AS crowd_amplified,
        coalesce(max(crowd) FILTER (kind = 'udp'), 0) AS crowd_udp,
        coalesce(sum(packets) FILTER (kind IN ('amplified', 'answers')), 0)::BIGINT AS amplified_packets,
        coalesce(sum(bytes) FILTER (kind IN ('amplified', 'answers')), 0)::BIGINT AS amplified_bytes
    FROM onsets
    GROUP BY endpoint_ip
),
-- The channel with the strongest rhythm, one with the most failed calls, one with the
-- longest talk: often the same, not always. The peer breaks ties last: it is a pseudonym, and
-- scores must not depend on the key. The least of rows that compare column by column is found
-- without sorting.
chosen AS (
    SELECT
        endpoint_ip,
        count(*) FILTER (regularity >= 0.5) AS rhythm_channels,
        arg_min(line, row(
            service_kind IN ('clock', 'name'), -regularity, -connections,
            first_seen, last_seen, peer, protocol, service_port
        )) AS rhythm_line,
        arg_min(line, row(
            if(protocol = 6, -failed_seconds, 0), -failed,
            first_seen, last_seen, peer, protocol, service_port
        )) AS retry_line,
        arg_min(line, row(
            NOT (protocol = 6 AND opened_by_endpoint = 0),
            service_kind NOT IN ('other', 'rat'),
            -longest_s,
            first_seen, last_seen, peer, protocol, service_port
        )) AS talk_line
    FROM lines
    GROUP BY endpoint_ip
)
SELECT
    p.endpoint_ip,
    p.first_seen,
    p.last_seen,
    p.records,
    p.hosts,
    p.host_networks,
    population.all_hosts,
    p.days,
    p.days_before,
    p.seen_out_in,
    p.seen_in_out,
    p.seen_out_out,
    p.sampling_rate,
    p.both_ways,
    p.half_seen_share,
    p.asked_for,
    p.one_way_packets,
    p.one_way_bytes,
    p.one_way_packets_per_s,
    p.tcp_tries,
    p.udp_tries,
    p.udp_ports,
    p.udp_from_ports,
    p.echo_tries,
    p.tried_hosts,
    p.tried_ports,
    p.tcp_probed_tries,
    p.tcp_closed_tries,
    p.udp_probed_tries,
    p.echo_hosts,
    p.tried_span_s,
    p.widest_port_hosts,
    p.widest_port,
    p.most_ports_on_a_host,
    coalesce(l.sessions, 0) AS login_sessions,
    coalesce(l.hosts, 0) AS login_hosts,
    coalesce(l.sessions_per_host, 0) AS login_sessions_per_host,
    coalesce(l.service_port, 0) AS login_port,
    coalesce(l.duration_s, 0) AS login_duration_s,
    l.dispersion AS login_dispersion,
    coalesce(l.span_s, 0) AS login_span_s,
    coalesce(m.sessions, 0) AS delivery_sessions,
    coalesce(m.hosts, 0) AS delivery_hosts,
    coalesce(m.bytes, 0) AS delivery_bytes,
    coalesce(m.span_s, 0) AS delivery_span_s,
    coalesce(u.peer_bytes, 0) AS upload_bytes,
    coalesce(u.endpoint_bytes, 0) AS upload_got_bytes,
    coalesce(u.service_port, 0) AS upload_port,
    u.service_kind AS upload_kind,
    coalesce(d.bytes, 0) AS download_bytes,
    coalesce(d.service_port, 0) AS download_port,
    coalesce(d.before_s, 0) AS download_before_s,
    coalesce(d.fetches, 0) AS download_fetches,
    coalesce(d.regularity, 0) AS download_regularity,
    coalesce(d.beat_median_s, 0) AS download_median_s,
    d.beat_kind AS download_kind,
    coalesce(r.calls, 0) AS relay_calls,
    coalesce(r.passed_on, 0) AS relay_passed_on,
    coalesce(r.sources, 0) AS relay_sources,
    coalesce(r.targets, 0) AS relay_targets,
    coalesce(o.crowd_syn, 0) AS crowd_syn,
    coalesce(o.crowd_reflected, 0) AS crowd_reflected,
    coalesce(o.reflected_to_system_ports, 0) AS reflected_to_system_ports,
    coalesce(o.crowd_tcp, 0) AS crowd_tcp,
    coalesce(o.crowd_amplified, 0) AS crowd_amplified,
    coalesce(o.crowd_udp, 0) AS crowd_udp,
    coalesce(o.amplified_packets, 0) AS amplified_packets,
    coalesce(o.amplified_bytes, 0) AS amplified_bytes,
    rhythm.series AS rhythm_series,
    rhythm.service_kind AS rhythm_kind,
    rhythm.protocol AS rhythm_protocol,
    coalesce(rhythm.service_port, 0) AS rhythm_port,
    chosen.rhythm_channels,
    rhythm.connections AS rhythm_connections,
    rhythm.opened_by_endpoint AS rhythm_opened_by_endpoint,
    rhythm.regularity AS rhythm_regularity,
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
    rhythm.peer_bytes_median AS rhythm_peer_bytes,
    rhythm.peer_bytes_dispersion AS rhythm_peer_dispersion,
    rhythm.endpoint_bytes_median AS rhythm_endpoint_bytes,
    rhythm.endpoint_bytes_dispersion AS rhythm_endpoint_dispersion,
    rhythm_host.unusual_endpoints AS rhythm_host_unusual_endpoints,
    coalesce(kin.endpoints, 0) AS kin_endpoints,
    coalesce(kin.regularity, 0) AS kin_regularity,
    coalesce(kin.median_s, 0) AS kin_median_s,
    coalesce(kin.service_port, 0) AS kin_port,
    kin.service_kind AS kin_kind,
    coalesce(kin.request_bytes, 0) AS kin_request_bytes,
    retry.protocol AS retry_protocol,
    retry.service_kind AS retry_kind,
    coalesce(retry.service_port, 0) AS retry_port,
    retry.failed AS retry_failed,
    retry.failed_seconds AS retry_failed_seconds,
    retry.answered AS retry_answered,
    epoch_us(retry.last_seen - retry.first_seen) / 1e6 AS retry_span_s,
    retry_host.failed_endpoints AS retry_host_failed_endpoints,
    talk.protocol AS talk_protocol,
    talk.service_kind AS talk_kind,
    coalesce(talk.service_port, 0) AS talk_port,
    talk.opened_by_endpoint AS talk_opened_by_endpoint,
    talk.half_seen / talk.connections AS talk_half_seen_share,
    talk.longest_s AS talk_longest_s,
    talk.talked_s AS talk_talked_s,
    coalesce(talk.beat_gaps, 0) AS talk_pauses,
    coalesce(talk.beat_median_s, 0) AS talk_pause_s,
    talk.endpoint_bytes AS talk_endpoint_bytes,
    talk.peer_bytes AS talk_peer_bytes,
    talk_host.unusual_endpoints AS talk_host_unusual_endpoints
FROM endpoints AS p
CROSS JOIN population
JOIN chosen ON chosen.endpoint_ip = p.endpoint_ip
JOIN lines AS rhythm ON rhythm.line = chosen.rhythm_line
JOIN hosts AS rhythm_host ON rhythm_host.peer = rhythm.peer
JOIN lines AS retry ON retry.line = chosen.retry_line
JOIN hosts AS retry_host ON retry_host.peer = retry.peer
JOIN lines AS talk ON talk.line = chosen.talk_line
JOIN hosts AS talk_host ON talk_host.peer = talk.peer
LEFT JOIN logins AS l ON l.endpoint_ip = p.endpoint_ip
LEFT JOIN mails AS m ON m.endpoint_ip = p.endpoint_ip
LEFT JOIN uploads AS u ON u.endpoint_ip = p.endpoint_ip
LEFT JOIN downloads AS d ON d.endpoint_ip = p.endpoint_ip
LEFT JOIN relays AS r ON r.endpoint_ip = p.endpoint_ip
LEFT JOIN onset AS o ON o.endpoint_ip = p.endpoint_ip
LEFT JOIN kin ON kin.endpoint_ip = p.endpoint_ip
ORDER BY p.endpoint_ip
