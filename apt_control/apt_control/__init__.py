"""From end-effector targets to joint commands."""
