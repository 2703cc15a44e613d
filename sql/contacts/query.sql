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
    JOIN (SELECT sensor, tells_silence, misses_answers FROM sensors) USING (sensor)
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
        endpoint_sent_data,
        endpoint_first,
        endpoint_last,
        endpoint_burst_starts,
        endpoint_burst_ends,
        peer_packets,
        peer_bytes,
        peer_payload_bytes,
        peer_max_bytes,
        peer_tcp_flags,
        peer_sent_data,
        peer_first,
        peer_last,
        peer_burst_starts,
        peer_burst_ends,
        endpoint_silent,
        peer_silent,
        sampling_rate,
        sure_pause_s,
        misses_answers
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
        peer_sent_data,
        peer_first,
        peer_last,
        peer_burst_starts,
        peer_burst_ends,
        endpoint_packets,
        endpoint_bytes,
        endpoint_payload_bytes,
        endpoint_max_bytes,
        endpoint_tcp_flags,
        endpoint_sent_data,
        endpoint_first,
        endpoint_last,
        endpoint_burst_starts,
        endpoint_burst_ends,
        peer_silent,
        endpoint_silent,
        sampling_rate,
        sure_pause_s,
        misses_answers
    FROM seen
    WHERE peer_ip IS NOT NULL
),
told AS (
    SELECT
        *,
        NOT (endpoint_sent OR endpoint_silent) OR NOT (peer_sent OR peer_silent) AS half_seen,
        -- Of a side that takes another way, nothing is known, whatever a capture calls it.
        half_seen OR (misses_answers AND NOT (endpoint_sent AND peer_sent)) AS one_way
    FROM ends
),
-- Most ports are met once. Only records that share theirs with another need be sorted; two
-- that only share the hash are told apart there.
keyed AS (
    SELECT
        * EXCLUDE (endpoint_sent_data, peer_sent_data, misses_answers, one_way),
        CASE
            WHEN one_way AND NOT endpoint_sent THEN true
            WHEN endpoint_payload_bytes IS NOT NULL THEN endpoint_payload_bytes > 0
            -- A call without data takes six packets.
            WHEN protocol = 6 THEN coalesce(endpoint_packets > 6 OR endpoint_sent_data, true)
            ELSE true
        END AS endpoint_spoke,
        (endpoint_sent AND peer_sent)
            -- Where the other direction takes another way: whoever shook hands and went on to
            -- send data was answered, unless all that was forged.
            OR (
                protocol = 6 AND sampling_rate = 1 AND one_way AND (
                    coalesce(
                        endpoint_sent_data AND endpoint_packets >= 4 AND endpoint_tcp_flags & 18 = 18,
                        false
                    )
                    OR coalesce(
                        peer_sent_data AND peer_packets >= 4 AND peer_tcp_flags & 18 = 18, false
                    )
                )
            ) AS was_answered,
        hash(endpoint_ip, endpoint_port, peer, peer_port, protocol, sensor, tunnel) AS ports_hash
    FROM told
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
),
joined AS (
    SELECT
        * EXCLUDE (was_answered),
        -- The handshake may be in another part of the connection.
        bool_or(was_answered) OVER (
            PARTITION BY
                endpoint_ip, endpoint_port, peer, peer_port, protocol, sensor, tunnel, opened_at
        ) AS was_answered
    FROM opened
    UNION ALL BY NAME
    SELECT * EXCLUDE (ports_hash), true AS opens, first_seen AS opened_at
    FROM keyed
    WHERE ports_hash NOT IN (FROM repeated)
),
-- An endpoint is judged by the last thirty days on which it was seen: addresses change hands. Days
-- are counted, not time, so that one broken clock or one late visit takes away no more than a day.
judged AS (
    SELECT endpoint_ip, list(day ORDER BY day DESC)[30] AS first_day
    FROM (
        SELECT DISTINCT endpoint_ip, epoch_us(first_seen) // 86400000000 AS day
        FROM (
            SELECT endpoint_ip, first_seen FROM records
            UNION ALL
            SELECT peer_ip, first_seen FROM records WHERE peer_ip IS NOT NULL
        )
        WHERE (SELECT count(DISTINCT day) > 30 FROM sensor_days)
    )
    GROUP BY endpoint_ip
)
SELECT
    joined.* EXCLUDE (half_seen, endpoint_spoke, was_answered, from_endpoint, opens, opened_at),
    half_seen,
    endpoint_spoke,
    -- Numbers are sorted and joined faster than names. Nobody can choose addresses that share
    -- one, as they could with `hash`.
    md5_number(concat_ws(' ', joined.endpoint_ip, peer, protocol, service_port))::UUID AS channel,
    was_answered,
    from_endpoint,
    opens,
    opened_at,
    coalesce(epoch_us(first_seen) // 86400000000 >= judged.first_day, true) AS is_recent
FROM joined
LEFT JOIN judged ON judged.endpoint_ip = joined.endpoint_ip
