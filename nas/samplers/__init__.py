"""Who proposes candidates: samplers of our own, and Optuna's, kept within the limits."""
