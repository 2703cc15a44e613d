-- One row for each record and each foreign end of it: a record between two
-- foreign addresses appears twice, the second time with the sides exchanged.
WITH seen AS (
    SELECT
        *,
        -- A side is silent where the source says so, or tells nothing of it but is known to
        -- show both sides of what has two. What was not sampled may have been sent.
        sampling_rate = 1 AND NOT endpoint_sent
            AND coalesce(endpoint_packets = 0, tells_silence) AS endpoint_silent,
        sampling_rate = 1 AND NOT peer_sent
            AND coalesce(peer_packets = 0, tells_silence) AS peer_silent,
        CASE
            WHEN coalesce(idle_timeout_s, active_timeout_s) IS NOT NULL
                THEN greatest(coalesce(idle_timeout_s, active_timeout_s), 1)
            -- Who knows the sizes of packets has seen them all, and their pauses.
            WHEN coalesce(endpoint_min_bytes, peer_min_bytes) IS NOT NULL THEN 1
        END AS sure_pause_s
    FROM records
    JOIN (SELECT sensor, tells_silence, both_ways FROM sensors) USING (sensor)
),
ends AS (
    SELECT
        endpoint_ip,
        coalesce(peer_pid, peer_ip) AS peer,
        peer_net_pid AS peer_net,
        peer_ip IS NULL AS peer_is_domestic,
        sensor,
        tunnel,
        protocol,
        endpoint_port,
        peer_port,
        service_port,
        direction,
        originator = 'endpoint' AS from_endpoint,
        conn_state,
        first_seen,
        last_seen,
        duration_s,
        endpoint_sent,
        peer_sent,
        endpoint_packets,
        endpoint_bytes,
        endpoint_payload_bytes,
        endpoint_max_bytes,
        endpoint_tcp_flags,
        endpoint_first,
        endpoint_last,
        endpoint_burst_starts,
        endpoint_burst_ends,
        peer_packets,
        peer_bytes,
        peer_payload_bytes,
        peer_tcp_flags,
        peer_first,
        peer_last,
        peer_burst_starts,
        peer_burst_ends,
        endpoint_silent,
        peer_silent,
        sampling_rate,
        sure_pause_s,
        both_ways
    FROM seen
    UNION ALL
    SELECT
        peer_ip,
        endpoint_ip,
        NULL,
        false,
        sensor,
        tunnel,
        protocol,
        peer_port,
        endpoint_port,
        service_port,
        direction,
        originator = 'peer',
        conn_state,
        first_seen,
        last_seen,
        duration_s,
        peer_sent,
        endpoint_sent,
        peer_packets,
        peer_bytes,
        peer_payload_bytes,
        peer_max_bytes,
        peer_tcp_flags,
        peer_first,
        peer_last,
        peer_burst_starts,
        peer_burst_ends,
        endpoint_packets,
        endpoint_bytes,
        endpoint_payload_bytes,
        endpoint_tcp_flags,
        endpoint_first,
        endpoint_last,
        endpoint_burst_starts,
        endpoint_burst_ends,
        peer_silent,
        endpoint_silent,
        sampling_rate,
        sure_pause_s,
        both_ways
    FROM seen
    WHERE peer_ip IS NOT NULL
),
-- Most ports are met once. Only records that share theirs with another need be sorted; two
-- that only share the hash are told apart there.
keyed AS (
    SELECT *, hash(endpoint_ip, endpoint_port, peer, peer_port, protocol, sensor, tunnel) AS ports_hash
    FROM ends
),
repeated AS (
    SELECT ports_hash FROM keyed GROUP BY ports_hash HAVING count(*) > 1
),
followed AS (
    SELECT
        * EXCLUDE (ports_hash),
        -- A record goes on with an earlier one when less than the idle time of five
        -- minutes lies between them (the cut at half hours), or when a TCP
        -- conversation on the same ports goes on without a new SYN.
        coalesce(
            epoch_us(first_seen - lag(last_seen) OVER ports) < 300000000
            OR (
                protocol = 6
                AND lag(last_seen) OVER ports IS NOT NULL
                AND coalesce(endpoint_tcp_flags | peer_tcp_flags, endpoint_tcp_flags, peer_tcp_flags)
                    & 2 = 0
            ),
            false
        ) AS goes_on
    FROM keyed
    WHERE ports_hash IN (FROM repeated)
    WINDOW ports AS (
        PARTITION BY endpoint_ip, endpoint_port, peer, peer_port, protocol, sensor, tunnel
        ORDER BY first_seen, last_seen, peer_is_domestic
    )
),
opened AS (
    SELECT
        * EXCLUDE (from_endpoint, goes_on),
        -- The last record before that opened a connection opened this one.
        last_value(if(goes_on, NULL, from_endpoint) IGNORE NULLS) OVER parts AS from_endpoint,
        NOT goes_on AS opens,
        last_value(if(goes_on, NULL, first_seen) IGNORE NULLS) OVER parts AS opened_at
    FROM followed
    WINDOW parts AS (
        PARTITION BY endpoint_ip, endpoint_port, peer, peer_port, protocol, sensor, tunnel
        ORDER BY first_seen, last_seen, peer_is_domestic
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
    UNION ALL
    SELECT * EXCLUDE (from_endpoint, ports_hash), from_endpoint, true, first_seen
    FROM keyed
    WHERE ports_hash NOT IN (FROM repeated)
),
told AS (
    SELECT
        *,
        NOT (endpoint_sent OR endpoint_silent) OR NOT (peer_sent OR peer_silent) AS half_seen,
        CASE
            WHEN endpoint_payload_bytes IS NOT NULL THEN endpoint_payload_bytes > 0
            -- Headers of IPv4 and TCP take 60 bytes at most without rare options, and a call
            -- without data six packets.
            WHEN protocol = 6
                THEN coalesce(endpoint_packets > 6 OR endpoint_bytes > 60 * endpoint_packets, true)
            ELSE true
        END AS endpoint_spoke
    FROM opened
)
SELECT
    * EXCLUDE (from_endpoint, opens, opened_at, both_ways),
    -- Numbers are sorted and joined faster than names. Of a hundred thousand channels two share
    -- theirs once in three thousand million times.
    hash(endpoint_ip, peer, protocol, service_port) AS channel,
    (endpoint_sent AND peer_sent)
        -- Where the other direction takes another way, or was not sampled: whoever shook hands and
        -- went on to send data was answered. A flood of forged segments does not do both on the
        -- same ports. Of samples, data must do.
        OR (
            protocol = 6
            AND (half_seen OR NOT both_ways)
            AND (
                coalesce(
                    if(
                        sampling_rate = 1,
                        endpoint_tcp_flags & 18 = 18 AND endpoint_packets >= 4,
                        endpoint_tcp_flags & 28 = 24
                    ) AND endpoint_bytes > 60 * endpoint_packets,
                    false
                )
                OR coalesce(
                    if(
                        sampling_rate = 1,
                        peer_tcp_flags & 18 = 18 AND peer_packets >= 4,
                        peer_tcp_flags & 28 = 24
                    ) AND peer_bytes > 60 * peer_packets,
                    false
                )
            )
        ) AS conversed,
    from_endpoint,
    opens,
    opened_at
FROM told
