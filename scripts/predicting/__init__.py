"""What predict.py is made of: reading pictures, telling what they show, drawing it."""
