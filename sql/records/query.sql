-- A side "sent" when a packet of it was seen; it is "silent" when the source says
-- that it sent nothing; with neither, nothing is known about it.
WITH sides AS (
    SELECT
        *,
        coalesce(endpoint_packets > 0, endpoint_first IS NOT NULL) AS endpoint_sent,
        coalesce(peer_packets > 0, peer_first IS NOT NULL) AS peer_sent,
        coalesce(endpoint_tcp_flags, 0) & 2 > 0 AS endpoint_syn,
        coalesce(peer_tcp_flags, 0) & 2 > 0 AS peer_syn,
        coalesce(endpoint_tcp_flags, 0) & 16 > 0 AS endpoint_ack,
        coalesce(peer_tcp_flags, 0) & 16 > 0 AS peer_ack,
        CASE
            -- The type and the code of ICMP stand there, and tell no side.
            WHEN endpoint_port = peer_port OR protocol IN (1, 58) THEN NULL
            WHEN endpoint_port > peer_port THEN 'endpoint'
            ELSE 'peer'
        END AS higher_port,
        coalesce(endpoint_packets, endpoint_bytes, epoch_us(endpoint_first)) IS NULL
            OR coalesce(peer_packets, peer_bytes, epoch_us(peer_first)) IS NULL AS is_one_sided,
        CASE
            WHEN peer_first IS NULL AND endpoint_first IS NOT NULL THEN 'endpoint'
            WHEN endpoint_first IS NULL AND peer_first IS NOT NULL THEN 'peer'
            WHEN endpoint_first < peer_first THEN 'endpoint'
            WHEN peer_first < endpoint_first THEN 'peer'
        END AS earlier,
        -- Headers of IP and TCP take so many bytes at most without rare options.
        if(contains(endpoint_ip, ':'), 80, 60) AS header_bytes
    FROM stored_records
),
opened AS (
    SELECT
        *,
        CASE
            WHEN protocol = 6 THEN coalesce(
                CASE
                    WHEN endpoint_syn AND peer_syn AND earlier IS NOT NULL THEN earlier
                    -- A SYN without ACK is a call, where the clock does not tell.
                    WHEN endpoint_syn AND NOT endpoint_ack AND NOT (peer_syn AND NOT peer_ack)
                        THEN 'endpoint'
                    WHEN peer_syn AND NOT peer_ack AND NOT (endpoint_syn AND NOT endpoint_ack)
                        THEN 'peer'
                END,
                higher_port, earlier, 'endpoint'
            )
            -- Who is seen alone, or sampled first, need not have begun.
            WHEN is_one_sided OR sampling_rate > 1 THEN coalesce(higher_port, earlier, 'endpoint')
            ELSE coalesce(earlier, higher_port, 'endpoint')
        END AS originator
    FROM sides
),
turned AS (
    SELECT
        *,
        originator = 'endpoint' AS from_endpoint,
        if(originator = 'endpoint', endpoint_sent, peer_sent) AS o_sent,
        if(originator = 'endpoint', peer_sent, endpoint_sent) AS r_sent,
        -- What was not sampled may have been sent.
        sampling_rate = 1
            AND coalesce(if(originator = 'endpoint', peer_packets, endpoint_packets) = 0, false)
            AS r_silent,
        if(originator = 'endpoint', endpoint_tcp_flags, peer_tcp_flags) AS o_flags,
        if(originator = 'endpoint', peer_tcp_flags, endpoint_tcp_flags) AS r_flags
    FROM opened
),
flagged AS (
    SELECT
        *,
        coalesce(o_flags, 0) & 2 > 0 AS o_syn,
        coalesce(o_flags, 0) & 16 > 0 AS o_ack,
        coalesce(o_flags, 0) & 1 > 0 AS o_fin,
        coalesce(o_flags, 0) & 4 > 0 AS o_rst,
        coalesce(r_flags, 0) & 2 > 0 AS r_syn,
        coalesce(r_flags, 0) & 1 > 0 AS r_fin,
        coalesce(r_flags, 0) & 4 > 0 AS r_rst
    FROM turned
)
SELECT
    day,
    first_seen,
    last_seen,
    epoch_us(last_seen - first_seen) / 1e6 AS duration_s,
    sensor,
    CASE
        WHEN peer_ip IS NOT NULL THEN 'out_out'
        WHEN from_endpoint THEN 'out_in'
        ELSE 'in_out'
    END AS direction,
    originator,
    endpoint_ip,
    endpoint_port,
    peer_pid,
    peer_net_pid,
    peer_ip,
    peer_port,
    protocol,
    if(protocol IN (6, 17, 33, 132, 136), if(from_endpoint, peer_port, endpoint_port), NULL)
        AS service_port,
    CASE
        WHEN protocol <> 6 THEN
            CASE
                WHEN o_sent AND r_sent THEN 'SF'
                WHEN o_sent AND r_silent THEN 'S0'
                ELSE 'OTH'
            END
        WHEN o_syn AND r_syn THEN
            CASE
                WHEN o_fin AND r_fin THEN 'SF'
                WHEN o_rst THEN 'RSTO'
                WHEN r_rst THEN 'RSTR'
                WHEN o_fin THEN 'S2'
                WHEN r_fin THEN 'S3'
                ELSE 'S1'
            END
        WHEN o_syn AND r_sent AND r_rst AND sampling_rate = 1 THEN 'REJ'
        WHEN o_syn AND r_silent AND o_fin THEN 'SH'
        WHEN o_syn AND r_silent AND o_rst THEN 'RSTOS0'
        WHEN o_syn AND r_silent AND NOT o_ack THEN 'S0'
        WHEN r_syn AND r_rst THEN 'RSTRH'
        WHEN r_syn AND r_fin THEN 'SHR'
        ELSE 'OTH'
    END AS conn_state,
    CASE
        -- A log that knows no packet sizes, or gives one time for both sides, knows no
        -- time of the answer; nor does who sees only some of the packets.
        WHEN protocol = 6 AND o_syn AND r_syn AND endpoint_first <> peer_first
            AND endpoint_min_bytes IS NOT NULL AND sampling_rate = 1
            THEN abs(epoch_us(endpoint_first - peer_first)) / 1e6
    END AS handshake_s,
    endpoint_sent,
    peer_sent,
    coalesce(endpoint_payload_bytes > 0, endpoint_bytes > header_bytes * endpoint_packets)
        AS endpoint_sent_data,
    coalesce(peer_payload_bytes > 0, peer_bytes > header_bytes * peer_packets) AS peer_sent_data,
    is_one_sided,
    endpoint_packets,
    endpoint_bytes,
    endpoint_payload_bytes,
    endpoint_min_bytes,
    endpoint_max_bytes,
    endpoint_tcp_flags,
    endpoint_first,
    endpoint_last,
    endpoint_burst_starts,
    endpoint_burst_ends,
    peer_packets,
    peer_bytes,
    peer_payload_bytes,
    peer_min_bytes,
    peer_max_bytes,
    peer_tcp_flags,
    peer_first,
    peer_last,
    peer_burst_starts,
    peer_burst_ends,
    tunnel,
    pair_class,
    outer_class,
    sampling_rate,
    endpoint_packets::DOUBLE * sampling_rate AS endpoint_packets_est,
    endpoint_bytes::DOUBLE * sampling_rate AS endpoint_bytes_est,
    peer_packets::DOUBLE * sampling_rate AS peer_packets_est,
    peer_bytes::DOUBLE * sampling_rate AS peer_bytes_est,
    active_timeout_s,
    idle_timeout_s,
    bucket,
    endpoint_addr
FROM flagged
