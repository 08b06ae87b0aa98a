"""The winner as source code, with the proof that it is what was trained."""
