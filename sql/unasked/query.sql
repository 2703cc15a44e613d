-- What each contact looks like to a victim that did not ask for it.
WITH amplifiers AS (
    SELECT port FROM services WHERE protocol = 17 AND amplifier
),
contact AS (
    SELECT
        endpoint_ip,
        peer,
        peer_net,
        peer_port,
        time_bucket(INTERVAL 10 SECONDS, first_seen) AS begun,
        CASE
            WHEN protocol = 6 AND endpoint_tcp_flags & 22 = 2 THEN 'syn'
            -- Of one side alone, an answer that no data follow tells at least that the call was
            -- not meant: forged, or a scan from inside. Of samples, `onsets` looks at what else
            -- was seen.
            WHEN protocol = 6 AND NOT peer_sent
                AND (peer_silent OR NOT endpoint_spoke)
                AND (endpoint_tcp_flags & 18 = 18 OR endpoint_tcp_flags & 6 = 4) THEN 'reflected'
            WHEN protocol = 6 AND peer_silent THEN 'tcp'
            -- Crowds of large answers tell by themselves, even where calls would not be seen: a
            -- resolver gets crowds of answers too, but small ones, up to 512 bytes without
            -- extensions (RFC 1035). Clocks answer with 76 bytes.
            WHEN protocol = 17 AND NOT peer_sent AND theirs.port IS NOT NULL
                AND endpoint_bytes > endpoint_packets * if(endpoint_port = 53, 540, 200)
                THEN 'amplified'
            -- Small answers from many to one port are no resolver's, which changes its ports.
            WHEN protocol = 17 AND NOT peer_sent AND theirs.port IS NOT NULL
                AND ours.port IS NULL THEN 'answers'
            WHEN protocol = 17 AND peer_silent THEN 'udp'
        END AS kind,
        sampling_rate > 1 AS sampled,
        endpoint_packets,
        endpoint_bytes
    FROM contacts
    LEFT JOIN amplifiers AS theirs ON theirs.port = contacts.endpoint_port
    LEFT JOIN amplifiers AS ours ON ours.port = contacts.peer_port
    WHERE is_recent AND opens AND endpoint_sent
)
SELECT
    endpoint_ip,
    peer,
    peer_net,
    kind,
    begun,
    if(kind = 'answers', peer_port, NULL) AS port,
    bool_and(sampled AND kind = 'reflected') AS must_be_many,
    min(peer_port) AS least_port,
    sum(endpoint_packets)::BIGINT AS packets,
    sum(endpoint_bytes)::BIGINT AS bytes
FROM contact
WHERE kind IS NOT NULL
GROUP BY ALL
