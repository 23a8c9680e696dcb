"""What export.py writes, and how it is compared with what it was made from."""
