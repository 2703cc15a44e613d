WITH met AS MATERIALIZED (SELECT * FROM contacts),
lines AS MATERIALIZED (SELECT * FROM channels),
population AS (
    SELECT count(*) AS all_hosts FROM hosts WHERE peer_is_domestic
),
-- A sensor that never shows two sides of a conversation cannot tell "unanswered".
views_of AS (
    SELECT sensor, bool_or(endpoint_sent AND peer_sent) AS both_ways
    FROM met
    GROUP BY sensor
),
presence AS (
    SELECT
        endpoint_ip,
        min(first_seen) AS first_seen,
        max(last_seen) AS last_seen,
        count(*) AS records,
        count(DISTINCT peer) AS hosts,
        count(DISTINCT peer_net) AS host_networks,
        count(DISTINCT time_bucket(INTERVAL 1 DAY, first_seen)) AS days,
        bool_or(direction = 'out_in') AS seen_out_in,
        bool_or(direction = 'in_out') AS seen_in_out,
        bool_or(direction = 'out_out') AS seen_out_out,
        max(sampling_rate) AS sampling_rate,
        bool_or(both_ways) AS both_ways,
        bool_or(
            NOT from_endpoint AND endpoint_sent AND peer_sent AND conn_state <> 'REJ'
        ) AS asked_for,
        sum(endpoint_packets) FILTER (NOT peer_sent)::BIGINT AS one_way_packets,
        sum(endpoint_bytes) FILTER (NOT peer_sent)::BIGINT AS one_way_bytes,
        max(endpoint_packets / greatest(duration_s, 1)) FILTER (NOT peer_sent)
            AS one_way_packets_per_s
    FROM met
    JOIN views_of USING (sensor)
    GROUP BY endpoint_ip
),
-- On how many of the 30 days before a day its sensor kept records. Days are counted, not the
-- time since the first record: one broken clock would make every endpoint look new.
watched AS (
    SELECT
        sensor,
        day,
        count(*) OVER (
            PARTITION BY sensor ORDER BY day RANGE BETWEEN 30 PRECEDING AND 1 PRECEDING
        ) AS days_before
    FROM (SELECT DISTINCT sensor, epoch_us(first_seen) // 86400000000 AS day FROM met)
),
arrival AS (
    SELECT endpoint_ip, min(days_before) AS days_before
    FROM (
        SELECT endpoint_ip, sensor, epoch_us(min(first_seen)) // 86400000000 AS day
        FROM met
        GROUP BY endpoint_ip, sensor
    )
    JOIN watched USING (sensor, day)
    GROUP BY endpoint_ip
),
-- One try at a door: a TCP call that the caller never completed or let drop without a
-- word, an echo request, or a datagram to a service that nobody answered.
tries AS (
    SELECT
        c.endpoint_ip,
        c.peer,
        c.protocol,
        c.service_port,
        c.first_seen,
        coalesce(s.probed, false) AS probed,
        CASE
            WHEN c.protocol = 6 AND c.endpoint_tcp_flags & 18 = 2 THEN 'syn'
            WHEN c.protocol = 6 AND c.endpoint_tcp_flags IS NULL AND c.peer_packets = 0 THEN 'syn'
            WHEN c.protocol = 6 AND c.conn_state IN ('SF', 'RSTO', 'RSTR', 'S2', 'S3')
                AND c.endpoint_payload_bytes = 0 AND c.endpoint_packets <= 6 THEN 'touch'
            -- No honest segment lacks SYN, ACK and RST alike: FIN, null and Xmas scans.
            WHEN c.protocol = 6 AND c.endpoint_tcp_flags & 22 = 0 THEN 'syn'
            WHEN c.protocol = 17 AND NOT c.peer_sent AND c.endpoint_packets <= 10
                AND NOT coalesce(amplifies.amplifier, false) THEN 'udp'
            WHEN (c.protocol = 1 AND c.endpoint_port = 8)
                OR (c.protocol = 58 AND c.endpoint_port = 128) THEN 'echo'
        END AS kind
    FROM met AS c
    LEFT JOIN services AS s ON s.protocol = c.protocol AND s.port = c.service_port
    LEFT JOIN services AS amplifies
        ON amplifies.protocol = c.protocol AND amplifies.port = c.endpoint_port
        AND c.endpoint_port <> c.peer_port
    WHERE c.from_endpoint AND c.opens
),
per_port AS (
    SELECT
        endpoint_ip, protocol, service_port,
        count(DISTINCT peer) AS hosts,
        count(*) AS tries
    FROM tries
    WHERE kind IN ('syn', 'touch') OR (kind = 'udp' AND probed)
    GROUP BY ALL
),
widest_port AS (
    SELECT endpoint_ip, hosts, protocol, service_port
    FROM per_port
    QUALIFY row_number() OVER (
        PARTITION BY endpoint_ip ORDER BY hosts DESC, tries DESC, protocol, service_port
    ) = 1
),
per_host AS (
    SELECT endpoint_ip, peer, count(DISTINCT (protocol, service_port)) AS ports
    FROM tries
    WHERE kind IN ('syn', 'touch') OR (kind = 'udp' AND probed)
    GROUP BY ALL
),
knocking AS (
    SELECT
        endpoint_ip,
        count(*) FILTER (kind IN ('syn', 'touch')) AS tcp_tries,
        count(*) FILTER (kind = 'udp') AS udp_tries,
        -- Traceroute climbs through 33434 and the ports above it.
        count(DISTINCT service_port)
            FILTER (kind = 'udp' AND service_port NOT BETWEEN 33434 AND 33534) AS udp_ports,
        count(*) FILTER (kind = 'echo') AS echo_tries,
        count(DISTINCT peer) FILTER (kind IN ('syn', 'touch') OR (kind = 'udp' AND probed)) AS hosts,
        count(DISTINCT (protocol, service_port))
            FILTER (kind IN ('syn', 'touch') OR (kind = 'udp' AND probed))
            AS ports,
        count(*) FILTER (kind IN ('syn', 'touch') AND probed) AS tcp_probed_tries,
        count(*) FILTER (kind = 'udp' AND probed) AS udp_probed_tries,
        count(DISTINCT peer) FILTER (kind = 'echo') AS echo_hosts,
        epoch_us(max(first_seen) - min(first_seen)) / 1e6 AS span_s
    FROM tries
    WHERE kind IS NOT NULL
    GROUP BY endpoint_ip
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
onset AS (
    SELECT
        endpoint_ip,
        coalesce(max(crowd) FILTER (kind = 'syn'), 0) AS crowd_syn,
        coalesce(max(crowd) FILTER (kind = 'reflected'), 0) AS crowd_reflected,
        coalesce(max(crowd) FILTER (kind = 'tcp'), 0) AS crowd_tcp,
        coalesce(max(crowd) FILTER (kind IN ('amplified', 'answers')), 0) AS crowd_amplified,
        coalesce(max(crowd) FILTER (kind = 'udp'), 0) AS crowd_udp,
        coalesce(sum(packets) FILTER (kind IN ('amplified', 'answers')), 0)::BIGINT AS amplified_packets,
        coalesce(sum(bytes) FILTER (kind IN ('amplified', 'answers')), 0)::BIGINT AS amplified_bytes
    FROM onsets
    GROUP BY endpoint_ip
),
ranked AS (
    SELECT
        c.*,
        h.unusual_endpoints,
        h.failed_endpoints,
        greatest(c.start_regularity, c.beat_regularity, c.start_in_regularity) AS regularity,
        CASE
            WHEN c.start_regularity >= greatest(c.beat_regularity, c.start_in_regularity)
                THEN 'start'
            WHEN c.start_in_regularity >= c.beat_regularity THEN 'start_in'
            ELSE 'beat'
        END AS series,
        c.service_kind NOT IN ('clock', 'name') AS plain
    FROM lines AS c
    JOIN hosts AS h USING (peer)
),
-- The channel with the strongest rhythm, one with the most failed calls, one with the
-- longest talk: often the same, not always. The peer breaks ties last: it is a pseudonym, and
-- scores must not depend on the key.
placed AS (
    SELECT
        *,
        count(*) FILTER (regularity >= 0.5) OVER (PARTITION BY endpoint_ip) AS rhythm_channels,
        row_number() OVER (
            PARTITION BY endpoint_ip
            ORDER BY
                plain DESC, regularity DESC, connections DESC,
                first_seen, last_seen, peer, protocol, service_port
        ) AS rhythm_place,
        row_number() OVER (
            PARTITION BY endpoint_ip
            ORDER BY
                if(protocol = 6, failed_seconds, 0) DESC, failed DESC,
                first_seen, last_seen, peer, protocol, service_port
        ) AS retry_place,
        row_number() OVER (
            PARTITION BY endpoint_ip
            ORDER BY
                (protocol = 6 AND opened_by_endpoint = 0) DESC,
                (service_kind IN ('other', 'rat')) DESC,
                longest_s DESC,
                first_seen, last_seen, peer, protocol, service_port
        ) AS talk_place
    FROM ranked
),
rhythm AS (SELECT * FROM placed WHERE rhythm_place = 1),
retry AS (SELECT * FROM placed WHERE retry_place = 1),
talk AS (SELECT * FROM placed WHERE talk_place = 1)
SELECT
    p.endpoint_ip,
    p.first_seen,
    p.last_seen,
    p.records,
    p.hosts,
    p.host_networks,
    population.all_hosts,
    p.days,
    arrival.days_before,
    p.seen_out_in,
    p.seen_in_out,
    p.seen_out_out,
    p.sampling_rate,
    p.both_ways,
    p.asked_for,
    coalesce(p.one_way_packets, 0) AS one_way_packets,
    coalesce(p.one_way_bytes, 0) AS one_way_bytes,
    coalesce(p.one_way_packets_per_s, 0) AS one_way_packets_per_s,
    coalesce(k.tcp_tries, 0) AS tcp_tries,
    coalesce(k.udp_tries, 0) AS udp_tries,
    coalesce(k.udp_ports, 0) AS udp_ports,
    coalesce(k.echo_tries, 0) AS echo_tries,
    coalesce(k.hosts, 0) AS tried_hosts,
    coalesce(k.ports, 0) AS tried_ports,
    coalesce(k.tcp_probed_tries, 0) AS tcp_probed_tries,
    coalesce(k.udp_probed_tries, 0) AS udp_probed_tries,
    coalesce(k.echo_hosts, 0) AS echo_hosts,
    coalesce(k.span_s, 0) AS tried_span_s,
    coalesce(w.hosts, 0) AS widest_port_hosts,
    coalesce(w.service_port, 0) AS widest_port,
    coalesce(v.ports, 0) AS most_ports_on_a_host,
    coalesce(l.sessions, 0) AS login_sessions,
    coalesce(l.hosts, 0) AS login_hosts,
    coalesce(l.sessions_per_host, 0) AS login_sessions_per_host,
    coalesce(l.service_port, 0) AS login_port,
    coalesce(l.duration_s, 0) AS login_duration_s,
    l.dispersion AS login_dispersion,
    coalesce(l.span_s, 0) AS login_span_s,
    coalesce(o.crowd_syn, 0) AS crowd_syn,
    coalesce(o.crowd_reflected, 0) AS crowd_reflected,
    coalesce(o.crowd_tcp, 0) AS crowd_tcp,
    coalesce(o.crowd_amplified, 0) AS crowd_amplified,
    coalesce(o.crowd_udp, 0) AS crowd_udp,
    coalesce(o.amplified_packets, 0) AS amplified_packets,
    coalesce(o.amplified_bytes, 0) AS amplified_bytes,
    rhythm.series AS rhythm_series,
    rhythm.service_kind AS rhythm_kind,
    rhythm.protocol AS rhythm_protocol,
    coalesce(rhythm.service_port, 0) AS rhythm_port,
    rhythm.rhythm_channels,
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
    rhythm.answered AS rhythm_answered,
    rhythm.peer_bytes_median AS rhythm_peer_bytes,
    rhythm.peer_bytes_dispersion AS rhythm_peer_dispersion,
    rhythm.endpoint_bytes_median AS rhythm_endpoint_bytes,
    rhythm.endpoint_bytes_dispersion AS rhythm_endpoint_dispersion,
    rhythm.unusual_endpoints AS rhythm_host_unusual_endpoints,
    retry.protocol AS retry_protocol,
    retry.service_kind AS retry_kind,
    coalesce(retry.service_port, 0) AS retry_port,
    retry.failed AS retry_failed,
    retry.failed_seconds AS retry_failed_seconds,
    retry.answered AS retry_answered,
    epoch_us(retry.last_seen - retry.first_seen) / 1e6 AS retry_span_s,
    retry.failed_endpoints AS retry_host_failed_endpoints,
    talk.protocol AS talk_protocol,
    talk.service_kind AS talk_kind,
    coalesce(talk.service_port, 0) AS talk_port,
    talk.opened_by_endpoint AS talk_opened_by_endpoint,
    talk.longest_s AS talk_longest_s,
    talk.talked_s AS talk_talked_s,
    coalesce(talk.beat_gaps, 0) AS talk_pauses,
    coalesce(talk.beat_median_s, 0) AS talk_pause_s,
    talk.endpoint_bytes AS talk_endpoint_bytes,
    talk.peer_bytes AS talk_peer_bytes,
    talk.unusual_endpoints AS talk_host_unusual_endpoints
FROM presence AS p
CROSS JOIN population
JOIN arrival ON arrival.endpoint_ip = p.endpoint_ip
JOIN rhythm ON rhythm.endpoint_ip = p.endpoint_ip
JOIN retry ON retry.endpoint_ip = p.endpoint_ip
JOIN talk ON talk.endpoint_ip = p.endpoint_ip
LEFT JOIN knocking AS k ON k.endpoint_ip = p.endpoint_ip
LEFT JOIN widest_port AS w ON w.endpoint_ip = p.endpoint_ip
LEFT JOIN (
    SELECT endpoint_ip, max(ports) AS ports FROM per_host GROUP BY endpoint_ip
) AS v ON v.endpoint_ip = p.endpoint_ip
LEFT JOIN logins AS l ON l.endpoint_ip = p.endpoint_ip
LEFT JOIN onset AS o ON o.endpoint_ip = p.endpoint_ip
ORDER BY p.endpoint_ip
