"""The server behind draw.py, and its page."""
