"""From the frame to the record: link layers, tunnels, metering, and the slow reference."""
