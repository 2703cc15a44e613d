WITH presence AS (
    SELECT
        endpoint_ip,
        min(first_seen) AS first_seen,
        max(last_seen) AS last_seen,
        count(*) AS records,
        -- Of all days, as `hosts` of the whole data are, with which it is compared.
        count(DISTINCT peer) AS hosts,
        count(DISTINCT peer_net) AS host_networks,
        count(DISTINCT time_bucket(INTERVAL 1 DAY, first_seen)) AS days,
        bool_or(is_recent AND direction = 'out_in') AS seen_out_in,
        bool_or(is_recent AND direction = 'in_out') AS seen_in_out,
        bool_or(is_recent AND direction = 'out_out') AS seen_out_out,
        max(sampling_rate) FILTER (is_recent) AS sampling_rate,
        bool_or(both_ways) FILTER (is_recent) AS both_ways,
        count(*) FILTER (is_recent AND half_seen) / count(*) FILTER (is_recent) AS half_seen_share,
        coalesce(bool_or(endpoint_tcp_flags & 16 > 0) FILTER (is_recent AND sampling_rate > 1), false)
            AS sampled_ack,
        bool_or(
            NOT from_endpoint AND endpoint_sent AND peer_sent AND conn_state <> 'REJ'
        ) FILTER (is_recent) AS asked_for,
        sum(endpoint_packets) FILTER (is_recent AND peer_silent)::BIGINT AS one_way_packets,
        sum(endpoint_bytes) FILTER (is_recent AND peer_silent)::BIGINT AS one_way_bytes,
        max(endpoint_packets / greatest(duration_s, 1)) FILTER (is_recent AND peer_silent)
            AS one_way_packets_per_s
    FROM contacts
    -- A sensor that never shows two sides of a conversation cannot tell "unanswered".
    JOIN (SELECT sensor, both_ways FROM sensors) USING (sensor)
    GROUP BY endpoint_ip
),
arrival AS (
    SELECT endpoint_ip, min(days_before) AS days_before
    FROM (
        SELECT endpoint_ip, sensor, epoch_us(min(first_seen)) // 86400000000 AS day
        FROM contacts
        GROUP BY endpoint_ip, sensor
    )
    JOIN sensor_days USING (sensor, day)
    GROUP BY endpoint_ip
),
-- Sites and mail servers are for strangers, and addresses of theirs grow old.
doors AS (
    SELECT
        protocol,
        port,
        probed,
        probed AND kind NOT IN ('web', 'mail') AS closed_to_strangers,
        kind IN ('web', 'mail', 'name', 'clock') AS open_to_strangers
    FROM services
),
-- One try at a door: a TCP call that the caller never completed or let drop without a
-- word, an echo request, or a datagram to a service that nobody answered.
vain AS (
    SELECT
        c.endpoint_ip,
        c.peer,
        c.peer_is_domestic,
        c.protocol,
        c.service_port,
        c.endpoint_port,
        c.first_seen,
        coalesce(s.probed, false) AS probed,
        coalesce(s.closed_to_strangers, false) AS closed_to_strangers,
        coalesce(s.open_to_strangers, false) AS open_to_strangers,
        CASE
            -- A sampled SYN is no try where samples show that the caller goes on with calls.
            WHEN c.protocol = 6 AND c.endpoint_tcp_flags & 18 = 2
                THEN if(c.sampling_rate > 1 AND p.sampled_ack, NULL, 'syn')
            WHEN c.protocol = 6 AND c.endpoint_tcp_flags IS NULL AND c.peer_silent
                AND coalesce(c.endpoint_packets <= 10, true) THEN 'syn'
            WHEN c.protocol = 6 AND c.conn_state IN ('SF', 'RSTO', 'RSTR', 'S2', 'S3')
                AND c.sampling_rate = 1 AND NOT c.endpoint_spoke AND c.endpoint_packets <= 6
                THEN 'touch'
            -- Who sends data behind a SYN to a host that says nothing calls for something.
            WHEN c.protocol = 6 AND c.endpoint_tcp_flags & 10 = 10 AND c.peer_silent THEN 'syn'
            -- No honest segment lacks SYN, ACK and RST alike: FIN, null and Xmas scans. But
            -- some exporters leave flags out; there, who is answered was no such scan.
            WHEN c.protocol = 6 AND c.endpoint_tcp_flags & 22 = 0
                AND (c.peer_silent OR c.peer_tcp_flags & 4 > 0) THEN 'syn'
            -- Who acknowledges what was never said, and is reset for it, looks who is there.
            WHEN c.protocol = 6 AND c.endpoint_tcp_flags & 23 = 16 AND c.endpoint_packets <= 2
                AND NOT c.endpoint_spoke AND c.peer_tcp_flags & 6 = 4 AND c.sampling_rate = 1
                THEN 'syn'
            WHEN c.protocol = 17 AND c.peer_silent AND c.endpoint_packets <= 10
                AND NOT coalesce(amplifies.amplifier, false) THEN 'udp'
            WHEN (c.protocol = 1 AND c.endpoint_port = 8)
                OR (c.protocol = 58 AND c.endpoint_port = 128) THEN 'echo'
        END AS kind
    FROM contacts AS c
    JOIN presence AS p ON p.endpoint_ip = c.endpoint_ip
    LEFT JOIN doors AS s ON s.protocol = c.protocol AND s.port = c.service_port
    LEFT JOIN services AS amplifies
        ON amplifies.protocol = c.protocol AND amplifies.port = c.endpoint_port
        AND c.endpoint_port <> c.peer_port
    WHERE c.is_recent AND c.from_endpoint AND c.opens
),
-- Whom it called and talked with, by TCP or UDP on the port. A SYN may carry data; a handshake, data
-- and an end take more.
talked AS (
    SELECT
        c.endpoint_ip, c.peer, c.service_port, c.peer_is_domestic,
        bool_or(coalesce(s.open_to_strangers, false)) AS open_to_strangers
    FROM contacts AS c
    LEFT JOIN doors AS s ON s.protocol = c.protocol AND s.port = c.service_port
    WHERE c.is_recent AND c.from_endpoint AND c.endpoint_spoke AND c.was_answered
        AND (c.protocol = 17 OR c.protocol = 6 AND coalesce(c.endpoint_packets >= 4, true))
        AND c.conn_state <> 'REJ'
        AND c.endpoint_ip IN (SELECT endpoint_ip FROM vain WHERE kind IS NOT NULL)
    GROUP BY ALL
),
known AS (
    SELECT vain.*, talked.peer IS NOT NULL AS is_partner
    FROM vain
    LEFT JOIN talked
        ON talked.endpoint_ip = vain.endpoint_ip AND talked.peer = vain.peer
        AND talked.service_port = vain.service_port
    WHERE vain.kind IS NOT NULL
),
-- A call that fails with a partner was lost on its way, and clients have old addresses of some: of
-- one host in five where strangers are welcome, of one in twenty elsewhere. Hosts and foreign
-- addresses are counted apart, as a scanner may bring its own partners.
excused AS (
    SELECT
        endpoint_ip,
        peer_is_domestic,
        count(DISTINCT peer) FILTER (is_partner AND open_to_strangers)
            >= 4 * count(DISTINCT peer) FILTER (NOT is_partner AND open_to_strangers)
            AND count(DISTINCT peer) FILTER (NOT is_partner AND open_to_strangers) <= 5
            AS where_open,
        count(DISTINCT peer) FILTER (is_partner)
            >= 20 * count(DISTINCT peer) FILTER (NOT is_partner) AS elsewhere
    FROM (
        SELECT endpoint_ip, peer, peer_is_domestic, open_to_strangers, true AS is_partner
        FROM talked
        UNION ALL
        SELECT endpoint_ip, peer, peer_is_domestic, open_to_strangers, false
        FROM known
        WHERE NOT is_partner AND NOT closed_to_strangers AND kind <> 'echo'
    )
    GROUP BY endpoint_ip, peer_is_domestic
),
tries AS (
    SELECT known.*
    FROM known
    LEFT JOIN excused
        ON excused.endpoint_ip = known.endpoint_ip
        AND excused.peer_is_domestic = known.peer_is_domestic
    WHERE NOT is_partner AND NOT coalesce(
        kind <> 'echo' AND NOT closed_to_strangers
            AND (open_to_strangers AND where_open OR elsewhere),
        false
    )
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
        count(DISTINCT endpoint_port) FILTER (kind = 'udp') AS udp_from_ports,
        count(*) FILTER (kind = 'echo') AS echo_tries,
        count(DISTINCT peer) FILTER (kind IN ('syn', 'touch') OR (kind = 'udp' AND probed)) AS hosts,
        count(DISTINCT (protocol, service_port))
            FILTER (kind IN ('syn', 'touch') OR (kind = 'udp' AND probed))
            AS ports,
        count(DISTINCT (protocol, service_port)) FILTER (kind IN ('syn', 'touch', 'udp')) AS all_ports,
        count(*) FILTER (kind IN ('syn', 'touch') AND probed) AS tcp_probed_tries,
        count(*) FILTER (kind IN ('syn', 'touch') AND closed_to_strangers) AS tcp_closed_tries,
        count(*) FILTER (kind = 'udp' AND probed) AS udp_probed_tries,
        count(DISTINCT peer) FILTER (kind = 'echo') AS echo_hosts,
        epoch_us(max(first_seen) - min(first_seen)) / 1e6 AS span_s
    FROM tries
    GROUP BY endpoint_ip
)
SELECT
    p.endpoint_ip,
    p.first_seen,
    p.last_seen,
    p.records,
    p.hosts,
    p.host_networks,
    p.days,
    arrival.days_before,
    p.seen_out_in,
    p.seen_in_out,
    p.seen_out_out,
    p.sampling_rate,
    p.both_ways,
    p.half_seen_share,
    p.asked_for,
    coalesce(p.one_way_packets, 0) AS one_way_packets,
    coalesce(p.one_way_bytes, 0) AS one_way_bytes,
    coalesce(p.one_way_packets_per_s, 0) AS one_way_packets_per_s,
    coalesce(k.tcp_tries, 0) AS tcp_tries,
    coalesce(k.udp_tries, 0) AS udp_tries,
    coalesce(k.udp_ports, 0) AS udp_ports,
    coalesce(k.udp_from_ports, 0) AS udp_from_ports,
    coalesce(k.echo_tries, 0) AS echo_tries,
    coalesce(k.hosts, 0) AS tried_hosts,
    coalesce(k.ports, 0) AS tried_ports,
    coalesce(k.all_ports, 0) AS all_tried_ports,
    coalesce(k.tcp_probed_tries, 0) AS tcp_probed_tries,
    coalesce(k.tcp_closed_tries, 0) AS tcp_closed_tries,
    coalesce(k.udp_probed_tries, 0) AS udp_probed_tries,
    coalesce(k.echo_hosts, 0) AS echo_hosts,
    coalesce(k.span_s, 0) AS tried_span_s,
    coalesce(w.hosts, 0) AS widest_port_hosts,
    coalesce(w.service_port, 0) AS widest_port,
    coalesce(v.ports, 0) AS most_ports_on_a_host
FROM presence AS p
JOIN arrival ON arrival.endpoint_ip = p.endpoint_ip
LEFT JOIN knocking AS k ON k.endpoint_ip = p.endpoint_ip
LEFT JOIN widest_port AS w ON w.endpoint_ip = p.endpoint_ip
LEFT JOIN (
    SELECT endpoint_ip, max(ports) AS ports FROM per_host GROUP BY endpoint_ip
) AS v ON v.endpoint_ip = p.endpoint_ip
