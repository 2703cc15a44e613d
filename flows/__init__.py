"""Prefect flows over `telemetry.pipeline`: order, schedule, retry, parameters; nothing else."""
