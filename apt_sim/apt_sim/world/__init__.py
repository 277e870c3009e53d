"""The simulated ALOHA."""
