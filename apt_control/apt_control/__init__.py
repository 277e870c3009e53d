"""Inverse kinematics from end-effector targets to joint commands."""
