SELECT * EXCLUDE (endpoint_ip), count(*) AS endpoints
FROM traits
GROUP BY ALL
