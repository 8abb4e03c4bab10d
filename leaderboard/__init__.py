"""From results on disk to the Markdown leaderboard."""
