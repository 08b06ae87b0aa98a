"""The search: what is proposed, who trains it, who is stopped early, and who is chosen."""
