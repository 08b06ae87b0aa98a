"""The one kind of error that the person at the terminal can mend: printed as a sentence, without a traceback."""


class UserError(ValueError):
    """Bad input, said in one sentence: where the value stands, the value, the rule and the way out."""
