"""python -m nas: which commands there are."""

print(
    "python -m nas.search     search for the best network of a space within its limits\n"
    "python -m nas.status     say where a study stands, running or not\n"
    "python -m nas.retrain    train a trial again and compare it epoch by epoch\n"
    "python -m nas.noise      measure what difference between two scores means nothing\n"
    "python -m nas.export     write any trial of a study as source code and weights\n"
    "python -m nas.dashboard  look at a study's trials in optuna-dashboard\n"
    "Each answers --help."
)
