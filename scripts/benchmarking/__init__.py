"""How `benchmark.py` measures: the frameworks, the processes they run in, and the report."""
