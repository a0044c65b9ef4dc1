"""Score pools of any size, and evaluate students."""
