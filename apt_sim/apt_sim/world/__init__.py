"""Simulated ALOHA: MuJoCo scene, cameras, ROS node."""
