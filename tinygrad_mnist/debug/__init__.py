"""Profiler, anomaly detection, the graph as a picture, and the configuration."""
