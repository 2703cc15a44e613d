-- What inside hosts put into look-ups of names and into pings, which pass most firewalls. Names are
-- short, whatever they may be by rule (255 bytes, RFC 1035, 2.3.4): a question is 16 bytes and the
-- name, with EDNS some 30 and the name. An echo returns what it got (RFC 792).
WITH told AS (
    SELECT
        *,
        -- Headers of IP, and of UDP or ICMP, without options.
        if(contains(endpoint_ip, ':'), 48, 28) AS header_bytes
    FROM contacts
    WHERE is_recent
        AND peer_is_domestic
        AND endpoint_packets > 0 AND peer_packets > 0
        AND endpoint_bytes IS NOT NULL AND peer_bytes IS NOT NULL
        AND endpoint_ip NOT IN (SELECT endpoint_ip FROM resolvers)
),
questions AS (
    SELECT
        *,
        least(endpoint_packets, peer_packets) AS answered,
        peer_bytes / peer_packets - header_bytes AS request_bytes
    FROM told
    -- Who asks comes first, and from a port of its own: a forged question to a service of the host
    -- looks like an answer otherwise, and samples do not tell.
    WHERE protocol = 17 AND endpoint_port = 53 AND peer_port >= 1024
        AND sampling_rate = 1 AND peer_first < endpoint_first
),
names AS (
    SELECT
        endpoint_ip,
        peer,
        sum(answered)::BIGINT AS exchanges,
        -- Longer than most names of use.
        coalesce(sum(answered) FILTER (request_bytes > 120), 0)::BIGINT AS long_exchanges,
        sum(request_bytes * answered) FILTER (request_bytes > 120)
            / sum(answered) FILTER (request_bytes > 120) AS long_bytes,
        count(DISTINCT time_bucket(INTERVAL 10 MINUTE, first_seen)) FILTER (request_bytes > 120)
            AS long_slots
    FROM questions
    GROUP BY endpoint_ip, peer
    -- The peer is a pseudonym, and scores must not depend on the key: it breaks no tie but the last.
    QUALIFY row_number() OVER (
        PARTITION BY endpoint_ip ORDER BY long_exchanges DESC, exchanges DESC, long_bytes, peer
    ) = 1
),
pings AS (
    SELECT
        endpoint_ip,
        least(sum(peer_packets), sum(endpoint_packets))::BIGINT AS exchanges,
        sum(peer_bytes) / sum(peer_packets) - any_value(header_bytes) AS request_bytes,
        max(peer_max_bytes) - any_value(header_bytes) AS longest_request_bytes,
        sum(endpoint_bytes) / sum(endpoint_packets) - any_value(header_bytes) AS reply_bytes,
        max(endpoint_max_bytes) - any_value(header_bytes) AS longest_reply_bytes
    FROM told
    -- The port holds the type: echo request.
    WHERE ((protocol = 1 AND endpoint_port = 8) OR (protocol = 58 AND endpoint_port = 128))
        AND NOT from_endpoint
        -- Whoever forges echoes adds some.
        AND endpoint_packets <= 1.05 * peer_packets + 2
    GROUP BY endpoint_ip, peer
    QUALIFY row_number() OVER (
        PARTITION BY endpoint_ip
        ORDER BY sum(peer_bytes + endpoint_bytes) DESC, exchanges, request_bytes, peer
    ) = 1
)
SELECT
    endpoint_ip,
    names.peer AS names_peer,
    coalesce(names.exchanges, 0) AS names_exchanges,
    coalesce(names.long_exchanges, 0) AS names_long_exchanges,
    names.long_bytes AS names_long_bytes,
    coalesce(names.long_slots, 0) AS names_long_slots,
    coalesce(pings.exchanges, 0) AS pings_exchanges,
    pings.request_bytes AS pings_request_bytes,
    pings.longest_request_bytes AS pings_longest_request_bytes,
    pings.reply_bytes AS pings_reply_bytes,
    pings.longest_reply_bytes AS pings_longest_reply_bytes
FROM names
FULL JOIN pings USING (endpoint_ip)
