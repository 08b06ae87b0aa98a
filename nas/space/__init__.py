"""What is searched: a space, the candidates that it draws, how they are trained, and what is rejected."""
