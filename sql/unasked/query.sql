-- What each contact looks like to a victim that did not ask for it.
WITH amplifiers AS (
    SELECT port FROM services WHERE protocol = 17 AND amplifier
),
judged AS (
    SELECT
        c.*,
        -- Of samples, `onsets` tells whether many such were answered. What a service sends to
        -- the port of a client is a download.
        peer_silent OR (
            sampling_rate > 1 AND samples_both_ways AND NOT peer_sent
            AND (offered.port IS NULL OR wanted.port IS NOT NULL)
        ) AS unanswered
    FROM contacts AS c
    JOIN (SELECT sensor, samples_both_ways FROM sensors) USING (sensor)
    LEFT JOIN services AS offered
        ON offered.protocol = c.protocol AND offered.port = c.endpoint_port
    LEFT JOIN services AS wanted ON wanted.protocol = c.protocol AND wanted.port = c.peer_port
),
contact AS (
    SELECT
        endpoint_ip,
        peer,
        peer_port,
        time_bucket(INTERVAL 10 SECONDS, first_seen) AS begun,
        CASE
            WHEN protocol = 6 AND endpoint_tcp_flags & 22 = 2 THEN 'syn'
            -- Of one side alone, an answer that no data follow tells at least that the call was
            -- not meant: forged, or a scan from inside.
            WHEN protocol = 6 AND NOT peer_sent
                AND (peer_silent OR NOT endpoint_spoke)
                AND (endpoint_tcp_flags & 18 = 18 OR endpoint_tcp_flags & 6 = 4) THEN 'reflected'
            WHEN protocol = 6 AND unanswered THEN 'tcp'
            -- Crowds of large answers tell by themselves, even where calls would not be seen: a
            -- resolver gets crowds of answers too, but small ones, up to 512 bytes without
            -- extensions (RFC 1035). Clocks answer with 76 bytes.
            WHEN protocol = 17 AND NOT peer_sent AND theirs.port IS NOT NULL
                AND endpoint_bytes > endpoint_packets * if(endpoint_port = 53, 540, 200)
                THEN 'amplified'
            -- Small answers from many to one port are no resolver's, which changes its ports.
            WHEN protocol = 17 AND NOT peer_sent AND theirs.port IS NOT NULL
                AND ours.port IS NULL THEN 'answers'
            WHEN protocol = 17 AND unanswered THEN 'udp'
        END AS kind,
        sampling_rate > 1 AS sampled,
        endpoint_packets,
        endpoint_bytes
    FROM judged AS contacts
    LEFT JOIN amplifiers AS theirs ON theirs.port = contacts.endpoint_port
    LEFT JOIN amplifiers AS ours ON ours.port = contacts.peer_port
    WHERE opens AND endpoint_sent
)
SELECT
    endpoint_ip,
    peer,
    kind,
    begun,
    if(kind = 'answers', peer_port, NULL) AS port,
    bool_and(sampled AND kind IN ('reflected', 'tcp', 'udp')) AS must_be_many,
    min(peer_port) AS least_port,
    sum(endpoint_packets)::BIGINT AS packets,
    sum(endpoint_bytes)::BIGINT AS bytes
FROM contact
WHERE kind IS NOT NULL
GROUP BY ALL
