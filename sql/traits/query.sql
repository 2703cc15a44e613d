WITH compared AS (
    SELECT
        endpoint_ip,
        s.talk_protocol AS protocol,
        -- Who never talked has no service: its port is a victim's, or one that it tried.
        if(s.talk_longest_s > 0, s.talk_port, 0) AS service_port,
        p.days,
        p.hosts,
        p.tried_hosts,
        p.tried_ports,
        p.one_way_packets,
        s.retry_failed AS failed,
        s.rhythm_connections AS connections,
        s.rhythm_regularity AS regularity,
        s.talk_longest_s AS longest_s,
        s.talk_pauses AS pauses,
        s.talk_endpoint_bytes AS endpoint_bytes,
        s.talk_peer_bytes AS peer_bytes,
        s.upload_bytes
    FROM endpoints AS p
    JOIN standouts AS s USING (endpoint_ip)
)
SELECT
    endpoint_ip,
    protocol,
    service_port,
    -- What is not known, or below nothing by a broken clock, is nothing.
    ceil(log2(1 + greatest(0, floor(
        COLUMNS(* EXCLUDE (endpoint_ip, protocol, service_port, regularity))
    ))))::UTINYINT,
    floor(10 * greatest(0, regularity))::UTINYINT AS regularity
FROM compared
