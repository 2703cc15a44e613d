-- What inside hosts put into pings and into look-ups of names. Both answer every firewall's rules,
-- and both have a size that hardly changes: an echo returns what it got (RFC 792), and most names
-- are short, whatever they may be by rule (255 bytes, RFC 1035, 2.3.4).
WITH carried AS (
    SELECT
        endpoint_ip,
        peer,
        protocol,
        least(sum(peer_packets), sum(endpoint_packets))::BIGINT AS exchanges,
        sum(peer_bytes) / nullif(sum(peer_packets), 0) AS request_bytes,
        max(coalesce(peer_max_bytes, if(peer_packets = 1, peer_bytes, NULL))) AS longest_request_bytes,
        sum(endpoint_bytes) / nullif(sum(endpoint_packets), 0) AS reply_bytes,
        max(coalesce(endpoint_max_bytes, if(endpoint_packets = 1, endpoint_bytes, NULL)))
            AS longest_reply_bytes,
        sum(peer_bytes + endpoint_bytes) AS bytes,
        -- Headers of IP, and of UDP or ICMP, without options.
        if(contains(endpoint_ip, ':'), 48, 28) AS header_bytes
    FROM contacts
    WHERE is_recent
        AND peer_is_domestic
        AND NOT from_endpoint
        AND endpoint_sent AND peer_sent
        AND (protocol IN (1, 58) OR (protocol = 17 AND service_port = 53))
    GROUP BY endpoint_ip, peer, protocol
)
SELECT
    endpoint_ip,
    peer,
    protocol,
    exchanges,
    request_bytes - header_bytes AS request_bytes,
    longest_request_bytes - header_bytes AS longest_request_bytes,
    reply_bytes - header_bytes AS reply_bytes,
    longest_reply_bytes - header_bytes AS longest_reply_bytes
FROM carried
WHERE exchanges >= 20 AND (protocol <> 17 OR endpoint_ip NOT IN (SELECT endpoint_ip FROM resolvers))
-- The peer is a pseudonym, and scores must not depend on the key: it breaks no tie but the last.
QUALIFY row_number() OVER (
    PARTITION BY endpoint_ip ORDER BY bytes DESC, exchanges, protocol, peer
) = 1
