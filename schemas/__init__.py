"""What things are. Imports nothing of ours."""
