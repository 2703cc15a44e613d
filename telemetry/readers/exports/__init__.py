"""Flow exports: NetFlow v1, v5, v7, v9, IPFIX and sFlow v5, decoded by compiled kernels.

A *carrier* (`carriers`) finds the messages, in a capture of their UDP datagrams or in a file
of them; `messages` tells their kinds and lengths; `templates` turns what exporters announce
into plans; `flows` runs plans over data records, `samples` gives sampled packets to the packet
kernel. `reader` wires them.
"""
